"""A surrogate computes what its target computes with layers skipped, in every family."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from hf_chain.grafting.lineage import SurrogateLineage, read_lineage
from hf_chain.grafting.ranges import LayerRange
from hf_chain.grafting.surrogate import build_surrogate
from support.decoders import DECODERS, LAYERS, logits, logits_without, some_tokens, tiny_decoder
from support.forks import forked

# Breaks the alternation of windows, experts and dense layers in every family that has one.
REPLACED, KEPT, DROPPED = "1-2,4-6", (0, 1, 3, 4, 7), (2, 5, 6)


@dataclass(frozen=True)
class Cut:
    """A target, its surrogate, and the folders both are in."""

    target: PreTrainedModel
    target_folder: Path
    surrogate: PreTrainedModel
    folder: Path


@pytest.fixture(scope="module", params=DECODERS)
def cut(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cut:
    """A target in several shards, and what was cut from it."""
    root = tmp_path_factory.mktemp(request.param)
    target = tiny_decoder(request.param)
    target.save_pretrained(root / "target", max_shard_size="40KB")
    assert len(list((root / "target").glob("model-*.safetensors"))) > 2
    surrogate = build_surrogate(root / "target", REPLACED, output_dir=root / "surrogate")
    return Cut(target, root / "target", surrogate, root / "surrogate")


def test_logits_are_the_targets_with_layers_skipped(cut: Cut) -> None:
    tokens = some_tokens()
    expected = logits_without(cut.target, DROPPED, tokens)
    assert (expected - logits(cut.target, tokens)).abs().max() > 1e-2
    assert (expected - logits_without(cut.target, (2, 5), tokens)).abs().max() > 1e-2
    torch.testing.assert_close(logits(cut.surrogate, tokens), expected, rtol=0, atol=0)


def test_stock_class_loads_the_folder(cut: Cut) -> None:
    loaded, report = AutoModelForCausalLM.from_pretrained(cut.folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert type(loaded) is type(cut.surrogate)
    torch.testing.assert_close(logits(loaded, some_tokens()), logits(cut.surrogate, some_tokens()), rtol=0, atol=0)
    assert loaded.generation_config.to_dict() == cut.surrogate.generation_config.to_dict()
    for model in (loaded, cut.surrogate):
        numbers = [module.layer_idx for module in model.modules() if hasattr(module, "layer_idx")]
        assert sorted(set(numbers)) == list(range(len(KEPT))) == list(range(model.config.num_hidden_layers))
        assert read_lineage(model.config) == SurrogateLineage(
            target=str(cut.target_folder),
            revision=None,
            target_layers=LAYERS,
            replaced=(LayerRange(1, 2), LayerRange(4, 6)),
            kept_layers=KEPT,
            translator_layers=(1, 3),
            translators=1,
        )


def test_weights_are_tied_as_in_the_target(cut: Cut) -> None:
    tied = cut.target.get_output_embeddings().weight is cut.target.get_input_embeddings().weight
    surrogate = cut.surrogate
    assert (surrogate.get_output_embeddings().weight is surrogate.get_input_embeddings().weight) == tied


def test_cached_generation_is_the_uncached(cut: Cut) -> None:
    tokens, steps = some_tokens(), 10
    options = {"max_new_tokens": steps, "min_new_tokens": steps, "do_sample": False, "pad_token_id": 0}
    options |= {"return_dict_in_generate": True, "output_logits": True}
    cached = cut.surrogate.generate(tokens, use_cache=True, **options)
    uncached = cut.surrogate.generate(tokens, use_cache=False, **options)
    assert torch.equal(cached.sequences, uncached.sequences)
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(uncached.logits), rtol=1e-4, atol=1e-5)
    assert len(cached.past_key_values.layers) == len(KEPT)


def test_a_target_in_memory_is_copied(cut: Cut) -> None:
    before = {name: weight.clone() for name, weight in cut.target.state_dict().items()}
    surrogate = build_surrogate(cut.target, LayerRange(1, 4), translators=2)
    assert read_lineage(surrogate.config).kept_layers == (0, 1, 2, 5, 6, 7)
    assert read_lineage(surrogate.config).translator_layers == (1, 2)
    expected = logits_without(cut.target, (3, 4), some_tokens())
    torch.testing.assert_close(logits(surrogate, some_tokens()), expected, rtol=0, atol=0)
    with torch.no_grad():
        for weight in surrogate.parameters():
            weight.zero_()
    for name, weight in cut.target.state_dict().items():
        assert torch.equal(weight, before[name]), name


@pytest.mark.slow
def test_surrogates_generate_without_hf_chain(tmp_path: Path) -> None:
    expected = {}
    for model_type in DECODERS:
        surrogate = build_surrogate(tiny_decoder(model_type), REPLACED, output_dir=tmp_path / model_type)
        tokens = surrogate.generate(some_tokens(), max_new_tokens=6, do_sample=False, pad_token_id=0)
        expected[model_type] = tokens.tolist()
    script = """
import json, sys
sys.modules["hf_chain"] = None  # An import would raise.
import torch
from transformers import AutoModelForCausalLM
prompt, found = torch.tensor(json.loads(sys.argv[1])), {}
for folder in sys.argv[2:]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    found[folder] = model.generate(prompt, max_new_tokens=6, do_sample=False, pad_token_id=0).tolist()
print(json.dumps(found))
"""
    said = forked("-c", script, json.dumps(some_tokens().tolist()), *DECODERS, folder=tmp_path)
    assert json.loads(said.splitlines()[-1]) == expected
