"""The trajectory is what the definitions say, whatever the batches, the padding and the devices are."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    MambaConfig,
    PreTrainedModel,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from hf_chain.cost.macs import decoder_macs
from hf_chain.errors import HfChainError
from hf_chain.grafting import layer_predictions
from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.grafting.layer_predictions import counted_positions, logit_lens
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.grafting.trajectory import Trajectory, measure_trajectory
from support.decoders import DECODERS, LAYERS, VOCABULARY, tiny_decoder

LENGTHS = (12, 5, 9, 12, 3)


def samples(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 40, (length,), generator=generator) for length in LENGTHS]


def batches(rows: list[torch.Tensor], size: int, side: str = "right", extra: int = 0) -> Iterator[dict]:
    """Batches of `size` rows, padded to their longest row and `extra` tokens more."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        longest = max(map(len, part)) + extra
        ids, mask = torch.zeros(2, len(part), longest, dtype=torch.int64)
        for row, tokens in enumerate(part):
            place = slice(0, len(tokens)) if side == "right" else slice(longest - len(tokens), longest)
            ids[row, place], mask[row, place] = tokens, 1
        yield {"input_ids": ids, "attention_mask": mask}


ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
OTHER_FAMILIES: dict[str, dict] = {
    "bloom": {"n_layer": LAYERS},
    "cohere": {"logit_scale": 0.5},
    "cohere2": {"logit_scale": 0.5},
    "falcon": {"num_hidden_layers": LAYERS},
    "gemma": {"head_dim": 8},
    "glm": {"head_dim": 8, "pad_token_id": 0},
    "gpt_bigcode": {"n_layer": LAYERS},
    "gptj": {"n_layer": LAYERS, "rotary_dim": 4},
    "granite": {"logits_scaling": 4.0},
    "olmo": {},
    "phi": {},
    "qwen2_moe": {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 24, "num_experts": 4},
    "smollm3": {"pad_token_id": 0},
    "stablelm": {},
    "starcoder2": {},
}
"""Families that are not in the table."""


def other_decoder(model_type: str) -> PreTrainedModel:
    """A tiny random model of a family that is not in the table, with a norm that is not the identity."""
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    config = AutoConfig.for_model(model_type, **sizes | OTHER_FAMILIES[model_type])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for weight in model.parameters():
            weight += torch.randn_like(weight) * 0.1
    return model.eval()


def naive(model, rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The definitions, one row at a time, everything in memory."""
    states: list[torch.Tensor] = []
    lens = logit_lens(model)
    lens.layers[0].register_forward_pre_hook(lambda module, args: states.append(args[0]))
    for layer in lens.layers:
        layer.register_forward_hook(lambda m, a, out: states.append(out if torch.is_tensor(out) else out[0]))
    distances, divergences, cosines = [], [], []
    for row in rows:
        states.clear()
        with torch.no_grad():
            model(input_ids=row[None])
            predicted = torch.stack([lens.logits(state)[0, :-1].double().softmax(-1) for state in states])
        chosen = predicted[:, torch.arange(len(row) - 1), row[1:]]
        share = (chosen / chosen.sum(1, keepdim=True)).clamp(min=1e-6)
        distances.append((share[-1] * torch.log(share[-1] / share)).sum(1))
        divergences.append((predicted[-1] * torch.log(predicted[-1] / predicted)).sum(2).mean(1))
        stacked = torch.stack(states)[:, 0, :-1].double()
        cosines.append(1 - cosine_similarity(stacked[:-1], stacked[1:], dim=2))
    return {
        "prediction_distance": torch.stack(distances).quantile(0.5, dim=0),
        "vocabulary_kl": torch.stack(divergences).quantile(0.5, dim=0),
        "block_influence": torch.cat(cosines, 1).mean(1),
    }


def assert_same(one: Trajectory, other: Trajectory, tolerance: float = 1e-6) -> None:
    for name in ("prediction_distance", "vocabulary_kl", "block_influence"):
        expected, actual = (torch.tensor(getattr(t, name), dtype=torch.float64) for t in (one, other))
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, msg=name)
    assert (one.samples, one.tokens) == (other.samples, other.tokens)


@pytest.mark.parametrize("model_type", [*DECODERS, *OTHER_FAMILIES])
def test_trajectory_is_the_definition(model_type: str) -> None:
    model = tiny_decoder(model_type) if model_type in DECODERS else other_decoder(model_type)
    trajectory = measure_trajectory(model, batches(samples(), 1))
    for name, expected in naive(model, samples()).items():
        actual = torch.tensor(getattr(trajectory, name), dtype=torch.float64)
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6, msg=name)
    assert trajectory.prediction_distance[-1] == trajectory.vocabulary_kl[-1] == 0
    assert trajectory.num_layers == LAYERS
    assert trajectory.tokens == sum(LENGTHS) - len(LENGTHS)


def test_other_predictions_than_norm_and_head_are_refused_in_one_line() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = other_decoder("olmo").to(dtype)
        model.config.logit_scale = 1.02  # which OLMo does not read
        with refused("OlmoForCausalLM does more to its last hidden state than norm and head.*name layers to replace"):
            measure_trajectory(model, batches(samples(), 2))
    mamba = AutoModelForCausalLM.from_config(MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2))
    with refused("model_type 'mamba' has no attention heads"):
        measure_trajectory(mamba, batches(samples(), 2))
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"vocab_size": VOCABULARY, "num_key_value_heads": 2, "rope_parameters": ROPE, "pad_token_id": 0}
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 1}
    tokens = {f"{name}_token_id": 3 for name in ("image", "video", "vision_start", "vision_end")}
    qwen = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=sizes, vision_config=vision, **tokens))
    with refused("the cost of a Qwen2VLTextConfig cannot be counted"):
        measure_trajectory(qwen.eval(), batches(samples(), 2))


@pytest.mark.parametrize("device_map", [{"": "disk"}, {"": "cpu"}])
def test_another_family_is_measured_wherever_it_is(device_map: dict, tmp_path: Path) -> None:
    model = other_decoder("olmo")
    model.save_pretrained(tmp_path / "model")
    options = {"device_map": device_map, "offload_folder": tmp_path / "offload"}
    spread = AutoModelForCausalLM.from_pretrained(tmp_path / "model", **options)
    assert all(weight.is_meta for weight in spread.parameters()) == (device_map == {"": "disk"})
    expected = measure_trajectory(model, batches(samples(), 2))
    assert_same(expected, measure_trajectory(spread, batches(samples(), 2, "left", extra=2)), tolerance=1e-5)


def test_texts_are_read_as_they_are_measured() -> None:
    model, events = tiny_decoder("llama"), []
    model.register_forward_pre_hook(lambda module, args: events.append("measured"))

    class Stream:
        def __iter__(self) -> Iterator[dict]:
            for batch in batches(samples(), 1):
                events.append("read")
                yield batch

    measure_trajectory(model, Stream())
    assert events == ["read", "measured"] * len(LENGTHS)


def test_logits_of_two_layers_are_in_memory_and_no_more() -> None:
    model, alive = tiny_decoder("llama"), []

    gc.collect()
    # Of other tests; kept, so that nobody gets their ids.
    others = [value for value in gc.get_objects() if type(value) is torch.Tensor]
    known = set(map(id, others))

    def count(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> None:
        tensors = [value for value in gc.get_objects() if type(value) is torch.Tensor and id(value) not in known]
        alive.append(sum(value.shape == output.shape for value in tensors))

    model.lm_head.register_forward_hook(count)
    measure_trajectory(model, batches(samples(), 5))
    # The last layer's as logarithms and as probabilities, one other layer's, and what has just been computed.
    assert len(alive) == 1 + LAYERS + 1 and max(alive) <= 4


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt", "gemma2", "mixtral"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_and_batch_size_change_nothing(model_type: str, side: str) -> None:
    model = tiny_decoder(model_type)
    alone = measure_trajectory(model, batches(samples(), 1))
    assert_same(alone, measure_trajectory(model, batches(samples(), 3, side, extra=2)), tolerance=1e-5)


def test_logits_are_computed_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_decoder("llama")
    whole = measure_trajectory(model, batches(samples(), 5))
    sizes = []
    model.lm_head.register_forward_hook(lambda module, args, output: sizes.append(output.numel()))
    monkeypatch.setattr(layer_predictions, "LOGITS_AT_A_TIME", 7 * VOCABULARY)
    assert_same(whole, measure_trajectory(model, batches(samples(), 5)))
    assert max(sizes) == 7 * VOCABULARY
    # The forward's own logits of the last positions, and each of the states once.
    assert sum(sizes) == (len(LENGTHS) + (LAYERS + 1) * whole.tokens) * VOCABULARY


@pytest.mark.parametrize("device_map", ["head_apart", "all_offloaded", "auto"])
def test_a_model_spread_over_devices(device_map: str, tmp_path: Path) -> None:
    model = tiny_decoder("llama")
    expected = measure_trajectory(model, batches(samples(), 2))
    model.save_pretrained(tmp_path / "model")
    places = {"model.embed_tokens": "cpu", "model.norm": "disk", "model.rotary_emb": "cpu", "lm_head": "disk"}
    places |= {f"model.layers.{layer}": "disk" if layer % 2 else "cpu" for layer in range(LAYERS)}
    spread = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model",
        device_map={"head_apart": places, "all_offloaded": {"": "disk"}, "auto": "auto"}[device_map],
        max_memory={"cpu": model.get_memory_footprint() // 2} if device_map == "auto" else None,
        offload_folder=tmp_path / "offload",
    )
    assert any(weight.is_meta for weight in spread.parameters())
    assert (device_map == "all_offloaded") == all(weight.is_meta for weight in spread.parameters())
    assert_same(expected, measure_trajectory(spread, batches(samples(), 2)))


def test_only_labelled_tokens_count() -> None:
    model, rows = tiny_decoder("llama"), samples()
    (batch,) = batches(rows, len(rows))
    labels = torch.where(batch["attention_mask"].bool(), batch["input_ids"], -100)
    assert_same(measure_trajectory(model, [batch]), measure_trajectory(model, [batch | {"labels": labels}]))
    labels[:, :4] = -100
    measured = measure_trajectory(model, [batch | {"labels": labels}])
    # The fifth row has no response, and the second one a single token of it.
    assert (measured.samples, measured.skipped_samples, measured.tokens) == (3, 2, 8 + 5 + 8)


def test_the_labelled_tokens_are_the_predicted_ones() -> None:
    batch = {"input_ids": torch.arange(8)[None], "attention_mask": torch.ones(1, 8, dtype=torch.int64)}
    labels = torch.tensor([[-100, -100, 2, 3, -100, -100, 6, 7]])
    (counted,) = counted_positions(batch | {"labels": labels})
    assert counted.nonzero()[:, 0].tolist() == [1, 2, 5, 6]


def test_the_model_is_left_as_it_was() -> None:
    model = tiny_decoder("llama").train()
    decoder_layers(model)[0].eval()
    modes = [module.training for module in model.modules()]
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    measure_trajectory(model, batches(samples(), 2))
    assert [module.training for module in model.modules()] == modes
    assert model.training and all(weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in decoder_layers(model))


@pytest.mark.parametrize("model_type", ["llama", "gpt2", *OTHER_FAMILIES])
def test_the_cost_is_that_of_the_flop_counter(model_type: str) -> None:
    model = tiny_decoder(model_type) if model_type in DECODERS else other_decoder(model_type)
    model.set_attn_implementation("eager")
    if model_type == "qwen2_moe":
        model.set_experts_implementation("eager")
    with FlopCounterMode(display=False) as looking:  # at another family, which does not count
        logit_lens(model)
    with FlopCounterMode(display=False) as counter:
        trajectory = measure_trajectory(model, batches(samples(), 2))
    flops = counter.get_total_flops() - looking.get_total_flops()
    assert trajectory.macs == pytest.approx(flops / 2, rel=0.02)


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gpt2", "opt", "gemma3", "qwen3_moe"])
def test_sizes_are_those_of_the_surrogate(model_type: str) -> None:
    model = tiny_decoder(model_type)
    trajectory = measure_trajectory(model, batches(samples(), 2))
    kept = [0, 1, 2, 5, 6, 7]
    assert trajectory.parameters(kept) == build_surrogate(model, "2-4").num_parameters()
    length = round(sum(LENGTHS) / len(LENGTHS))
    assert trajectory.sample_macs(kept) == decoder_macs(model.config, length, layers=kept)
    assert trajectory.sample_macs() == decoder_macs(model.config, length)


def test_json_keeps_everything() -> None:
    trajectory = measure_trajectory(tiny_decoder("llama"), batches(samples(), 2))
    assert Trajectory.from_json(trajectory.to_json()) == trajectory
    assert trajectory.model == "LlamaForCausalLM"
    lower, upper = trajectory.prediction_distance_quartiles
    for low, middle, high in zip(lower, trajectory.prediction_distance, upper, strict=True):
        assert low <= middle <= high


def refused(message: str) -> AbstractContextManager[object]:
    return pytest.raises(HfChainError, match=f"(?-s:^.*{message}.*$)")


def test_bad_input_is_refused_in_one_line() -> None:
    model = tiny_decoder("llama")
    with refused("none of 0 samples has two predicted tokens.*give longer texts"):
        measure_trajectory(model, [])
    short = torch.ones(3, 2, dtype=torch.int64)
    with refused("none of 3 samples"):
        measure_trajectory(model, [{"input_ids": short, "attention_mask": short}])
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with refused("LlamaForCausalLM are not finite: load it with"):
        measure_trajectory(model, batches(samples(), 2))
    with refused("BertModel has no language-model head: load it with AutoModelForCausalLM"):
        measure_trajectory(BertModel(BertConfig(num_hidden_layers=1, hidden_size=12)), [])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"samples": 3}', "[1"])
def test_other_files_are_no_trajectories(text: str) -> None:
    with refused("this is no trajectory"):
        Trajectory.from_json(text)


def test_a_trajectory_with_a_missing_layer_is_refused() -> None:
    content = json.loads(measure_trajectory(tiny_decoder("llama"), batches(samples(), 2)).to_json())
    content["vocabulary_kl"].pop()
    with refused(f"a trajectory of {LAYERS} layers needs {LAYERS + 1} distances"):
        Trajectory.from_json(json.dumps(content))
