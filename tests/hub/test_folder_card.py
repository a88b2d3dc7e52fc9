"""Cards of the folders that `hf-chain surrogate`, `hf-chain graft` and `hf-chain export` write."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_chain.commands.export import export_folder
from hf_chain.commands.graft import graft_folder
from hf_chain.commands.surrogate import SurrogateOptions, cut_folder
from hf_chain.cost import human
from hf_chain.data.text import token_batches
from hf_chain.grafting.translator import perplexity
from hf_chain.hub import RetryPolicy, push_member
from support.forks import forked
from support.graft_recipes import write_grafted, write_target
from support.hub_server import HubServer

NAMED = SurrogateOptions("2-4", methods=("inherit",))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target, a model on its surrogate, and text."""
    folder = tmp_path_factory.mktemp("models")
    write_target(folder / "target")
    write_grafted(folder / "trained", folder / "target")
    (folder / "texts.txt").write_text("".join(f"number {n} of the shapes is red or blue\n" for n in range(24)))
    return folder


def card_in(folder: Path) -> ModelCard:
    """The card, in which nothing is left open and no path of this machine stands."""
    card = ModelCard.load(folder / "README.md")
    assert not re.search(r"None|nan\b|\{\{|\{%|\n\n\n|Undefined", card.text) and str(folder.parent) not in str(card)
    return card


def test_a_surrogate_says_what_it_was_cut_from_and_where(models: Path, tmp_path: Path) -> None:
    cut_folder(str(models / "target"), tmp_path / "small", NAMED)
    card = card_in(tmp_path / "small")
    assert card.data.pipeline_tag == "text-generation" and card.data.base_model is None
    assert set(card.data.tags) == {"hf_chain", "graft", "surrogate", "layer-pruning"}
    assert "# small\n" in card.text and "4 of its 6 layers" in card.text and "target → **small**" in card.text
    assert "Replaced: 2–4. Kept: 0, 1, 2, 5." in card.text
    assert "Translator: layer 2 of this model in place of the replaced ones, made by `inherit`" in card.text
    assert "## Results" not in card.text and "## Cost" not in card.text and "- versions: python" in card.text
    assert "hf-chain run" not in card.text and "The recipe" not in card.text


def test_a_translator_that_was_measured_tells_quality_and_cost(models: Path, tmp_path: Path) -> None:
    few = {"data": str(models / "texts.txt"), "samples": 12, "measured": 6, "batch_size": 6}
    cut_folder(str(models / "target"), tmp_path / "small", SurrogateOptions(**few))
    card, report = card_in(tmp_path / "small"), json.loads((tmp_path / "small" / "translator.json").read_text())
    error, perplexity = report["quality"]["splice_error"][0], report["quality"]["perplexity"]
    assert re.search(rf"\| closed_form +\| +{error:.3f} \| +{perplexity:.3f} \|", card.text)
    trajectory = json.loads((tmp_path / "small" / "trajectory.json").read_text())
    made = (
        f"Finding the cut took {human(trajectory['macs'])} MACs, making the translator {human(report['macs'])} MACs."
    )
    assert made in card.text
    (result,) = card.data.eval_results
    assert (result.metric_type, result.dataset_name) == ("perplexity", "texts.txt")
    assert result.metric_value == pytest.approx(perplexity, abs=1e-4) and card.data.model_name == "small"


def test_responses_alone_are_judged_where_that_is_asked_for(models: Path, tmp_path: Path) -> None:
    talk = [
        {"messages": [{"role": "user", "content": f"what is {n}?"}, {"role": "assistant", "content": "red"}]}
        for n in range(24)
    ]
    (tmp_path / "talk.json").write_text(json.dumps(talk))
    options = {"replaced": "2-4", "data": str(tmp_path / "talk.json"), "samples": 12, "measured": 6}
    perplexities = []
    for name, only in (("all", False), ("responses", True)):
        cut_folder(str(models / "target"), tmp_path / name, SurrogateOptions(**options, responses_only=only))
        report = json.loads((tmp_path / name / "translator.json").read_text())
        perplexities.append(report["quality"]["reference"]["target_perplexity"])
    target = AutoModelForCausalLM.from_pretrained(models / "target")
    tokenizer = AutoTokenizer.from_pretrained(models / "target")
    expected = [perplexity(target, token_batches(talk[:6], tokenizer, responses_only=only)) for only in (False, True)]
    assert perplexities == pytest.approx(expected, rel=1e-5) and expected[0] != pytest.approx(expected[1], rel=0.01)


def test_a_graft_names_what_was_trained_and_the_target(models: Path, tmp_path: Path) -> None:
    graft_folder(str(models / "trained"), str(models / "target"), tmp_path / "big")
    card = card_in(tmp_path / "big")
    assert card.data.pipeline_tag == "image-text-to-text" and card.data.base_model is None
    assert set(card.data.tags) == {"hf_chain", "graft", "vision-language"}
    assert "trained → **big**" in card.text and "- Language model: target." in card.text
    assert "layers 0, 1, 2, 5 of the target's 6, 2–4 replaced by a translator (layer 2 of" in card.text
    assert "Encoder and adapter were plugged into the target; nothing was trained." in card.text
    assert "The licences of target and trained hold for it too." in card.text
    assert "This is the stage" not in card.text


def test_an_export_says_what_it_was_written_from(models: Path, tmp_path: Path) -> None:
    graft_folder(str(models / "trained"), str(models / "target"), tmp_path / "big")
    for form in ("llava", "llava-serving"):
        export_folder(str(tmp_path / "big"), tmp_path / form, form, command="hf-chain export big llava")
        card = card_in(tmp_path / form)
        assert f"big → **{form}**" in card.text and "- Language model: target." in card.text
        assert "layers 0, 1, 2, 5 of the target's 6, 2–4 replaced by a translator" in card.text
        assert "hf-chain export big llava\n" in card.text and "A stock Llava with " in card.text
        assert ("for inference in float32 and bfloat16 alone" in card.text) is (form == "llava-serving")
    assert "import hf_chain" not in card.text and card.data.pipeline_tag == "image-text-to-text"


def test_models_of_the_hub_are_named_at_their_commits(
    hub: HubServer, models: Path, tmp_path: Path, patience: RetryPolicy
) -> None:
    names = {"target": "tester/llama", "trained": "tester/trained"}
    for folder, repo_id in names.items():
        push_member(models / folder, repo_id, policy=patience)
    target, trained = (hub.model(repo_id).branches["main"] for repo_id in names.values())
    cut_folder("tester/llama", tmp_path / "small", NAMED)
    card = card_in(tmp_path / "small")
    assert (card.data.base_model, card.data["base_model_relation"]) == ("tester/llama", "finetune")
    link = f"[tester/llama](https://huggingface.co/tester/llama/tree/{target})"
    assert f"{link} at `{target}` → **small**" in card.text
    graft_folder("tester/trained", "tester/llama", tmp_path / "big")
    card = card_in(tmp_path / "big")
    assert (card.data.base_model, card.data["base_model_relation"]) == (["tester/llama", "tester/trained"], "merge")
    assert f"- Language model: {link} at `{target}`." in card.text
    assert f"[tester/trained](https://huggingface.co/tester/trained/tree/{trained}) → **big**" in card.text


def test_a_folder_appears_with_its_card_or_not_at_all(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_chain.hub.card.write_text", full)
    with pytest.raises(KeyboardInterrupt):
        cut_folder(str(models / "target"), tmp_path / "small", NAMED)
    with pytest.raises(KeyboardInterrupt):
        graft_folder(str(models / "trained"), str(models / "target"), tmp_path / "big")
    with pytest.raises(KeyboardInterrupt):
        export_folder(str(models / "trained"), tmp_path / "llava")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("template", [True, False])
def test_the_lines_of_a_surrogates_card_run_in_its_folder(template: bool, tmp_path: Path) -> None:
    cut_folder(str(write_target(tmp_path / "target", template)), tmp_path / "small", NAMED)
    code = re.search(r"```python\n(.*?)```", card_in(tmp_path / "small").text, re.DOTALL)
    assert code is not None and ("apply_chat_template" in code[1]) is template
    forked("-c", code[1] + "import sys; assert 'hf_chain' not in sys.modules", folder=tmp_path / "small")
