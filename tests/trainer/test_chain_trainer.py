"""What ChainTrainer promises beyond a plain Trainer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPModel, TrainerCallback, TrainingArguments

from hf_chain.cost import clip_macs
from hf_chain.distillation import feature_loss
from hf_chain.errors import HfChainError
from hf_chain.losses import contrastive_loss
from hf_chain.models import ChainCLIPModel
from hf_chain.trainer import ChainConfig, ChainTrainer, GraftConfig
from support.pairs import RandomPairs, tiny_clip, tiny_trainer


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("embedding", [12, 16])
def test_every_parameter_of_the_member_changes_and_none_of_the_teacher(tmp_path: Path, embedding: int) -> None:
    teacher = tiny_clip(seed=1)
    before_teacher = weights(teacher)
    trainer = tiny_trainer(tmp_path, teacher, tiny_clip(width=24, embedding=embedding))
    before = weights(trainer.model)
    trainer.train()
    # Softmax ignores what a key bias adds to all scores: in no CLIP does that parameter take a gradient.
    stuck = [n for n, p in trainer.model.named_parameters() if torch.equal(p, before[n]) and "k_proj.bias" not in n]
    assert stuck == []
    assert all(torch.equal(parameter, before_teacher[name]) for name, parameter in teacher.named_parameters())
    assert ("image_to_teacher.weight" in before) == (embedding != 12)


def test_saved_folders_and_checkpoints_load_as_stock_clip_without_the_maps_to_the_teacher(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2}
    trainer = tiny_trainer(tmp_path, tiny_clip(seed=1), tiny_clip(embedding=16), **settings)
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    for folder in (tmp_path / "final", tmp_path / "checkpoint-2"):
        loaded, info = CLIPModel.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert loaded.logit_scale.shape == ()
    pixels = RandomPairs().pixels[:4]
    expected = trainer.model.eval().get_image_features(pixels).pooler_output
    final = CLIPModel.from_pretrained(tmp_path / "final")
    assert torch.equal(final.get_image_features(pixels).pooler_output, expected)


@pytest.mark.parametrize("embedding", [12, 16])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, embedding: int) -> None:
    settings = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "image_token_keep": 0.5}
    whole = tiny_trainer(tmp_path, tiny_clip(seed=1), tiny_clip(embedding=embedding), **settings)
    whole.train()
    resumed = tiny_trainer(tmp_path, tiny_clip(seed=1), tiny_clip(embedding=embedding), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert losses(resumed) == losses(whole)
    end = weights(whole.model)
    assert all(torch.equal(parameter, end[name]) for name, parameter in resumed.model.named_parameters())
    assert resumed.state.log_history[-2]["macs"] == whole.state.log_history[-2]["macs"]


def test_accumulation_through_features_equals_the_big_batch(tmp_path: Path) -> None:
    teacher, model = tiny_clip(seed=1), tiny_clip(embedding=16)
    settings = {"max_steps": 3, "max_grad_norm": 0.0, "learning_rate": 1e-3, "optim": "sgd"}
    big = tiny_trainer(tmp_path, copy.deepcopy(teacher), copy.deepcopy(model), **settings)
    small = tiny_trainer(tmp_path, copy.deepcopy(teacher), copy.deepcopy(model), micro_batch_size=2, **settings)
    big.train()
    small.train()
    assert losses(small) == pytest.approx(losses(big), rel=1e-5)
    end = weights(big.model)
    for name, parameter in small.model.named_parameters():
        torch.testing.assert_close(parameter, end[name], rtol=1e-4, atol=1e-6)
    assert small.state.log_history[0]["macs"] > big.state.log_history[0]["macs"]


def test_both_passes_of_the_accumulation_drop_the_same_tokens(tmp_path: Path) -> None:
    """The gradient is that of the first pass's loss only if the second pass sees the same tokens."""
    seen: list[torch.Tensor] = []
    trainer = tiny_trainer(tmp_path, micro_batch_size=4, image_token_keep=0.5, unmasked_tail=0.0, max_steps=1)
    hook = trainer.model.vision_model.pre_layrnorm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    trainer.train()
    hook.remove()
    first, second = seen[:2], seen[2:]
    assert all(torch.equal(a.detach(), b.detach()) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])


def test_plain_accumulation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HfChainError, match="gradient_accumulation_steps=2 .* micro_batch_size"):
        ChainConfig(output_dir=str(tmp_path), use_cpu=True, gradient_accumulation_steps=2)


def test_the_logit_scale_never_exceeds_one_hundred(tmp_path: Path) -> None:
    model = tiny_clip()
    model.logit_scale.data.fill_(math.log(99.9))
    trainer = tiny_trainer(tmp_path, model=model, learning_rate=0.5, train_dataset=RandomPairs(8), max_steps=3)
    seen = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(trainer.model.logit_scale.item())

    trainer.add_callback(Watch())
    trainer.model.logit_scale.register_hook(lambda gradient: torch.full_like(gradient, -1.0))
    trainer.train()
    assert seen == pytest.approx([math.log(100)] * 3)


def test_norms_biases_and_logit_scale_have_no_weight_decay(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    decayed = set(trainer.get_decay_parameter_names(trainer.model))
    assert "text_model.encoder.layers.0.mlp.fc1.weight" in decayed
    free = {name for name, _ in trainer.model.named_parameters()} - decayed
    assert "logit_scale" in free
    assert all("norm" in name or "bias" in name or "layrnorm" in name or name == "logit_scale" for name in free)


def test_loss_parts_throughput_and_cost_are_logged(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, tiny_clip(seed=1), feature_loss_weight=100.0)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["loss"] == pytest.approx(entry["contrastive_loss"] + 100.0 * entry["feature_loss"], rel=1e-5)
    assert entry["logit_scale"] == pytest.approx(math.exp(2.6592), rel=1e-3)
    assert entry["macs"] == (3 + 1) * 8 * clip_macs(tiny_clip().config).per_sample(2)
    assert entry["images_per_second"] > 0 and entry["tflops_per_second"] > 0


def test_an_equal_teacher_costs_nothing_at_the_first_step(tmp_path: Path) -> None:
    model = tiny_clip()
    trainer = tiny_trainer(tmp_path, copy.deepcopy(model), model)
    trainer.train()
    assert trainer.state.log_history[0]["feature_loss"] == pytest.approx(0.0, abs=1e-10)
    assert trainer.state.log_history[1]["feature_loss"] > 0


@pytest.mark.parametrize(("schedule", "expected"), [("constant", [1, 1, 0, 0]), ("linear", [1, 0.5, 0, 0])])
def test_the_teacher_rests_once_its_weight_is_zero(tmp_path: Path, schedule: str, expected: list[float]) -> None:
    trainer = tiny_trainer(
        tmp_path,
        tiny_clip(seed=1),
        feature_loss_weight=100.0,
        feature_loss_schedule=schedule,
        feature_loss_until=0.5,
        max_steps=4,
    )
    calls = []
    trainer.teacher.model.visual_projection.register_forward_hook(lambda *_: calls.append(1))
    trainer.train()
    assert len(calls) == 2
    for entry, factor in zip(trainer.state.log_history, expected, strict=False):
        weighted = factor * 100.0 * entry.get("feature_loss", 0.0)
        assert entry["loss"] == pytest.approx(entry["contrastive_loss"] + weighted, rel=1e-5)
    cost = trainer.step_cost(4)
    assert cost.teacher_macs(4) == cost.teacher_macs(2) > 0


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    dataset = RandomPairs()
    dataset.pixels[:] = math.nan
    with pytest.raises(HfChainError, match="The loss is nan at step 1"):
        tiny_trainer(tmp_path, train_dataset=dataset).train()


def test_evaluation_gives_a_loss(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, tiny_clip(seed=1))
    metrics = trainer.evaluate(RandomPairs(8))
    assert metrics["eval_loss"] == pytest.approx(math.log(8), abs=1.0)


def test_bf16_trains(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, tiny_clip(seed=1), bf16=True, max_steps=8, train_dataset=RandomPairs(8))
    trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0]
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())


@pytest.mark.slow
def test_a_compiled_model_has_the_same_losses(tmp_path: Path) -> None:
    # The graphs of a compiled model, without the C++ that torch makes of them: that takes a minute and is torch's own.
    graphs = {"torch_compile": True, "torch_compile_backend": "aot_eager"}
    plain, compiled = (tiny_trainer(tmp_path, max_steps=2, **settings) for settings in ({}, graphs))
    plain.train()
    compiled.train()
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)


def test_token_dropping_shortens_the_sequence_until_the_unmasked_tail(tmp_path: Path) -> None:
    student, teacher = [], []
    trainer = tiny_trainer(tmp_path, tiny_clip(seed=1), image_token_keep=0.5, unmasked_tail=0.25, max_steps=4)
    for model, seen in ((trainer.model, student), (trainer.teacher.model, teacher)):
        model.vision_model.pre_layrnorm.register_forward_pre_hook(lambda _, i, seen=seen: seen.append(i[0].shape[1]))
    trainer.train()
    assert student == teacher == [3, 3, 3, 5]
    assert trainer.state.log_history[0]["macs"] < trainer.state.log_history[3]["macs"] / 4


def test_student_and_teacher_see_the_same_tokens(tmp_path: Path) -> None:
    model = tiny_clip()
    trainer = tiny_trainer(tmp_path, copy.deepcopy(model), model, image_token_keep=0.5, unmasked_tail=0.0)
    trainer.train()
    assert trainer.state.log_history[0]["feature_loss"] == pytest.approx(0.0, abs=1e-10)


def test_the_loss_is_clips_own_for_one_caption() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.nn.functional.normalize(torch.randn(6, 5, generator=generator), dim=-1) for _ in range(2))
    scale = torch.tensor([10.0])
    logits = 10.0 * image @ text.T
    labels = torch.arange(6)
    cross_entropy = torch.nn.functional.cross_entropy
    expected = (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(contrastive_loss(image, text[:, None], scale), expected)


def test_images_of_an_identical_caption_are_positives_that_do_not_compete() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.nn.functional.normalize(torch.randn(3, 5, generator=generator), dim=-1) for _ in range(2))
    text = text[[0, 0, 2]]
    ids, scale = torch.tensor([[7], [7], [9]]), torch.tensor([10.0])
    logits = (10.0 * image @ text.T).exp()

    def of_positives(scores: torch.Tensor) -> torch.Tensor:
        first = sum(-torch.log(scores[i, j] / (scores[i, j] + scores[i, 2])) for i in (0, 1) for j in (0, 1)) / 2
        return (first - torch.log(scores[2, 2] / scores[2].sum())) / 3

    expected = (of_positives(logits) + of_positives(logits.T)) / 2
    torch.testing.assert_close(contrastive_loss(image, text[:, None], scale, ids), expected)
    assert contrastive_loss(image, text[:, None], scale, ids) < contrastive_loss(image, text[:, None], scale)


def test_without_identical_captions_the_switch_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(4, 5, generator=generator), torch.randn(4, 2, 5, generator=generator)
    ids, scale = torch.arange(8).view(4, 2), torch.tensor([3.0])
    torch.testing.assert_close(contrastive_loss(image, text, scale, ids), contrastive_loss(image, text, scale))


def test_a_batch_of_one_caption_has_no_loss_and_a_finite_gradient() -> None:
    image = torch.randn(3, 5, requires_grad=True)
    loss = contrastive_loss(image, torch.randn(3, 1, 5), torch.tensor([10.0]), torch.ones(3, 1, dtype=torch.int64))
    loss.backward()
    assert loss == 0 and torch.equal(image.grad, torch.zeros(3, 5))


def test_the_feature_loss_weighs_the_same_at_every_embedding_size() -> None:
    """α·(2/512)·(1 − cos) a tower, whatever D."""
    for size in (32, 512):
        a = torch.zeros(4, size)
        b = torch.zeros(4, size)
        a[:, 0], b[:, 1] = 1.0, 1.0
        loss = feature_loss(a, a[:, None], b, a[:, None])
        assert loss.item() == pytest.approx(2 / 512)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_model_in_half_precision_is_trained_and_saved_in_float32(
    tmp_path: Path, dtype: torch.dtype, wrapped: bool
) -> None:
    """In half precision itself a step of 1e-6 would move hardly a weight."""
    stored, teacher = tiny_clip().to(dtype), tiny_clip(seed=1).to(dtype)
    model = ChainCLIPModel.from_clip(stored, 12) if wrapped else stored
    trainer = tiny_trainer(tmp_path, teacher, model, learning_rate=1e-6, max_steps=2, feature_loss_weight=1.0)
    reference = tiny_trainer(
        tmp_path,
        copy.deepcopy(teacher).float(),
        tiny_clip().to(dtype).float(),
        learning_rate=1e-6,
        max_steps=2,
        feature_loss_weight=1.0,
    )
    before = weights(trainer.model)
    trainer.train()
    reference.train()
    assert losses(trainer) == losses(reference)
    moved = [name for name, weight in weights(trainer.model).items() if not torch.equal(weight, before[name])]
    assert len(moved) > 0.8 * len(before)
    trainer.save_model(str(tmp_path / "final"))
    saved = CLIPModel.from_pretrained(tmp_path / "final")
    assert saved.dtype == torch.float32 and saved.config.dtype == torch.float32
    end = weights(trainer.model)
    assert all(torch.equal(weight.reshape(end[name].shape), end[name]) for name, weight in saved.named_parameters())


def test_a_batch_or_data_too_small_for_a_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HfChainError, match="^the global batch is 1 image, .*: set per_device_train_batch_size to 2"):
        tiny_trainer(tmp_path, per_device_train_batch_size=1).train()
    with pytest.raises(HfChainError, match="^train_dataset has 5 rows and a batch over all processes 8, so"):
        tiny_trainer(tmp_path, train_dataset=RandomPairs(rows=5)).train()
    kept = tiny_trainer(tmp_path, train_dataset=RandomPairs(rows=5), dataloader_drop_last=False, max_steps=1)
    assert kept.train().global_step == 1


def test_a_model_init_is_refused(tmp_path: Path) -> None:
    args = ChainConfig(str(tmp_path), use_cpu=True)
    for given in ({"model": tiny_clip()}, {}):
        with pytest.raises(HfChainError, match="takes model and args, and no model_init: make the model and give it"):
            ChainTrainer(args=args, model_init=tiny_clip, **given)


def test_arguments_that_it_cannot_use_are_refused(tmp_path: Path) -> None:
    args = ChainConfig(str(tmp_path), use_cpu=True)
    for given, said in (
        (
            {"args": TrainingArguments(str(tmp_path), use_cpu=True)},
            "args of ChainTrainer is a TrainingArguments: give",
        ),
        ({"teacher": "runs/tiny"}, "the teacher is a str: give a CLIPModel or a cache of its features"),
        ({"model": "runs/tiny"}, "the model to train is a str: load it first, and give the model"),
        ({"model": tiny_clip().vision_model}, "the model to train is a CLIPVision[A-Za-z]*: give a CLIPModel"),
        ({"compute_loss_func": max}, "compute_loss_func is given and would do nothing"),
        ({"args": ChainConfig(str(tmp_path), use_cpu=True, fp16=True)}, "fp16 is true, which needs a GPU"),
    ):
        with pytest.raises(HfChainError, match=said):
            ChainTrainer(**{"model": tiny_clip(), "args": args} | given)


@pytest.mark.parametrize("config", [ChainConfig, GraftConfig])
@pytest.mark.parametrize(
    "values",
    [
        {"weight_decay": math.nan},
        {"learning_rate": math.inf},
        {"max_grad_norm": -1.0},
        {"adam_epsilon": 0.0},
        {"adam_beta2": 1.0},
        {"save_steps": 0},
        {"seed": 2**32},
    ],
)
def test_numbers_out_of_their_range_are_refused_without_a_recipe_too(
    config: Callable[..., Any], values: dict[str, float], tmp_path: Path
) -> None:
    name, number = next(iter(values.items()))
    with pytest.raises(HfChainError, match=f"^{name} is {number}; it must be "):
        config(str(tmp_path), use_cpu=True, bf16=False, **values)


TEACHERS = [
    ({"vocab_size": 30, "eos_token_id": 29}, {}, "the teacher has vocab_size=30 and the model 40, .* same tokenizer"),
    ({"max_position_embeddings": 4}, {}, "the teacher has max_position_embeddings=4 and the model 8"),
    ({"eos_token_id": 38}, {}, "the teacher has eos_token_id=38 and the model 39, .* at a wrong token"),
    ({}, {"image_size": 24}, "the teacher has image_size=24 and the model 16: both see the same images"),
]


@pytest.mark.parametrize(("text", "vision", "words"), TEACHERS)
def test_a_teacher_that_cannot_read_what_the_model_reads_is_refused(
    text: dict[str, int], vision: dict[str, int], words: str, tmp_path: Path
) -> None:
    config = copy.deepcopy(tiny_clip().config)
    for part, values in ((config.text_config, text), (config.vision_config, vision)):
        for name, value in values.items():
            setattr(part, name, value)
    with pytest.raises(HfChainError, match=f"^{words}"):
        tiny_trainer(tmp_path, CLIPModel(config))


def test_a_teacher_with_more_words_and_another_context_still_teaches(tmp_path: Path) -> None:
    config = copy.deepcopy(tiny_clip().config)
    config.text_config.vocab_size, config.text_config.max_position_embeddings = 50, 12
    assert tiny_trainer(tmp_path, CLIPModel(config), max_steps=1).train().global_step == 1


def test_evaluation_keeps_its_last_smaller_batch_and_training_drops_it(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, per_device_eval_batch_size=8)
    rows = RandomPairs(rows=13)
    for loader in (trainer.get_eval_dataloader(rows), trainer.get_test_dataloader(rows)):
        assert [len(batch["pixel_values"]) for batch in loader] == [8, 5]
    trainer.train_dataset = rows
    assert [len(batch["pixel_values"]) for batch in trainer.get_train_dataloader()] == [8]
    losses = [trainer.compute_loss(trainer.model.eval(), batch) for batch in trainer.get_eval_dataloader(rows)]
    mean = (8 * losses[0] + 5 * losses[1]) / 13
    assert trainer.evaluate(rows)["eval_loss"] == pytest.approx(mean.item(), rel=1e-5)


def test_settings_that_a_clip_cannot_follow_are_refused(tmp_path: Path) -> None:
    for settings in ({"neftune_noise_alpha": 5.0}, {"fsdp": "full_shard"}, {"label_smoothing_factor": 0.1}):
        with pytest.raises(HfChainError, match=f"^{next(iter(settings))} is "):
            ChainConfig(str(tmp_path), use_cpu=True, **settings)
