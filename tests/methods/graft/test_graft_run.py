"""A whole graft, from nothing to the comparison: every stage, every folder, killed and resumed."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from hf_chain.grafting.export_llava import export_llava
from hf_chain.methods.graft.data import Conversations
from hf_chain.methods.graft.plan import GraftPlan
from hf_chain.methods.graft.planning import plan_graft
from hf_chain.methods.graft.recipe import GraftRecipe, load_graft_recipe
from hf_chain.methods.graft.runner import run_graft
from hf_chain.models.grafted_vlm import GraftedVLMProcessor
from hf_chain.runs.ledger import Ledger, read_family
from hf_chain.trainer.graft_trainer import GraftTrainer
from support.forks import forked
from support.graft_recipes import planned_then_run, tiny_graft_values
from support.grafted_parts import photos
from support.recipes import write_recipe
from support.stops import interrupt

pytestmark = pytest.mark.slow
STAGES = ["target", "surrogate", "encoder", "graft", "decoder", "full"]


def recipe_in(folder: Path) -> GraftRecipe:
    """The tiny recipe, with a checkpoint every other step."""
    values = tiny_graft_values(folder)
    values["training"]["save_steps"] = 2
    return load_graft_recipe(write_recipe(folder / "recipe.yaml", values))


@pytest.fixture(scope="module")
def planned_and_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[GraftPlan, Path]:
    """The plan of the recipe, made before it ran, and the folder of the run."""
    return planned_then_run(tmp_path_factory.mktemp("graft"), recipe_in)


@pytest.fixture
def run_dir(planned_and_run: tuple[GraftPlan, Path]) -> Path:
    """Folder of the finished run."""
    return planned_and_run[1]


def weights(run_dir: Path, stage: str) -> dict[str, torch.Tensor]:
    """The weights in the folder of a stage."""
    return load_file(run_dir / f"{STAGES.index(stage) + 1:02d}-{stage}" / "model.safetensors")


def half(state: dict[str, torch.Tensor], decoder: bool) -> dict[str, torch.Tensor]:
    """Either half of a vision-language model."""
    return {name: value for name, value in state.items() if name.startswith("language_model.") == decoder}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_every_stage_is_in_the_ledger_and_loads(run_dir: Path) -> None:
    family = read_family(run_dir)
    assert [record.name for record in family.members] == STAGES and family.finished
    for record in family.members:
        assert record.status == "saved"
        auto = AutoModelForCausalLM if record.name in STAGES[:2] else AutoModelForImageTextToText
        _, loading = auto.from_pretrained(run_dir / record.folder, output_loading_info=True)
        assert not any(loading.values()), loading
    trained = {record.name for record in family.members if record.trains_decoder}
    assert trained == {"target", "decoder", "full"}
    for name in STAGES[2:]:
        assert 0 <= family.member(name).metrics_after["validation"]["exact_match"] <= 1
    assert not list(run_dir.rglob("*.partial")) and not (run_dir / "checkpoints").exists()


def test_the_graft_is_the_trained_image_half_on_the_whole_target(run_dir: Path) -> None:
    grafted, target = weights(run_dir, "graft"), weights(run_dir, "target")
    assert_equal(half(grafted, decoder=False), half(weights(run_dir, "encoder"), decoder=False))
    decoder = half(grafted, decoder=True)
    assert_equal(decoder, {f"language_model.{name}": value for name, value in target.items()})


def test_a_stage_changes_what_it_trains_and_nothing_else(run_dir: Path) -> None:
    before, after = weights(run_dir, "graft"), weights(run_dir, "decoder")
    for name, value in after.items():
        trained = name.startswith(("adapter.", "language_model."))
        assert torch.equal(value, before[name]) != trained, name


def test_the_plan_is_what_the_run_costs(planned_and_run: tuple[GraftPlan, Path]) -> None:
    plan, run_dir = planned_and_run
    family = read_family(run_dir)
    assert plan.target is not None
    for stage in (plan.target, *plan.stages, *plan.baseline):
        record = family.member(stage.name)
        assert stage.macs == pytest.approx(record.training_macs.get("total", 0), rel=0.03)
        assert stage.parameters == record.parameters
    assert plan.surrogate is not None
    measured = family.member("surrogate").training_macs
    assert plan.surrogate.cut_macs == pytest.approx(measured["cut"], rel=0.2)
    assert plan.surrogate.assumed and plan.comparison is not None


def test_a_share_of_the_data_is_a_random_subset_that_stays_the_same(run_dir: Path) -> None:
    processor = GraftedVLMProcessor.from_pretrained(run_dir / "05-decoder")

    def messages(share: float) -> list[str]:
        conversations = Conversations(recipe_in(run_dir.parents[1]), main_process=False)
        rows = conversations.training_rows(["text"], conversations.collator(processor), share)
        return [json.dumps(row) for row in rows["messages"]]

    everything, some = messages(1.0), messages(0.4)
    assert len(some) == round(0.4 * len(everything)) and set(some) < set(everything)
    assert some == messages(0.4) != everything[: len(some)]


def test_the_page_of_a_finished_run_says_so(run_dir: Path) -> None:
    page = (run_dir / "report" / "index.html").read_text()
    assert "a run in progress" not in page and "finished" in page


def test_a_finished_run_does_nothing_again(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GraftTrainer, "train", lambda *_, **__: pytest.fail("trained again"))
    before = Counter(entry["event"] for entry in Ledger(run_dir).entries())
    folder = run_dir.parents[1]
    assert run_graft(recipe_in(folder)) == run_dir
    after = Counter(entry["event"] for entry in Ledger(run_dir).entries())
    assert after == before


def test_a_stage_that_is_killed_and_resumed_ends_with_the_same_weights(run_dir: Path, tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    shutil.copytree(run_dir.parent, tmp_path / "runs")
    again = tmp_path / "runs" / run_dir.name
    for number, stage in enumerate(STAGES[4:], start=5):
        shutil.rmtree(again / f"{number:02d}-{stage}")
    events = [
        entry
        for entry in Ledger(run_dir).entries()
        if entry.get("member") not in STAGES[4:] and entry["event"] not in ("card_finished", "run_finished")
    ]
    (again / "03-encoder" / "README.md").write_text("the outcome is not known yet")
    # Of a kill right after the stage was saved.
    (again / "checkpoints" / "03-encoder" / "checkpoint-5").mkdir(parents=True)
    (again / "ledger.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, GraftTrainer, step=3)
        run_graft(recipe)
    assert (again / "checkpoints" / "05-decoder" / "checkpoint-2").is_dir()
    assert not (again / "05-decoder").exists()
    assert run_graft(recipe) == again
    assert_equal(weights(again, "decoder"), weights(run_dir, "decoder"))
    assert not (again / "checkpoints").exists()
    # Stages of an earlier attempt learn the outcome too.
    assert "baseline" in (again / "03-encoder" / "README.md").read_text()
    assert all(read_family(again).member(name).card_finished for name in STAGES)


ALONE = """
import json, sys
sys.modules["hf_chain"] = None
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, LlavaForConditionalGeneration
from PIL import Image
surrogate, llava, picture, options = *sys.argv[1:4], json.loads(sys.argv[4])
model, tokenizer = AutoModelForCausalLM.from_pretrained(surrogate), AutoTokenizer.from_pretrained(surrogate)
found = [model.generate(**tokenizer("is it red?", return_tensors="pt"), **options)[0].tolist()]
model, processor = LlavaForConditionalGeneration.from_pretrained(llava), AutoProcessor.from_pretrained(llava)
chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "is it red?"}]}]
prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
inputs = processor(images=Image.open(picture), text=prompt, return_tensors="pt", add_special_tokens=False)
found.append(model.generate(**inputs, **options)[0, inputs["input_ids"].shape[1]:].tolist())
print(json.dumps(found))
"""


def test_surrogate_and_export_generate_the_same_without_hf_chain(run_dir: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    surrogate = AutoModelForCausalLM.from_pretrained(run_dir / "02-surrogate")
    tokenizer = AutoTokenizer.from_pretrained(run_dir / "02-surrogate")
    expected = [surrogate.generate(**tokenizer("is it red?", return_tensors="pt"), **options)[0].tolist()]
    model = AutoModelForImageTextToText.from_pretrained(run_dir / "05-decoder")
    processor = GraftedVLMProcessor.from_pretrained(run_dir / "05-decoder")
    export_llava(model, processor, tmp_path / "llava")
    (picture,) = photos(1)
    picture.save(tmp_path / "photo.png")
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "is it red?"}]}]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = processor(images=picture, text=prompt, return_tensors="pt")
    answer = model.generate(**inputs, **options)
    expected.append(answer[0, inputs["input_ids"].shape[1] :].tolist())
    places = [str(run_dir / "02-surrogate"), str(tmp_path / "llava"), str(tmp_path / "photo.png")]
    assert json.loads(forked("-c", ALONE, *places, json.dumps(options)).splitlines()[-1]) == expected


def test_stages_can_be_trained_on_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets_cache")
    changes = {"pack_tokens": 512, "max_length": 256, "training__per_device_train_batch_size": 1}
    recipe = load_graft_recipe(write_recipe(tmp_path / "recipe.yaml", tiny_graft_values(tmp_path, **changes)))
    recipe = recipe.model_copy(update={"stages": recipe.stages[:1], "baseline": []})
    plan, found = plan_graft(recipe).stages[0], read_family(run_graft(recipe)).member("encoder")
    assert found.samples == plan.samples == 48
    # A row is longer than its conversations, and attention grows with its square.
    assert found.training_macs["total"] == pytest.approx(plan.macs, rel=0.25)
    losses = [
        entry["loss"]
        for entry in json.loads((recipe.run_dir / found.folder / "training_log.json").read_text())
        if "loss" in entry
    ]
    assert 2 <= len(losses) < 48 and losses[-1] < losses[0]
