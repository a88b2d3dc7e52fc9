"""Every command of `hf-chain`, on models and data of seconds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, CLIPModel

from hf_chain.cli import exit_cleanly
from hf_chain.methods.chain.recipe import load_recipe
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import read_family
from support.command_line import Command
from support.hub_fixtures import hub  # noqa: F401
from support.hub_server import HubServer
from support.plots import fixtures_without_plots, without_plots  # noqa: F401
from support.recipes import REPOSITORY, tiny_values, write_recipe

RECIPES = [
    path for path in sorted((REPOSITORY / "examples" / "recipes").glob("*.yaml")) if not path.stem.startswith("graft_")
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of two members."""
    folder = tmp_path_factory.mktemp("family")
    changes = {"evaluation__max_samples": 16, "hub__prefix": "tester/tiny"}
    return write_recipe(folder / "recipe.yaml", tiny_values(folder / "runs", members=2, **changes))


@pytest.fixture(scope="module")
def trained(recipe: Path) -> Path:
    """The finished run of the recipe."""
    return run(load_recipe(recipe))


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], []])
def test_help_starts_neither_torch_nor_transformers(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from hf_chain.cli import main\n"
        "try:\n    main()\nexcept SystemExit as leaving:\n    assert not leaving.code\n"
        "assert not {'torch', 'transformers', 'datasets', 'huggingface_hub'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.mark.parametrize(
    ("resumes", "more"), [(True, "; the same command goes on from the last checkpoint"), (False, "")]
)
def test_only_what_goes_on_says_so_when_it_is_interrupted(
    resumes: bool, more: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as leaving:
        exit_cleanly(command, resumes)
    assert leaving.value.code == 130
    assert capsys.readouterr().err == f"hf-chain: interrupted{more}\n"


@pytest.mark.parametrize(
    ("processes", "said"),
    [
        ("2", "another process of this run has ended or does not answer; its own last line"),
        ("1", "RuntimeError: [/a/"),
    ],
)
def test_a_process_that_lost_another_one_says_so(
    processes: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch says in the survivors, while the launcher is about to end them."""

    def command() -> None:
        raise RuntimeError("[/a/third_party/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:55008: Connection")

    monkeypatch.setenv("WORLD_SIZE", processes)
    with pytest.raises(SystemExit):
        exit_cleanly(command)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hf-chain: {said}") and ("HF_CHAIN_DEBUG" in line) == (processes == "1")


def test_the_module_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "hf_chain", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(command in done.stdout for command in ("plan", "run", "grow", "eval", "push", "report"))
    assert all(command in done.stdout for command in ("surrogate", "graft", "export", "chat"))


def test_the_plan_is_a_table(hf_chain: Command, recipe: Path) -> None:
    outcome = hf_chain("plan", recipe, "--tflops", "0.5")
    assert outcome.status == 0 and not outcome.err
    for words in ("| tiny ", "| small ", "independently costs", "Memory on one device", "hours"):
        assert words in outcome.out


def test_the_plan_is_json(hf_chain: Command, recipe: Path) -> None:
    plan = json.loads(hf_chain("plan", recipe, "--json", "--set", "members.small.epochs=2").out)
    assert [member["name"] for member in plan["members"]] == ["tiny", "small"]
    assert [member["epochs"] for member in plan["members"]] == [1, 2]
    for member in plan["members"]:
        assert member["parameters"] > 0 and member["macs_per_sample"] > 0
        assert member["training_macs"] == member["student_macs"] + member["teacher_macs"]
    assert plan["family_ratio"] == plan["independent_macs"] / plan["chain_macs"]
    assert plan["largest_alone_ratio"] > 1


@pytest.mark.parametrize("example", RECIPES, ids=lambda path: path.stem)
def test_every_example_can_be_planned(hf_chain: Command, example: Path, checkout: Path) -> None:
    recipe = load_recipe(example)
    source = recipe.data.source
    if source.startswith("..") and not Path(source).exists():
        pytest.skip(f"needs {source}, which stands beside the repository in CI only")
    # The plan of texts cuts them into rows.
    fewer = ["--set", "data.stories.train=400"] if source == "stories" else []
    outcome = hf_chain("plan", example, "--json", *fewer)
    assert outcome.status == 0, outcome.err
    assert (json.loads(outcome.out)["family_ratio"] > 1) == (len(recipe.members) > 1)


def test_a_grown_folder_loads_in_stock_classes_and_embeds_the_same(
    hf_chain: Command,
    trained: Path,
    tmp_path: Path,
) -> None:
    sizes = ["--vision-width", "32", "--text-depth", "2", "--embedding", "24"]
    outcome = hf_chain("grow", trained / "01-tiny", tmp_path / "grown", *sizes)
    assert outcome.status == 0 and "relative error of the outputs" in outcome.out
    small, large = (CLIPModel.from_pretrained(folder) for folder in (trained / "01-tiny", tmp_path / "grown"))
    vision, text = large.config.vision_config, large.config.text_config
    assert (vision.hidden_size, text.num_hidden_layers, large.config.projection_dim) == (32, 2, 24)
    texts = AutoProcessor.from_pretrained(tmp_path / "grown")(text=["a red circle"], return_tensors="pt")
    with torch.no_grad():
        before, after = (model.get_text_features(**texts).pooler_output for model in (small, large))
    assert torch.allclose(after.norm(), before.norm(), rtol=1e-4)


def test_eval_prints_the_metrics_of_the_run(hf_chain: Command, recipe: Path, trained: Path) -> None:
    outcome = hf_chain("eval", trained / "02-small", "--recipe", recipe)
    assert outcome.status == 0, outcome.err
    measured = json.loads((trained / "02-small" / "evaluation.json").read_text())
    assert json.loads(outcome.out) == {
        split: pytest.approx(evaluation["metrics"]) for split, evaluation in measured.items()
    }


def test_eval_measures_the_members_of_a_run_by_a_suite(hf_chain: Command, trained: Path, tmp_path: Path) -> None:
    run_dir = shutil.copytree(trained, tmp_path / "run")
    sizes = {"train": 10, "validation": 6, "test": 1, "compositional": 1, "image_size": 16}
    one = {"name": "other", "source": "scenes", "split": "validation", "scenes": sizes, "templates": "scenes"}
    suite = write_recipe(tmp_path / "suite.yaml", {"datasets": [one | {"kind": ["zero_shot", "linear_probe"]}]})
    edited = run_dir / "01-tiny" / "README.md"
    edited.write_text(edited.read_text() + "Ours.\n")
    outcome = hf_chain("eval", run_dir, "--suite", suite)
    assert outcome.status == 0, outcome.err
    results = {name: found["results"]["other"] for name, found in json.loads(outcome.out)["members"].items()}
    assert results.keys() == {"tiny", "small"}
    assert results["small"]["metrics"].keys() == {
        f"{kind}_top{k}" for kind in ("zero_shot", "linear_probe") for k in (1, 5)
    }
    family = read_family(run_dir)
    assert {member.name: member.transfer["other"] for member in family.members} == results
    assert all(member.saved for member in family.members)
    card = (run_dir / "02-small" / "README.md").read_text()
    assert "| other (validation) | linear-probe top-1 |" in card and "name: other" in card
    assert edited.read_text().endswith("Ours.\n") and "linear-probe" not in edited.read_text()
    assert "other (validation)" in (run_dir / "report" / "index.html").read_text()
    assert "| linear-probe top-1 |" in (run_dir / "report" / "family.md").read_text()
    # What the ledger has is not measured again.
    before = (run_dir / "ledger.jsonl").read_text().count("transferred")
    assert json.loads(hf_chain("eval", run_dir, "--suite", suite).out)["members"]["small"]["results"]["other"]
    assert (run_dir / "ledger.jsonl").read_text().count("transferred") == before == 2


@pytest.mark.plots
def test_report_prints_the_page(hf_chain: Command, trained: Path, tmp_path: Path) -> None:
    run_dir = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    outcome = hf_chain("report", run_dir)
    assert outcome.status == 0 and outcome.out.strip() == str(run_dir / "report" / "index.html")
    assert "| small " in (run_dir / "report" / "family.md").read_text()


def test_push_brings_every_member_to_the_hub_once(
    hf_chain: Command,
    hub: HubServer,  # noqa: F811
    trained: Path,
    tmp_path: Path,
) -> None:
    run_dir = shutil.copytree(trained, tmp_path / "run")
    outcome = hf_chain("push", run_dir)
    assert outcome.status == 0, outcome.err
    assert outcome.out.split() == [f"{hub.endpoint}/tester/tiny-{name}" for name in ("tiny", "small")]
    assert hub.model("tester/tiny-small").files["model.safetensors"].lfs
    assert "Nothing to push" in hf_chain("push", run_dir).out


def test_push_without_a_login_says_so(
    hf_chain: Command,
    hub: HubServer,  # noqa: F811
    trained: Path,
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    for command in (["push", trained], ["run", recipe, "--push-to-hub", "--output-dir", trained.parent / "other"]):
        assert hf_chain(*command).message.startswith("Not logged in to the Hub: run `hf auth login`, set HF_TOKEN")
    assert not (trained.parent / "other").exists()
