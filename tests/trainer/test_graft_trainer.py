"""What GraftTrainer promises: named parts learn, the rest does not, and the loss is a mean over response tokens."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel, TrainerCallback

from hf_chain.arguments.checkpointing import CHECKPOINTING
from hf_chain.engine import check_rates_and_saving
from hf_chain.errors import HfChainError
from hf_chain.losses import response_loss, response_targets
from hf_chain.trainer.batch_cost import batch_cost
from hf_chain.trainer.graft_config import GraftConfig
from hf_chain.trainer.graft_trainer import GraftTrainer
from hf_chain.trainer.lora import attach_lora
from hf_chain.trainer.parts import GradientCheck, freeze_all_but, optimizer_groups, resolve_parts
from support.decoders import tiny_decoder as tiny_family
from support.grafts import (
    Chats,
    collate,
    collate_packed,
    collate_weighted,
    losses,
    tiny_decoder,
    tiny_graft_trainer,
    tiny_vlm,
    tiny_vlm_on_a_target,
    weights,
)

STAGES = {
    "translator": ["adapter", "image_tokens", "translator", "encoder.post_layernorm"],
    "encoder": ["adapter", "encoder.last:2"],
    "decoder": ["decoder", "adapter", "encoder.last:2"],
    "lora": ["lora", "adapter"],
    "everything": ["*"],
}
ON_A_TARGET = ("decoder", "everything")
"""Stages that train what a surrogate would lose."""

EXACT = {"max_grad_norm": 0.0, "optim": "sgd", "learning_rate": 0.1}
"""Settings under which a step is proportional to the gradient, for comparisons."""


class Gradients(TrainerCallback):
    """Keeps a copy of the gradients of every optimiser step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor | None]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        self.steps.append({n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()})


def model_of(stage: str) -> PreTrainedModel:
    """The model that one of `STAGES` trains."""
    return tiny_vlm_on_a_target() if stage in ON_A_TARGET else tiny_vlm()


def gradients_of(folder: Path, model: torch.nn.Module, **settings: Any) -> dict[str, torch.Tensor | None]:
    """The gradients of the first step, not clipped."""
    kept = Gradients()
    tiny_graft_trainer(folder, model, max_steps=1, max_grad_norm=0.0, callbacks=[kept], **settings).train()
    return kept.steps[0]


def assert_same_end(one: Any, other: Any, tolerance: float) -> None:
    """Same losses, and the same weights relative to how far they have moved."""
    assert losses(one) == pytest.approx(losses(other), rel=tolerance)
    end = weights(other.model)
    for name, parameter in one.model.named_parameters():
        torch.testing.assert_close(parameter, end[name], rtol=tolerance, atol=tolerance)


# What is trained


@pytest.mark.parametrize("stage", STAGES)
def test_every_trainable_parameter_changes_and_no_frozen_one(tmp_path: Path, stage: str) -> None:
    kept = Gradients()
    trainer = tiny_graft_trainer(tmp_path, model_of(stage), parts=STAGES[stage], max_steps=3, callbacks=[kept])
    before, trained = weights(trainer.model), {name for part in trainer.parts for name in part.parameters}
    trainer.train()
    changed = {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == trained
    # Frozen parts store no gradients.
    assert all({name for name, value in step.items() if value is not None} == trained for step in kept.steps)


def test_the_encoder_gets_through_a_frozen_decoder_the_gradient_it_gets_through_a_trained_one(tmp_path: Path) -> None:
    frozen = gradients_of(tmp_path, tiny_vlm(), parts=["encoder"])
    trained = gradients_of(tmp_path, tiny_vlm_on_a_target(), parts=["encoder", "decoder"])
    for name in (name for name in frozen if name.startswith("vision_tower")):
        torch.testing.assert_close(frozen[name], trained[name])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_frozen_layers_below_the_first_trained_one_record_no_graph(tmp_path: Path, checkpointing: bool) -> None:
    model, recorded = tiny_vlm(), {}

    def note(name: str) -> Any:
        def hook(_: Any, inputs: Any, output: Any) -> None:
            recorded[name] = (output[0] if isinstance(output, tuple) else output).requires_grad

        return hook

    for index, layer in enumerate(model.vision_tower.encoder.layers):
        layer.register_forward_hook(note(f"encoder {index}"))
    settings: dict[str, Any] = {"max_steps": 1, "gradient_checkpointing": checkpointing}
    images, text = Chats(8, {*range(8)}), Chats(8, set())
    tiny_graft_trainer(tmp_path, model, parts=["encoder.last:1"], train_dataset=images, **settings).train()
    assert [recorded[f"encoder {index}"] for index in range(3)] == [False, False, True]
    alone = tiny_decoder()
    for index, layer in enumerate(alone.model.layers):
        layer.register_forward_hook(note(f"decoder {index}"))
    tiny_graft_trainer(tmp_path, alone, parts=["translator"], train_dataset=text, **settings).train()
    assert [recorded[f"decoder {index}"] for index in range(3)] == [False, True, True]


def test_checkpointed_activations_give_the_same_gradients(tmp_path: Path) -> None:
    plain = gradients_of(tmp_path, tiny_vlm(), parts=STAGES["encoder"])
    checkpointed = gradients_of(tmp_path, tiny_vlm(), parts=STAGES["encoder"], gradient_checkpointing=True)
    for name, gradient in plain.items():
        if gradient is not None:
            torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-5, atol=1e-8)


def test_bf16_trains(tmp_path: Path) -> None:
    everything = {"parts": ["*"], "bf16": True, "max_steps": 8, "train_dataset": Chats(4)}
    trainer = tiny_graft_trainer(tmp_path, tiny_vlm_on_a_target(), **everything)
    trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0]
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())


@pytest.mark.parametrize("stage", ["translator", "lora", "everything"])
def test_a_bf16_model_is_trained_in_float32(tmp_path: Path, stage: str) -> None:
    """In bfloat16 itself a step of 1e-5 would not move a weight."""
    model, kept = model_of(stage).to(torch.bfloat16), Gradients()
    settings = {"bf16": True, "learning_rate": 1e-5, "max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    trainer = tiny_graft_trainer(tmp_path, model, parts=STAGES[stage], callbacks=[kept], **settings)
    before = weights(model)
    trainer.train()
    assert all(value is None or value.dtype == torch.float32 for value in kept.steps[0].values())
    checkpoint = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    for name in {name for part in trainer.parts for name in part.parameters if ".lora_" not in name}:
        assert checkpoint[name].dtype == torch.float32 and not torch.equal(checkpoint[name], before[name].float())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(("dtype", "bf16"), [(torch.bfloat16, False), (torch.float16, False), (torch.float16, True)])
def test_half_a_model_that_autocast_does_not_fit_is_float32_while_it_trains(
    tmp_path: Path, dtype: torch.dtype, bf16: bool
) -> None:
    settings = {"learning_rate": 1e-5, "max_steps": 2, "bf16": bf16, "parts": ["encoder", "adapter"]}
    model = tiny_vlm().to(dtype)
    whole = copy.deepcopy(model).float()
    trainer = tiny_graft_trainer(tmp_path, model, **settings)
    frozen = weights(model.language_model)
    trainer.train()
    reference = tiny_graft_trainer(tmp_path, whole, **settings)
    reference.train()
    assert losses(trainer) == losses(reference)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert all(torch.equal(value, frozen[name]) for name, value in weights(model.language_model).items())
    trainer.save_model(str(tmp_path / "final"))
    assert {value.dtype for value in load_file(tmp_path / "final" / "model.safetensors").values()} == {dtype}
    assert f'"dtype": "{str(dtype).removeprefix("torch.")}"' in (tmp_path / "final" / "config.json").read_text()
    expected = reference.evaluate(Chats(4))["eval_loss"]
    assert trainer.evaluate(Chats(4))["eval_loss"] == pytest.approx(expected, rel=0.01)


# Learning rates


def test_every_part_has_its_learning_rate_through_warm_up_and_cosine(tmp_path: Path) -> None:
    parts = {"adapter": 1e-2, "encoder.last:1": 1e-3, "image_tokens": None}
    schedule = {"lr_scheduler_type": "cosine", "warmup_steps": 2, "learning_rate": 5e-4}
    trainer = tiny_graft_trainer(tmp_path, parts=parts, max_steps=6, weight_decay=0.1, **schedule)
    trainer.train()
    for part, peak in (("adapter", 1e-2), ("encoder.last:1", 1e-3), ("image_tokens", 5e-4)):
        rates = [entry[f"learning_rate/{part}"] for entry in trainer.state.log_history if "loss" in entry]
        cosine = [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
        assert rates == pytest.approx([peak * factor for factor in [0, 0.5, *cosine]])
    assert [entry["learning_rate"] for entry in trainer.state.log_history[:-1]] == pytest.approx(
        [entry["learning_rate/adapter"] for entry in trainer.state.log_history[:-1]]
    )


def test_an_optimizer_that_is_handed_in_is_used(tmp_path: Path) -> None:
    """It has groups of its own, so the parts have no rates to log."""
    model = tiny_vlm()
    own = torch.optim.SGD(model.adapter.parameters(), lr=0.1), None
    trainer = tiny_graft_trainer(tmp_path, model, optimizers=own, max_steps=2)
    trainer.train()
    assert losses(trainer)[1] != losses(trainer)[0]
    assert not any("learning_rate/adapter" in entry for entry in trainer.state.log_history)


def test_norms_and_biases_have_no_weight_decay(tmp_path: Path) -> None:
    trainer = tiny_graft_trainer(tmp_path, parts={"encoder.last:1": 1e-3, "adapter": 1e-2}, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    for group in trainer.create_optimizer().param_groups:
        found = [names[id(parameter)] for parameter in group["params"]]
        assert {"adapter" in name for name in found} == {group["lr"] == 1e-2}
        assert {"norm" in name or name.endswith("bias") for name in found} == {group["weight_decay"] == 0.0}
    assert len(trainer.optimizer.param_groups) == 4


def test_the_papers_settings_are_the_defaults(tmp_path: Path) -> None:
    args = GraftConfig(output_dir=str(tmp_path), use_cpu=True, parts=["adapter"])
    assert (args.weight_decay, args.max_grad_norm, args.lr_scheduler_type, args.bf16) == (0.0, 1.0, "cosine", True)
    assert args.get_warmup_steps(1000) == 31


# A part that learns nothing


def test_a_part_that_the_model_does_not_use_fails_the_first_step(tmp_path: Path) -> None:
    model = tiny_vlm()
    model.unused = torch.nn.Linear(2, 2)
    with pytest.raises(HfChainError, match="part unused got no gradient for unused.weight, unused.bias: the model"):
        tiny_graft_trainer(tmp_path, model, parts=["adapter", "unused"]).train()


def test_a_part_with_a_gradient_of_zero_fails_the_first_step(tmp_path: Path) -> None:
    model = tiny_vlm()
    model.adapter[2].weight.data.zero_()
    with pytest.raises(HfChainError, match="part encoder.last:1 got a gradient of zero for vision.* 13 more"):
        tiny_graft_trainer(tmp_path, model, parts=["adapter", "encoder.last:1"], train_dataset=Chats(8)).train()


def test_a_gradient_that_is_infinite_is_not_one_of_zero(tmp_path: Path) -> None:
    """Clipping by its norm would make all others zero, and a part would be blamed for it."""
    model = tiny_vlm()
    model.adapter[2].bias.register_hook(lambda gradient: gradient * math.inf)
    trainer = tiny_graft_trainer(tmp_path, model, parts=["adapter", "encoder.last:1"], max_grad_norm=1.0)
    with pytest.raises(HfChainError, match="The loss is nan at step 2"):
        trainer.train()


def test_image_parts_are_asked_at_the_first_step_with_images(tmp_path: Path) -> None:
    """Text alone teaches them nothing, which is no mistake."""
    ordered = {"per_device_train_batch_size": 2, "train_sampling_strategy": "sequential"}
    model, late = tiny_vlm(), Chats(8, {6, 7})
    trainer = tiny_graft_trainer(tmp_path, model, parts=["adapter"], train_dataset=late, **ordered)
    trainer.train()
    assert trainer.gradient_check is None
    broken = tiny_vlm_on_a_target()
    broken.adapter[2].register_full_backward_hook(lambda module, inputs, outputs: (torch.zeros_like(inputs[0]),))
    trainer = tiny_graft_trainer(tmp_path, broken, parts=["adapter.0", "decoder"], train_dataset=late, **ordered)
    with pytest.raises(HfChainError, match="part adapter.0 got a gradient of zero for adapter.0.weight, adapter.0.bi"):
        trainer.train()
    assert trainer.state.global_step == 3


@pytest.mark.parametrize("reached", [True, False])
def test_an_engine_that_frees_its_gradients_is_asked_all_the_same(tmp_path: Path, reached: bool) -> None:
    trainer = tiny_graft_trainer(tmp_path, parts=["adapter", "encoder.last:1"])
    check = GradientCheck(trainer.parts, [], trainer.engine, frees_gradients=True)
    model, batch = trainer.model, collate([Chats()[row] for row in range(4)])
    if not reached:
        model.vision_tower.register_forward_hook(
            lambda module, inputs, output: output.__class__(last_hidden_state=output.last_hidden_state.detach())
        )
    model(**batch).loss.backward()
    model.zero_grad()
    if reached:
        check.ask()
        assert not check.pending
    else:
        with pytest.raises(HfChainError, match="part encoder.last:1 got no gradient for vision_tower"):
            check.ask()


# The loss


def test_the_loss_is_the_models_own_on_a_single_batch(tmp_path: Path) -> None:
    model, batch = tiny_vlm(), collate([Chats()[row] for row in range(4)])
    expected = copy.deepcopy(model)(**batch).loss.item()
    trainer = tiny_graft_trainer(tmp_path, model, train_dataset=Chats(4), max_steps=1)
    trainer.train()
    assert losses(trainer) == pytest.approx([expected], rel=1e-6)


@pytest.mark.parametrize("order", ["random", "group_by_length"])
@pytest.mark.parametrize("collator", [collate, collate_weighted, collate_packed])
def test_accumulation_equals_the_big_batch(tmp_path: Path, collator: Any, order: str) -> None:
    settings: dict[str, Any] = {"parts": STAGES["encoder"], "data_collator": collator, "max_steps": 3} | EXACT
    settings |= {"train_sampling_strategy": order, "train_dataset": [Chats()[row] for row in range(16)]}
    big = tiny_graft_trainer(tmp_path, tiny_vlm(), per_device_train_batch_size=8, **settings)
    big.train()
    accumulated = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    small = tiny_graft_trainer(tmp_path, tiny_vlm(), **accumulated, **settings)
    small.train()
    # Adam turns rounding of gradients near zero into steps of visible size.
    assert_same_end(small, big, 1e-5)


def test_packed_conversations_equal_padded_ones(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"parts": STAGES["decoder"], "max_steps": 3} | EXACT
    padded = tiny_graft_trainer(tmp_path, tiny_vlm_on_a_target(), **settings)
    packed = tiny_graft_trainer(tmp_path, tiny_vlm_on_a_target(), data_collator=collate_packed, **settings)
    padded.train()
    packed.train()
    assert_same_end(packed, padded, 1e-5)


def test_a_packed_conversation_does_not_predict_the_first_token_of_the_next(tmp_path: Path) -> None:
    """Also where every token is in the loss, as in text for a translator."""

    def in_full(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [sample | {"labels": sample["input_ids"]} for sample in samples]

    settings: dict[str, Any] = {"parts": ["translator"], "train_dataset": Chats(4, set()), "max_steps": 1}
    ends = []
    for collator in (collate, collate_packed):
        trainer = tiny_graft_trainer(
            tmp_path, tiny_decoder(), data_collator=lambda samples, c=collator: c(in_full(samples)), **settings
        )
        trainer.train()
        ends.append(losses(trainer))
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)


def test_packing_is_refused_for_a_model_that_mixes_packed_conversations(tmp_path: Path) -> None:
    class Packing:
        packing = True

        def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
            return collate_packed(samples)

    settings: dict[str, Any] = {"parts": ["decoder"], "train_dataset": Chats(8, set()), "data_collator": Packing()}
    tiny_graft_trainer(tmp_path, tiny_decoder(hf_chain_surrogate=None), **settings)
    with pytest.raises(HfChainError, match="OPTForCausalLM does not keep packed sequences apart"):
        tiny_graft_trainer(tmp_path, tiny_family("opt"), **settings)


def test_weights_count_tokens(tmp_path: Path) -> None:
    """The mean over tokens, each as often as its weight says."""
    model, batch = tiny_vlm(), collate_weighted([Chats()[row] for row in range(4)])
    logits = model(**{name: value for name, value in batch.items() if name != "loss_weights"}).logits[:, :-1]
    per_token = cross_entropy(logits.transpose(1, 2), batch["labels"][:, 1:], reduction="none")
    counted = batch["loss_weights"][:, 1:] * (batch["labels"][:, 1:] != -100)
    expected = ((per_token * counted).sum() / counted.sum()).item()
    trainer = tiny_graft_trainer(tmp_path, model, train_dataset=Chats(4), data_collator=collate_weighted, max_steps=1)
    trainer.train()
    assert losses(trainer) == pytest.approx([expected], rel=1e-6)


def collate_packed_in_full(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A pack in which every token is learnt, but not the first one of a conversation from those before it."""
    return collate_packed([sample | {"labels": sample["input_ids"]} for sample in samples])


@pytest.mark.parametrize("collator", [collate, collate_weighted, collate_packed_in_full])
def test_evaluation_gives_the_loss(tmp_path: Path, collator: Any) -> None:
    model, batch = tiny_vlm(), collator([Chats()[row] for row in range(4)])
    trainer = tiny_graft_trainer(tmp_path, model, data_collator=collator)
    targets, factors = response_targets(batch)
    fed = {name: value for name, value in batch.items() if name not in ("labels", "loss_weights")}
    with torch.no_grad():
        total = response_loss(model.eval()(**fed, use_cache=False).logits, targets, factors)
    expected = (total / factors.sum()).item()
    assert trainer.evaluate(Chats(4))["eval_loss"] == pytest.approx(expected, rel=1e-6)


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    model = tiny_vlm()
    model.language_model.lm_head.register_forward_hook(lambda module, inputs, logits: logits * math.nan)
    with pytest.raises(HfChainError, match="The loss is nan at step 1: lower the learning rate"):
        tiny_graft_trainer(tmp_path, model).train()


# Meters


@pytest.mark.parametrize("images", [set(range(8)), set()])
@pytest.mark.parametrize("stage", STAGES)
def test_the_cost_is_what_the_flop_counter_finds(stage: str, images: set[int]) -> None:
    """Attention's backward costs two forwards where its weights are frozen too, which is counted as one."""
    model = tiny_vlm(text={"hidden_size": 64, "intermediate_size": 128, "vocab_size": 128})
    model.set_attn_implementation("eager")
    if stage == "lora":
        attach_lora(model.language_model, {"r": 4})
    parts = resolve_parts(model, STAGES[stage], 1e-3)
    freeze_all_but(model, parts)
    batch = collate([Chats(8, images)[row] for row in range(8)])
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.disable_input_require_grads()
        with FlopCounterMode(display=False) as counter:
            model.train()(**batch, use_cache=False).loss.backward()
        # Recomputing a layer stops before its last product, whose result nothing needs.
        tolerance = 0.08 if checkpointing else 0.03
        found = counter.get_total_flops() / 2
        assert batch_cost(model, parts, checkpointing)(batch) == pytest.approx(found, rel=tolerance)


def test_throughput_and_cost_are_logged(tmp_path: Path) -> None:
    trainer = tiny_graft_trainer(tmp_path, train_sampling_strategy="sequential")
    trainer.train()
    batches = list(trainer.get_train_dataloader())
    costs = [trainer.cost(batch) for batch in batches]
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["macs"] for entry in logged] == pytest.approx([sum(costs[: n + 1]) for n in range(4)])
    for entry, batch in zip(logged, batches, strict=True):
        per_token = len(batch["pixel_values"]) / batch["attention_mask"].sum().item()
        assert entry["images_per_second"] / entry["tokens_per_second"] == pytest.approx(per_token)
        assert entry["tflops_per_second"] > 0
        assert entry["tokens_per_second"] * entry["seconds"] == pytest.approx(batch["attention_mask"].sum().item())


# Settings

OF_THIS_RELEASE = next(name for name in CHECKPOINTING if name in GraftConfig.__dataclass_fields__)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": {}}, "parts is empty, so nothing would be trained: name parts, such as"),
        ({"parts": {"adapter": 0.0}}, "the learning rate of part adapter is 0.0; it must be above 0"),
        ({"parts": {"adapter": math.inf}}, "the learning rate of part adapter is inf"),
        ({"parts": {"adapter": "fast"}}, "parts is {'adapter': 'fast'}; input should be a valid number"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0; it must be above 0"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor is 0.1 and would do nothing"),
        (
            {f"{OF_THIS_RELEASE}_kwargs": {"use_reentrant": True}},
            "checkpointing_kwargs asks for use_r",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(tmp_path: Path, settings: Any, message: str) -> None:
    with pytest.raises(HfChainError, match=message) as error:
        GraftConfig(output_dir=str(tmp_path), use_cpu=True, **({"parts": ["adapter"]} | settings))
    assert "\n" not in str(error.value)


def test_lora_settings_that_peft_refuses_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(HfChainError, match="lora: .*rank") as error:
        tiny_graft_trainer(tmp_path, parts=["lora"], lora={"rank": 4})
    assert "\n" not in str(error.value)
    with pytest.raises(HfChainError, match="lora: Target modules .*nothing.* not found"):
        attach_lora(tiny_decoder(hf_chain_surrogate=None), {"target_modules": ["nothing"]})


@pytest.mark.parametrize("section", ["optimizer", "scheduler"])
def test_a_deepspeed_configuration_must_not_replace_the_parts_rates(section: str) -> None:
    with pytest.raises(HfChainError, match=f"has a section {section}, which would give all parts one learning rate"):
        check_rates_and_saving({section: {}})
    check_rates_and_saving({"zero_optimization": {}})


def test_zero_3_has_to_save_whole_weights() -> None:
    """Otherwise it fails once all is trained."""
    with pytest.raises(HfChainError, match="ZeRO-3 without stage3_gather_16bit_weights_on_model_save in zero_opt"):
        check_rates_and_saving({"zero_optimization": {"stage": 3}})
    check_rates_and_saving({"zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}})


def test_no_optimizer_group_is_empty(tmp_path: Path) -> None:
    """DeepSpeed fails on one."""
    parts = tiny_graft_trainer(tmp_path, parts=["image_tokens", "encoder.post_layernorm"]).parts
    assert [len(group["params"]) for group in optimizer_groups(parts, {"image_start", "image_end"}, 0.1)] == [2, 2]


def test_data_without_a_step_and_a_model_init_are_refused(tmp_path: Path) -> None:
    args = GraftConfig(str(tmp_path), parts={"adapter": 1e-3}, use_cpu=True, bf16=False, dataloader_drop_last=True)
    trainer = GraftTrainer(tiny_vlm(), args, train_dataset=Chats(5), data_collator=collate)
    with pytest.raises(HfChainError, match="^train_dataset has 5 rows and a batch over all processes 8, so"):
        trainer.train()
    with pytest.raises(HfChainError, match="takes model and args, and no model_init: make the model and give it"):
        GraftTrainer(args=args, model_init=tiny_vlm)
