"""The cards of a graft: what the Hub reads, what a model is made of, lines that run, and all of it pushed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from transformers import PreTrainedConfig

from hf_chain.commands.push import push_pending
from hf_chain.cost import human
from hf_chain.errors import HfChainError
from hf_chain.hub import HubSettings, PushQueue, RetryPolicy, pending
from hf_chain.methods.graft.card.stage_card import stage_card, write_graft_card
from hf_chain.models.grafted_vlm import GraftedVLMConfig
from hf_chain.runs.ledger import FamilyRecord, Ledger, read_family
from support.forks import forked
from support.graft_runs import CUT, EVALUATION, TRAINING, TRANSLATOR_TRAINING
from support.hub_server import HubServer
from support.saved_grafts import write_saved_graft

PUSHED = HubSettings(push=True, prefix="tester/graft", license="apache-2.0", dataset="tester/shapes", language="en")
COMMIT = "a" * 40
STAGES = list(TRAINING)


@pytest.fixture(scope="module")
def saved_graft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that is not pushed."""
    return write_saved_graft(tmp_path_factory.mktemp("saved") / "graft")


@pytest.fixture
def graft_dir(saved_graft: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(saved_graft, tmp_path / "graft"))


def card_of(run_dir: Path, name: str, hub: HubSettings = PUSHED, family: FamilyRecord | None = None) -> ModelCard:
    family = family or read_family(run_dir)
    member = family.member(name)
    return ModelCard.load(write_graft_card(run_dir / member.folder, family, member, hub, "name: graft"))


def from_outside(run_dir: Path) -> FamilyRecord:
    """The run, with a target and an encoder from the Hub."""
    family = read_family(run_dir)
    family.recipe["target"] = {"name_or_path": "meta/llama", "revision": "main", "new": None}
    family.members = [member for member in family.members if member.name != "target"]
    family.member("surrogate").parent = f"meta/llama@{COMMIT}"
    for name in ("encoder", "alignment"):
        family.member(name).parent = f"openai/clip@{COMMIT}"
    return family


@pytest.mark.parametrize(
    ("name", "task", "tags", "base", "relation"),
    [
        ("target", "text-generation", set(), None, None),
        ("surrogate", "text-generation", {"surrogate", "layer-pruning"}, "tester/graft-target", "finetune"),
        ("encoder", "image-text-to-text", {"vision-language", "surrogate"}, "tester/graft-surrogate", "merge"),
        (
            "graft",
            "image-text-to-text",
            {"vision-language"},
            ["tester/graft-target", "tester/graft-encoder"],
            "merge",
        ),
        ("decoder", "image-text-to-text", {"vision-language"}, "tester/graft-graft", "finetune"),
        ("alignment", "image-text-to-text", {"vision-language", "baseline"}, "tester/graft-target", "merge"),
        ("full", "image-text-to-text", {"vision-language", "baseline"}, "tester/graft-alignment", "finetune"),
    ],
)
def test_the_metadata_of_every_stage(
    graft_dir: Path, name: str, task: str, tags: set[str], base: Any, relation: str | None
) -> None:
    data = card_of(graft_dir, name, PUSHED.model_copy(update={"tags": ["shapes"]})).data
    assert (data.library_name, data.pipeline_tag) == ("transformers", task)
    assert (data.license, data.language, data.datasets) == ("apache-2.0", "en", ["tester/shapes"])
    assert set(data.tags) == {"hf_chain", "graft", "shapes"} | tags
    assert (data.base_model, data.get("base_model_relation")) == (base, relation)
    assert data.model_name == f"graft-{name}"


@pytest.mark.parametrize(
    ("name", "base", "relation"),
    [
        ("surrogate", "meta/llama", "finetune"),
        ("encoder", ["meta/llama", "openai/clip"], "merge"),
        ("decoder", ["meta/llama", "openai/clip"], "merge"),
    ],
)
def test_a_local_card_names_what_is_on_the_hub_alone(
    graft_dir: Path, name: str, base: Any, relation: str | None
) -> None:
    card = card_of(graft_dir, name, HubSettings(prefix="tester/graft"), from_outside(graft_dir))
    assert (card.data.base_model, card.data["base_model_relation"]) == (base, relation)
    assert f"[meta/llama](https://huggingface.co/meta/llama/tree/{COMMIT})" in card.text
    assert "tester/" not in str(card)
    card = card_of(graft_dir, name, HubSettings(prefix="tester/graft"))
    assert not set(card.data.to_dict()) & {"license", "base_model", "base_model_relation", "datasets", "language"}
    assert "huggingface.co" not in card.text and str(graft_dir) not in str(card)


def test_the_lineage_names_layers_translator_and_encoder(graft_dir: Path) -> None:
    text = card_of(graft_dir, "surrogate").text
    assert "4 of its 6 layers" in text and "Replaced: 2–4. Kept: 0, 1, 2, 5." in text
    assert "Translator: layer 2 of this model" in text and "`inherit`" in text
    text = card_of(graft_dir, "decoder", family=from_outside(graft_dir)).text
    assert f"- Language model: [meta/llama](https://huggingface.co/meta/llama/tree/{COMMIT}) at `{COMMIT}`." in text
    assert f"- Encoder: [openai/clip](https://huggingface.co/openai/clip/tree/{COMMIT}) at `{COMMIT}`" in text
    assert "layers 0, 1, 2, 5 of the target's 6, 2–4 replaced by a translator" in text
    assert re.search(r"openai/clip\].* → \[encoder\].* → \[graft\].* → \*\*decoder\*\*", text)
    assert "nothing was trained" in card_of(graft_dir, "graft").text


def test_metrics_are_results_of_their_task_and_split(graft_dir: Path) -> None:
    results = card_of(graft_dir, "graft").data.eval_results
    found = {(r.task_type, r.dataset_split, r.metric_type, r.metric_name): r.metric_value for r in results}
    assert found["visual-question-answering", "validation", "accuracy", "exact match"] == 0.634
    assert found["visual-question-answering", "test", "f1", "yes/no F1"] == pytest.approx(
        0.98 * 0.634 + 0.04, abs=1e-4
    )
    (perplexity,) = card_of(graft_dir, "surrogate").data.eval_results
    assert (perplexity.task_type, perplexity.metric_type, perplexity.metric_value) == (
        "text-generation",
        "perplexity",
        6.0,
    )
    local = card_of(graft_dir, "target", HubSettings()).data.eval_results
    assert {(r.dataset_name, r.task_type) for r in local} == {("scenes-text", "question-answering")}
    assert {r.dataset_name for r in card_of(graft_dir, "graft", HubSettings()).data.eval_results} == {"scenes"}


def test_captions_are_a_task_of_their_own_and_no_shares(graft_dir: Path) -> None:
    family = read_family(graft_dir)
    family.recipe["data"]["captioned"] = {"source": "captions"}
    family.member("graft").metrics_after = {
        "captioned/validation": {"cider_d": 0.0684, "caption_words": 8.25},
        "images/validation": {"exact_match": 0.634},
    }
    card = card_of(graft_dir, "graft", HubSettings(), family)
    found = {(r.task_type, r.dataset_split, r.metric_type): r.metric_value for r in card.data.eval_results}
    assert found == {
        ("image-to-text", "validation", "cider"): 0.0684,
        ("visual-question-answering", "validation", "accuracy"): 0.634,
    }
    lines = [line.split("|") for line in card.text.splitlines()]
    cells = {line[1].strip(): [cell.strip() for cell in line[2:-1]] for line in lines if len(line) > 3}
    assert cells["CIDEr-D × 100"] == ["6.8", "–"] and cells["words of a caption"] == ["8.2", "–"]
    assert cells["exact match"] == ["–", "63.4 %"]


def test_the_body_tells_cost_results_and_training(graft_dir: Path) -> None:
    text = card_of(graft_dir, "decoder").text
    spent = TRAINING["surrogate"] + TRAINING["encoder"] + TRAINING["decoder"] + 3 * EVALUATION
    assert f"To get here it took {human(spent)} MACs, all stages before included." in text
    assert "The graft costs 59.3 % less than the baseline" in text
    assert re.search(r"\| \*\*grafted \+ 10 % decoder data\*\* +\| +74.1 % \| +78.1 % \|", text)
    assert re.search(r"\| exact match +\| +74.1 % \| +72.6 % \|", text)
    assert "- `decoder` trained, learning rate 5e-05\n- 0.1 epochs, 25,000 samples of tester/shapes\n" in text
    assert "\n- versions: hf-chain 0.1.0, torch 2.13.0\n- hardware: 2 cores\n- processes: 1\n" in text
    assert "```yaml\nname: graft\n```" in text and "arxiv.org/abs/2505.22664" in text
    text = card_of(graft_dir, "surrogate").text
    assert f"Finding the cut took {human(CUT)} MACs" in text
    assert re.search(r"\| closed_form +\| +0.210 \| +6.000 \| +75 % \|", text)


def test_a_translator_has_a_repository_with_lineage_cost_and_results(tmp_path: Path) -> None:
    run_dir = write_saved_graft(tmp_path / "graft", translator=True)
    card = card_of(run_dir, "translator")
    assert (card.data.base_model, card.data["base_model_relation"]) == ("tester/graft-surrogate", "merge")
    assert set(card.data.tags) == {"hf_chain", "graft", "vision-language", "surrogate"}
    text = card.text
    assert "This is the stage “translator on the surrogate”." in text
    assert "03-base → **translator**" in text and "in the form of its surrogate [surrogate]" in text
    assert "2–4 replaced by a translator (layer 2 of the surrogate" in text
    assert "- The translator was trained further: in this stage.\n" in text
    assert "- `adapter` trained, learning rate 0.0001\n- `translator` trained, learning rate 0.0001\n" in text
    assert f"Training this stage took {human(TRANSLATOR_TRAINING)} MACs." in text
    spent = TRAINING["surrogate"] + TRANSLATOR_TRAINING
    assert f"To get here it took {human(spent)} MACs, all stages before included." in text
    assert "The graft costs " in text
    # Its own model is asked nothing; what came of it stands in the table of the run.
    assert "model-index" not in card.data.to_dict() and "By split" not in text
    assert re.search(r"\| surrogate +\| +61.2 % \|.*\n\| grafted \(nothing trained\) +\| +63.4 % \|", text)
    after = card_of(run_dir, "encoder")
    assert (after.data.base_model, after.data["base_model_relation"]) == ("tester/graft-translator", "finetune")
    assert re.search(r"03-base → \[translator\]\(.*\) → \*\*encoder\*\*", after.text)
    assert "- The translator was trained further: in `translator`.\n" in after.text
    assert "trained further" not in card_of(run_dir, "full").text


@pytest.mark.parametrize("name", STAGES)
def test_unknown_things_leave_no_trace(graft_dir: Path, name: str) -> None:
    family = read_family(graft_dir)
    family.environment = {}
    for member in family.members:
        member.metrics_after, member.training_macs, member.evaluation_macs, member.samples = {}, {}, 0, 0
        member.parent, member.status = None, "trained"
    (graft_dir / "02-surrogate" / "translator.json").unlink()
    card = card_of(graft_dir, name, HubSettings(), family)
    assert "## Results" not in card.text and "## Cost" not in card.text
    assert "model-index" not in card.data.to_dict()
    assert not re.search(r"None|nan\b|\{\{|\{%|\n\n\n|Undefined", card.text)


def test_every_family_of_models_has_a_card(graft_dir: Path) -> None:
    config = GraftedVLMConfig(
        vision_config={"model_type": "siglip2_vision_model", "num_hidden_layers": 2},
        text_config={"model_type": "gpt2", "n_layer": 3},
    )
    family = read_family(graft_dir)
    text = stage_card(config, {}, family, family.member("graft"), PUSHED, "").text
    assert "(siglip2_vision_model)" in text and "(gpt2, 3 layers)" in text
    assert "pixels" not in text


def test_a_card_needs_a_saved_model(graft_dir: Path, tmp_path: Path) -> None:
    family = read_family(graft_dir)
    with pytest.raises(HfChainError, match="No saved model in"):
        write_graft_card(tmp_path / "nothing", family, family.member("graft"), PUSHED, "")
    family.members[0].name = "elsewhere"
    with pytest.raises(HfChainError, match="'elsewhere' is no stage of this run: it has target, surrogate"):
        stage_card(PreTrainedConfig(), {}, family, family.members[0], PUSHED, "")


def test_every_stage_is_pushed_later_with_links_to_commits(
    hub: HubServer, graft_dir: Path, patience: RetryPolicy
) -> None:
    assert [record.name for record in pending(graft_dir)] == STAGES
    report = push_pending(graft_dir, PUSHED, policy=patience)
    assert [result.repo_id for result in report.pushed] == [f"tester/graft-{name}" for name in STAGES]
    assert not pending(graft_dir)
    files = hub.model("tester/graft-decoder").files
    assert {"README.md", "model.safetensors", "processor_config.json", "recipe.yaml", "answers.json"} <= set(files)
    card = ModelCard(files["README.md"].data.decode())
    revision = hub.model("tester/graft-graft").branches["main"]
    assert f"[graft](https://huggingface.co/tester/graft-graft/tree/{revision})" in card.text
    assert card.data.base_model == "tester/graft-graft"
    assert not any(name.startswith("examples") for name in files)


def test_a_push_that_failed_in_the_run_is_finished_later(
    hub: HubServer, graft_dir: Path, patience: RetryPolicy
) -> None:
    hub.fail(r"POST /api/models/tester/graft-graft/commit/main", 403, times=1)
    with PushQueue(Ledger(graft_dir), PUSHED, policy=patience) as queue:
        for record in read_family(graft_dir).members[2:4]:
            queue.submit(record.name, graft_dir / record.folder, record.weights_sha256)
    states = {record.name: record.push.get("state") for record in read_family(graft_dir).members}
    assert (states["encoder"], states["graft"]) == ("pushed", "failed")
    assert "graft" in [result.repo_id.rpartition("-")[2] for result in push_pending(graft_dir, PUSHED).pushed]


def snippet(card: ModelCard) -> str:
    code = re.search(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert code is not None and len(code[1].strip().splitlines()) == 5
    return code[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["surrogate", "decoder"])
def test_the_lines_of_a_local_card_run_in_its_folder(graft_dir: Path, name: str) -> None:
    code = snippet(card_of(graft_dir, name, HubSettings()))
    folder = graft_dir / read_family(graft_dir).member(name).folder
    check = "import sys; assert 'hf_chain' not in sys.modules" if name == "surrogate" else ""
    forked("-c", code + check, folder=folder)


@pytest.mark.slow
def test_the_lines_of_a_pushed_card_load_it_from_the_hub(
    hub: HubServer, graft_dir: Path, tmp_path: Path, patience: RetryPolicy
) -> None:
    push_pending(graft_dir, PUSHED, policy=patience)
    card = ModelCard(hub.model("tester/graft-graft").files["README.md"].data.decode())
    subprocess.run([sys.executable, "-c", snippet(card)], cwd=tmp_path, check=True, capture_output=True)
