"""The model card: metadata the Hub understands, a snippet that runs, nothing that is not known."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from hf_chain.commands.push import push_pending
from hf_chain.cost import human
from hf_chain.errors import HfChainError
from hf_chain.hub import HubSettings, RetryPolicy
from hf_chain.methods.chain.card import write_member_card
from hf_chain.runs.ledger import FamilyRecord, read_family
from support.forks import forked
from support.hub_server import HubServer

PUSHED = HubSettings(push=True, prefix="tester/scenes", license="apache-2.0", dataset="tester/shapes", language="en")


def card_of(run_dir: Path, name: str, hub: HubSettings, family: FamilyRecord | None = None) -> ModelCard:
    family = family or read_family(run_dir)
    member = family.member(name)
    folder = run_dir / member.folder
    return ModelCard.load(write_member_card(folder, family, member, hub, (folder / "recipe.yaml").read_text()))


def snippet(card: ModelCard) -> str:
    return re.search(r"```python\n(.*?)```", card.text, re.DOTALL)[1]


def test_the_metadata_of_a_pushed_member_is_complete(run_dir: Path) -> None:
    data = card_of(run_dir, "small", PUSHED.model_copy(update={"tags": ["shapes"]})).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "zero-shot-image-classification"
    assert data.license == "apache-2.0"
    assert data.language == "en"
    assert data.datasets == ["tester/shapes"]
    assert (data.base_model, data.base_model_relation) == ("tester/scenes-tiny", "finetune")
    assert {"hf_chain", "chain-of-models", "clip", "model-growth", "distillation", "shapes"} == set(data.tags)


def test_metrics_are_results_of_their_task_and_split(run_dir: Path) -> None:
    card = card_of(run_dir, "small", PUSHED)
    results = card.data.eval_results
    assert {(r.task_type, r.dataset_split, r.metric_type, r.metric_name): r.metric_value for r in results} == {
        ("zero-shot-image-classification", "validation", "accuracy", "top-1 accuracy"): 0.31,
        ("zero-shot-image-classification", "test", "accuracy", "top-1 accuracy"): 0.3,
        ("image-text-retrieval", "validation", "recall", "image-to-text R@5"): 0.42,
    }
    assert {r.dataset_type for r in results} == {"tester/shapes"}
    assert card.data.model_name == "scenes-small"


def test_a_local_card_claims_nothing_about_the_hub(run_dir: Path) -> None:
    card = card_of(run_dir, "small", HubSettings(prefix="tester/scenes"))
    keys = set(card.data.to_dict())
    assert not keys & {"license", "base_model", "base_model_relation", "datasets", "language"}
    assert "huggingface.co" not in card.text and "tester/" not in card.text
    assert "tiny → **small**" in card.text


def test_the_first_member_has_no_base_model(run_dir: Path) -> None:
    card = card_of(run_dir, "tiny", PUSHED)
    assert card.data.base_model is None
    assert "trained from scratch on `tester/shapes`" in card.text
    assert "\n**tiny**\n" in card.text
    assert not {"model-growth", "distillation"} & set(card.data.tags)


@pytest.mark.parametrize(
    ("parent", "base_model", "lineage"),
    [
        (
            f"someone/clip@{'a' * 40}",
            "someone/clip",
            f"[someone/clip](https://huggingface.co/someone/clip/tree/{'a' * 40})",
        ),
        ("/home/me/models/clip-base", None, "clip-base"),
    ],
)
def test_a_predecessor_from_outside_the_run(run_dir: Path, parent: str, base_model: str | None, lineage: str) -> None:
    family = read_family(run_dir)
    family.member("tiny").parent = parent
    card = card_of(run_dir, "tiny", PUSHED, family)
    assert card.data.base_model == base_model
    assert f"{lineage} → **tiny**" in card.text
    assert "/home/me" not in str(card)
    chain = f"{lineage} → [tiny](https://huggingface.co/tester/scenes-tiny) → **small**"
    text = card_of(run_dir, "small", PUSHED, family).text
    assert chain in text and f"(the training of `{base_model or 'clip-base'}` not included)" in text


def test_the_body_tells_results_cost_and_training(run_dir: Path) -> None:
    text = card_of(run_dir, "small", PUSHED).text
    assert re.search(r"\| validation: top-1 accuracy +\| +11.0 % \| +31.0 % \|", text)
    assert re.search(r"\| validation: image-to-text R@5 +\| +– \| +42.0 % \|", text)
    assert "with 12.3K parameters: an image tower of width 16 and depth 2 on 16 × 16 images in patches of 8" in text
    assert "600 MACs (student), 200 MACs (teacher), 800 MACs (total), and its evaluation 10 MACs" in text
    assert "Growth changed the outputs by 1.5e-07 (image) and 2e-07 (text)" in text
    assert "- 3 epochs, 300 samples, seed 0" in text
    assert "\n- versions: python 3.11.7, torch 2.13.0\n- hardware: 2 cores\n- processes: 1\n" in text
    assert "arxiv.org/abs/2604.12391" in text


def test_the_cost_is_compared_with_training_alone_as_planned(run_dir: Path) -> None:
    plan = read_family(run_dir).plan
    text = card_of(run_dir, "small", PUSHED).text
    alone = plan["members"][1]["independent_training_macs"]
    assert f"the chain up to this member costs {human(plan['chain_macs'])} MACs" in text
    assert f"training this member alone for 3 epochs would cost {human(alone)} MACs" in text
    assert f"so the chain costs {100 * plan['largest_alone_ratio']:.1f} % of that" in text
    assert f"{plan['family_ratio']:.2f} times as much as the whole chain" in text
    assert "alone for" not in card_of(run_dir, "tiny", PUSHED).text


def test_the_recipe_stands_in_the_card_as_it_was(run_dir: Path) -> None:
    text = card_of(run_dir, "small", PUSHED).text
    recipe = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1]
    assert yaml.safe_load(recipe) == yaml.safe_load((run_dir / "02-small" / "recipe.yaml").read_text())


def test_unknown_things_leave_no_trace(run_dir: Path) -> None:
    family = read_family(run_dir)
    family.recipe, family.plan, family.environment = {}, {}, {}
    member = family.member("small")
    member.metrics_before, member.metrics_after, member.training_macs, member.evaluation_macs = {}, {}, {}, 0
    card = card_of(run_dir, "small", HubSettings(), family)
    assert "## Results" not in card.text and "## Cost" not in card.text
    assert "model-index" not in card.data.to_dict()
    assert not re.search(r"None|nan|\{\{|\{%|\n\n\n", card.text)


def test_a_metric_that_is_not_a_number_is_no_result(run_dir: Path) -> None:
    family = read_family(run_dir)
    family.member("small").metrics_after = {"validation": {"zero_shot_top1": float("nan")}}
    card = card_of(run_dir, "small", PUSHED, family)
    assert "model-index" not in card.data.to_dict()
    assert "nan" not in card.text


def test_a_card_needs_a_saved_member(run_dir: Path, tmp_path: Path) -> None:
    family = read_family(run_dir)
    with pytest.raises(HfChainError, match="No saved member in"):
        write_member_card(tmp_path / "nothing", family, family.member("tiny"), PUSHED, "")


@pytest.mark.slow
def test_the_snippet_of_a_local_card_runs_in_its_folder(run_dir: Path) -> None:
    code = snippet(card_of(run_dir, "small", HubSettings()))
    assert len(code.strip().splitlines()) == 5
    assert "tensor([[" in forked("-c", code, folder=run_dir / "02-small")


@pytest.mark.slow
def test_the_snippet_of_a_pushed_card_loads_the_saved_weights_from_the_hub(
    hub: HubServer, run_dir: Path, tmp_path: Path, patience: RetryPolicy
) -> None:
    push_pending(run_dir, policy=patience)
    card = ModelCard(hub.model("tester/scenes-small").files["README.md"].data.decode())
    check = (
        "import sys; from safetensors.torch import load_file; saved = load_file(sys.argv[1])\n"
        "assert saved and all((model.state_dict()[name] == saved[name]).all() for name in saved)\n"
        "assert 'hf_chain' not in sys.modules"
    )
    command = [sys.executable, "-c", snippet(card) + check, str(run_dir / "02-small" / "model.safetensors")]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert b"tensor([[" in done.stdout
