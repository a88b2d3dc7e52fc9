"""Models that accelerate keeps on disk in part: what only has to be read works, what has to be written is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from hf_chain.errors import HfChainError
from hf_chain.grafting.graft import graft
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.grafting.translator import TranslatorConfig, closed_form, fit_translator, perplexity, splice_error
from hf_chain.models import from_parts
from support.decoders import tiny_decoder
from support.grafted_parts import image_processor, tiny_tokenizer, tiny_tower
from support.translators import changed_weights, some_text, weights_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("target")
    tiny_decoder("llama").save_pretrained(path)
    return path


def offloaded(folder: Path, scratch: Path, *layers: int) -> PreTrainedModel:
    """The model with these layers on disk; all of it where none is named."""
    places: dict[str, str] = {"": "disk"}
    if layers:
        places = dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"), "cpu")
        places |= {f"model.layers.{layer}": "disk" if layer in layers else "cpu" for layer in range(8)}
    return AutoModelForCausalLM.from_pretrained(folder, device_map=places, offload_folder=scratch)


@pytest.mark.parametrize("layers", [(), (1, 4, 6)])
def test_what_is_measured_and_fitted_on_is_the_whole_models(
    layers: tuple[int, ...], folder: Path, tmp_path: Path
) -> None:
    spread, target, text = offloaded(folder, tmp_path, *layers), tiny_decoder("llama"), some_text()
    assert any(weight.is_meta for weight in spread.parameters())
    assert perplexity(spread, text) == pytest.approx(perplexity(target, text), rel=1e-5)
    one, two = (build_surrogate(model, "1-4") for model in (spread, target))
    assert read_lineage(one.config).target == str(folder)
    assert not changed_weights(one, weights_of(two))
    assert splice_error(one, spread, text) == pytest.approx(splice_error(two, target, text), rel=1e-5)
    errors = [closed_form(one, spread, text)[0].error_after, closed_form(two, target, text)[0].error_after]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)


def test_a_criterion_measures_an_offloaded_target_and_cuts_its_checkpoint(folder: Path, tmp_path: Path) -> None:
    spread = offloaded(folder, tmp_path, 6, 7)
    cut = build_surrogate(spread, "two_segment", text=some_text())
    assert read_lineage(cut.config) == read_lineage(build_surrogate(folder, "two_segment", text=some_text()).config)
    with torch.no_grad():
        spread.model.layers[0].input_layernorm.weight += 1
    with pytest.raises(
        HfChainError, match="layers.0.input_layernorm.weight of this offloaded LlamaForCausalLM is not"
    ):
        build_surrogate(spread, "1-4")


def test_what_would_have_to_be_written_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    target, spread = tiny_decoder("llama"), offloaded(folder, tmp_path / "target", 1)
    build_surrogate(target, "1-4").save_pretrained(tmp_path / "surrogate")
    places = dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"), "cpu")
    for disk in (1, 2):
        surrogate = AutoModelForCausalLM.from_pretrained(
            tmp_path / "surrogate",
            device_map=places | {f"model.layers.{layer}": "disk" if layer == disk else "cpu" for layer in range(5)},
            offload_folder=tmp_path / f"offload-{disk}",
        )
        args = TranslatorConfig(output_dir=str(tmp_path / "training"), use_cpu=True, disable_tqdm=True)
        message = "the surrogate's translator is offloaded" if disk == 1 else "weights of the surrogate are offloaded"
        for method in ("closed_form", "inherit", "train") if disk == 1 else ("train",):
            expected = "weights of the surrogate are offloaded" if method == "train" else message
            with pytest.raises(HfChainError, match=expected):
                fit_translator(surrogate, target, some_text(), method, args=args)
    with pytest.raises(HfChainError, match="layer 1 of the target is offloaded, and cannot be copied"):
        fit_translator(build_surrogate(target, "1-4"), spread, [], "inherit")
    trained, _ = from_parts(tiny_tower(), build_surrogate(target, "1-4"), tiny_tokenizer(), image_processor())
    with pytest.raises(HfChainError, match="the token embeddings of .* are offloaded, and images go where they are"):
        graft(trained, offloaded(folder, tmp_path / "all"), tokenizer=tiny_tokenizer())
