"""Habits of transformers' models: loading, saving, running and training, ours beside stock CLIP and Llava."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    set_seed,
)
from transformers.processing_utils import ProcessorMixin

import hf_chain
from hf_chain.models import ChainCLIPModel
from support.habits import CASES, CONFIGS, PROCESSORS, Case, assert_same, loss_of, models, tensors, visible
from support.hub_server import HubServer

LLAVA_POOLS = "Llava reads hidden states, and its tower's last norm is for pooling alone"


def weights_equal(one: Any, other: Any) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_every_public_class_has_its_line_in_the_table() -> None:
    public: dict[int, Any] = {}
    for module in pkgutil.walk_packages(hf_chain.__path__, "hf_chain."):
        if module.ispkg:
            package = importlib.import_module(module.name)
            public |= {id(one): one for one in (getattr(package, name) for name in getattr(package, "__all__", ()))}
    ours = {one for one in public.values() if inspect.isclass(one) and one.__module__.startswith("hf_chain")}
    listed = {case.model_class for case in CASES if not case.control} | set(CONFIGS) | set(PROCESSORS)
    for base in (PreTrainedModel, PreTrainedConfig, ProcessorMixin):
        assert {one for one in ours if issubclass(one, base)} <= listed


# Loading and saving


@models()
def test_a_saved_model_loads_in_evaluation_mode_and_gives_the_same(case: Case, tmp_path: Path) -> None:
    model = case.model()
    with torch.no_grad():
        expected = model(**case.inputs())
        model.train().save_pretrained(tmp_path)
        loaded = case.model_class.from_pretrained(tmp_path)
        assert not any(module.training for module in loaded.modules())
        assert weights_equal(loaded, model)
        assert_same(loaded(**case.inputs()), expected)
    assert loaded.name_or_path == str(tmp_path)


@models()
def test_the_loading_report_is_given_on_demand(case: Case, tmp_path: Path) -> None:
    case.model().save_pretrained(tmp_path)
    model, report = case.model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert type(model) is case.model_class and not model.training
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@models()
def test_a_configuration_can_be_given(case: Case, tmp_path: Path) -> None:
    model = case.model()
    model.save_pretrained(tmp_path)
    config = copy.deepcopy(model.config)
    config.habit = "kept"
    loaded = case.model_class.from_pretrained(tmp_path, config=config)
    assert weights_equal(loaded, model) and loaded.config.habit == "kept"


@models()
def test_fields_of_the_configuration_can_be_given(case: Case, tmp_path: Path) -> None:
    case.model().save_pretrained(tmp_path)
    assert case.model_class.from_pretrained(tmp_path, output_attentions=True).config.output_attentions


@models()
def test_weights_can_come_from_memory(case: Case) -> None:
    model = case.model()
    loaded = case.model_class.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    assert weights_equal(loaded, model) and not loaded.training


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}], ids=str)
@models()
def test_a_device_map_can_be_given(case: Case, device_map: Any, tmp_path: Path) -> None:
    model = case.model()
    model.save_pretrained(tmp_path)
    loaded = case.model_class.from_pretrained(tmp_path, device_map=device_map)
    assert loaded.device.type == "cpu" and weights_equal(loaded, model)


@models()
def test_a_subfolder_can_be_given(case: Case, tmp_path: Path) -> None:
    model = case.model()
    model.save_pretrained(tmp_path / "part")
    assert weights_equal(case.model_class.from_pretrained(tmp_path, subfolder="part"), model)


@models()
def test_weights_are_loaded_as_they_were_saved_or_as_asked(case: Case, tmp_path: Path) -> None:
    case.model().to(torch.bfloat16).save_pretrained(tmp_path)
    for asked, found in (({}, torch.bfloat16), ({"dtype": "auto"}, torch.bfloat16), ({"dtype": torch.float32},) * 2):
        loaded = case.model_class.from_pretrained(tmp_path, **asked)
        wanted = found if isinstance(found, torch.dtype) else torch.float32
        assert {weight.dtype for weight in loaded.parameters()} == {wanted}


@models()
def test_an_attention_can_be_chosen_before_and_after(case: Case, tmp_path: Path) -> None:
    model, batch = case.model(), case.inputs()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = visible(case, model(**batch))
        eager = case.model_class.from_pretrained(tmp_path, attn_implementation="eager")
        assert eager.config._attn_implementation == "eager"
        assert_same(visible(case, eager(**batch)), expected, rtol=1e-4, atol=1e-5)
        model.set_attn_implementation("eager")
        assert_same(model(**batch), eager(**batch))


@models()
def test_variants_stand_beside_each_other(case: Case, tmp_path: Path) -> None:
    model, other = case.model(), case.model()
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(1 if weight.dim() > 1 else 0)
    model.save_pretrained(tmp_path, variant="one")
    other.save_pretrained(tmp_path, variant="two")
    assert (tmp_path / "model.one.safetensors").is_file()
    assert weights_equal(case.model_class.from_pretrained(tmp_path, variant="one"), model)
    assert weights_equal(case.model_class.from_pretrained(tmp_path, variant="two"), other)
    with pytest.raises(OSError, match=r"model\.safetensors"):
        case.model_class.from_pretrained(tmp_path)


@pytest.mark.parametrize("variant", [None, "fp16"])
@models()
def test_weights_are_split_over_files_and_joined_again(case: Case, variant: str | None, tmp_path: Path) -> None:
    model = case.model()
    model.save_pretrained(tmp_path, variant=variant, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model*-of-*.safetensors"))) > 1
    assert weights_equal(case.model_class.from_pretrained(tmp_path, variant=variant), model)
    with torch.no_grad():
        next(weight for weight in model.parameters() if weight.dim() > 1).add_(1)
    model.save_pretrained(tmp_path, variant=variant)
    assert not list(tmp_path.glob("model*-of-*.safetensors"))
    assert weights_equal(case.model_class.from_pretrained(tmp_path, variant=variant), model)


@models()
def test_weights_to_save_can_be_given(case: Case, tmp_path: Path) -> None:
    model, other = case.model(), case.model()
    with torch.no_grad():
        next(weight for weight in other.parameters() if weight.dim() > 1).add_(1)
    model.save_pretrained(tmp_path, state_dict=other.state_dict())
    assert weights_equal(case.model_class.from_pretrained(tmp_path), other)


@models()
def test_another_process_saves_nothing(case: Case, tmp_path: Path) -> None:
    case.model().save_pretrained(tmp_path / "folder", is_main_process=False)
    assert not list(tmp_path.rglob("*.safetensors"))


@models()
def test_a_model_is_pushed_and_loaded_from_the_hub(case: Case, hub: HubServer, tmp_path: Path) -> None:
    model = case.model()
    model.push_to_hub("tester/method", commit_message="First")
    model.save_pretrained(tmp_path / "argument", push_to_hub=True, repo_id="tester/argument", variant="fp16")
    assert weights_equal(case.model_class.from_pretrained("tester/method"), model)
    assert weights_equal(case.model_class.from_pretrained("tester/argument", variant="fp16"), model)
    with torch.no_grad():
        next(weight for weight in model.parameters() if weight.dim() > 1).add_(1)
    model.push_to_hub("tester/method", revision="later")
    assert weights_equal(case.model_class.from_pretrained("tester/method", revision="later"), model)
    assert not weights_equal(case.model_class.from_pretrained("tester/method"), model)


@models(lambda case: "ImageModel" not in case.name)
def test_auto_classes_know_the_folder(case: Case, tmp_path: Path) -> None:
    """What is saved of a `ChainCLIPModel` is a stock CLIP; the half of a model is loaded by name."""
    model = case.model()
    model.save_pretrained(tmp_path)
    expected = {
        "ChainCLIPModel": "CLIPModel",
        "LlavaForConditionalGeneration": "LlavaModel",
        "GraftedVLMForConditionalGeneration": "GraftedVLMModel",
    }
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded).__name__ == expected.get(case.name, case.name)
    assert type(AutoConfig.from_pretrained(tmp_path)) is type(loaded.config)
    if case.generates:
        assert weights_equal(AutoModelForImageTextToText.from_pretrained(tmp_path), model)
        with torch.no_grad():
            assert_same(loaded(**case.inputs()), model.base_model(**case.inputs()))


@models(lambda case: "ImageModel" not in case.name and not case.generates)
def test_auto_classes_build_from_a_configuration(case: Case) -> None:
    assert type(AutoModel.from_config(copy.deepcopy(case.model().config))) is case.model_class


@models()
def test_a_seed_decides_how_a_model_begins(case: Case) -> None:
    built = []
    for _ in range(2):
        set_seed(3)
        built.append(case.model_class(copy.deepcopy(case.model().config)))
    assert weights_equal(*built) and all(weight.isfinite().all() for weight in built[0].parameters())
    assert built[0].training


@models(lambda case: case.model_class is not ChainCLIPModel)
def test_missing_weights_begin_as_new_ones_do(case: Case, tmp_path: Path) -> None:
    """A `ChainCLIPModel` refuses them."""
    model = case.model()
    state = model.state_dict()
    dropped = [name for name in state if name.endswith("fc1.weight")][0]
    model.save_pretrained(tmp_path, state_dict={name: weight for name, weight in state.items() if name != dropped})
    loaded, report = case.model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"] == {dropped}
    weight = loaded.state_dict()[dropped]
    assert weight.isfinite().all() and 0 < weight.std() < 1 and not torch.equal(weight, state[dropped])


@models()
def test_copies_are_equal_and_apart(case: Case) -> None:
    model = case.model()
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert weights_equal(made, model)
        with torch.no_grad():
            assert_same(made(**case.inputs()), model(**case.inputs()))
            next(made.parameters()).add_(1)
        assert not weights_equal(made, model)


# Running


@models()
def test_a_batch_gives_what_its_rows_give(case: Case) -> None:
    model, batch = case.model(), case.inputs()
    with torch.no_grad():
        together = model(**batch)
    if case.reads:
        mask = batch["attention_mask"].bool()
        images = (batch["input_ids"] == model.config.image_token_id).sum(1)
        starts = [0, len(batch["pixel_values"]) * int(images[0]) // int(images.sum())]
        for row in range(2):
            one = {name: value[row : row + 1, mask[row]] for name, value in batch.items() if name != "pixel_values"}
            one["pixel_values"] = batch["pixel_values"][starts[row] : [starts[1], None][row]]
            with torch.no_grad():
                assert_same(model(**one)[0][0], together[0][row][mask[row]], rtol=1e-4, atol=1e-5)
    else:
        for row in range(2):
            one = {name: value[row : row + 1] for name, value in batch.items()}
            with torch.no_grad():
                found = model(**one)
            name = next(name for name in ("image_embeds", "last_hidden_state") if name in found)
            torch.testing.assert_close(found[name][0], together[name][row], rtol=1e-4, atol=1e-5)


@models()
def test_outputs_are_tuples_where_asked(case: Case) -> None:
    model, batch = case.model(), case.inputs()
    with torch.no_grad():
        named = model(**batch)
        plain = model(**batch, return_dict=False)
        assert isinstance(plain, tuple)
        assert_same(plain, named)


@models()
def test_hidden_states_and_attentions_are_given_on_demand(case: Case) -> None:
    model = case.model()
    model.set_attn_implementation("eager")
    batch = case.inputs()
    wanted = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        found = model(**batch, **wanted) if case.reads else model.get_image_features(batch["pixel_values"], **wanted)
    config = model.config.text_config if case.reads else model.config.vision_config
    assert len(found.hidden_states) == config.num_hidden_layers + 1
    assert len(found.attentions) == config.num_hidden_layers
    length = found.hidden_states[0].shape[1]
    assert found.attentions[0].shape[1:] == (config.num_attention_heads, length, length)


@models()
def test_features_of_images_come_in_an_output(case: Case) -> None:
    model, pixels = case.model(), case.inputs()["pixel_values"]
    with torch.no_grad():
        found = model.get_image_features(pixel_values=pixels)
        plain = model.get_image_features(pixels, return_dict=False)
    assert found.last_hidden_state.shape[0] == len(pixels) and len(found.pooler_output) == len(pixels)
    assert isinstance(plain, tuple) and torch.equal(plain[0], found.last_hidden_state)


@models(lambda case: case.reads)
def test_features_of_images_take_the_place_of_their_tokens(case: Case) -> None:
    model, batch = case.model(), case.inputs()
    places = batch["input_ids"] == model.config.image_token_id
    embeds = model.get_input_embeddings()(batch["input_ids"].masked_fill(places, 0))
    with torch.no_grad():
        images = torch.cat(list(model.get_image_features(batch["pixel_values"]).pooler_output))
        embeds = embeds.masked_scatter(places.unsqueeze(-1), images)
        found = model(inputs_embeds=embeds, attention_mask=batch["attention_mask"])
        assert_same(found[0], model(**batch)[0], rtol=1e-5, atol=1e-6)


@models(lambda case: case.reads)
def test_the_parts_are_found_by_name(case: Case) -> None:
    model, batch = case.model(), case.inputs()
    decoder, tower = model.get_decoder(), model.get_encoder(modality="image")
    assert type(decoder).__name__ == "LlamaModel" and type(tower).__name__.startswith("CLIPVision")
    base = model.base_model
    assert base.get_decoder() is decoder and not base.can_generate()
    with torch.no_grad():
        hidden = base(**batch).last_hidden_state
        if case.generates:
            assert_same(model.get_output_embeddings()(hidden), model(**batch).logits)
        else:
            assert base is model
        before = model(**batch)[0]
        other = copy.deepcopy(decoder)
        next(other.parameters()).mul_(2)
        model.set_decoder(other)
        assert model.get_decoder() is other and not torch.equal(model(**batch)[0], before)


@models(lambda case: case.reads)
def test_token_embeddings_can_be_swapped(case: Case) -> None:
    model = case.model()
    table = copy.deepcopy(model.get_input_embeddings())
    with torch.no_grad():
        before = model(**case.inputs())[0]
        table.weight.mul_(2)
        model.set_input_embeddings(table)
        assert model.get_input_embeddings() is table
        assert not torch.equal(model(**case.inputs())[0], before)


@models(lambda case: case.reads)
def test_token_embeddings_can_be_resized(case: Case, tmp_path: Path) -> None:
    model, batch = case.model(), case.inputs()
    size = model.config.text_config.vocab_size
    with torch.no_grad():
        before = model(**batch)[0]
        assert model.resize_token_embeddings(size + 16).weight.shape[0] == size + 16
        after = model(**batch)[0]
        assert_same(after[..., :size] if case.generates else after, before)
        model.save_pretrained(tmp_path)
        loaded = case.model_class.from_pretrained(tmp_path)
        assert loaded.config.text_config.vocab_size == size + 16
        assert_same(loaded(**batch)[0], after)
        model.resize_token_embeddings(size)
        assert_same(model(**batch)[0], before)


@models(lambda case: case.generates)
def test_tied_embeddings_stay_tied(case: Case, tmp_path: Path) -> None:
    config = copy.deepcopy(case.model().config)
    config.text_config.tie_word_embeddings = config.tie_word_embeddings = True
    model = case.model_class(config).eval()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path)
    loaded = case.model_class.from_pretrained(tmp_path)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert weights_equal(loaded, model)
    loaded.resize_token_embeddings(80)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight


@models()
def test_half_precision_runs(case: Case) -> None:
    model = case.model().to(torch.bfloat16)
    with torch.no_grad():
        found = tensors(model(**case.inputs()))
        assert all(tensor.isfinite().all() for tensor in found)
        expected = tensors(case.model()(**case.inputs()))
    assert torch.nn.functional.cosine_similarity(found[0].float().flatten(), expected[0].flatten(), dim=0) > 0.97


@models()
def test_sizes_are_told(case: Case) -> None:
    model = case.model()
    total = sum(weight.numel() for weight in model.parameters())
    assert model.num_parameters() == total and model.dtype == torch.float32
    assert total * 4 <= model.get_memory_footprint() < total * 8


# Training


@models(LlavaForConditionalGeneration=LLAVA_POOLS, LlavaModel=LLAVA_POOLS)
def test_every_weight_gets_a_gradient(case: Case) -> None:
    model = case.model().train()
    loss_of(model, case.inputs()).backward()
    assert not [name for name, weight in model.named_parameters() if weight.grad is None]


@models()
def test_checkpointing_changes_no_gradient(case: Case) -> None:
    plain, saving = case.model().train(), case.model().train()
    saving.gradient_checkpointing_enable()
    saving.enable_input_require_grads()
    assert any(getattr(module, "gradient_checkpointing", False) for module in saving.modules())
    for model in (plain, saving):
        loss_of(model, case.inputs()).backward()
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)
    saving.gradient_checkpointing_disable()
    saving.disable_input_require_grads()
    assert not any(getattr(module, "gradient_checkpointing", False) for module in saving.modules())


@models()
def test_an_adapter_is_added_saved_and_loaded(case: Case, tmp_path: Path) -> None:
    model = get_peft_model(case.model(), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)).eval()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        found = model(**case.inputs())
        assert_same(PeftModel.from_pretrained(case.model(), tmp_path).eval()(**case.inputs()), found)
        with model.disable_adapter():
            assert_same(model(**case.inputs()), case.model()(**case.inputs()))
        merged = model.merge_and_unload()
        assert type(merged) is case.model_class
        assert_same(visible(case, merged(**case.inputs())), visible(case, found), rtol=1e-3, atol=1e-3)


# Graphs


@pytest.mark.slow
@models(
    lambda case: case.generates or "CLIP" in case.name,
    LlavaForConditionalGeneration="transformers 5.24 takes a lock in it",
)
def test_a_forward_compiles_without_graph_breaks(case: Case) -> None:
    torch._dynamo.reset()
    model, batch = case.model(), case.inputs()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert_same(compiled(**batch), model(**batch), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@models(lambda case: case.generates or "CLIP" in case.name)
def test_a_forward_is_exported(case: Case) -> None:
    model, batch = case.model(), case.inputs()
    options = {"use_cache": False} if case.generates else {}
    with torch.no_grad():
        program = torch.export.export(model, (), batch | options, strict=False)
        assert_same(program.module()(**batch, **options), model(**batch, **options), rtol=1e-4, atol=1e-5)
