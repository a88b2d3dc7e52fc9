"""Cutting a surrogate: a stock model of the target's own class with fewer layers (arXiv 2505.22664)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.integrations import is_deepspeed_zero3_enabled

from hf_chain.errors import HfChainError
from hf_chain.files import whole_folder
from hf_chain.grafting.anatomy import num_layers
from hf_chain.grafting.layer_config import surrogate_config
from hf_chain.grafting.lineage import SurrogateLineage, write_lineage
from hf_chain.grafting.ranges import LayerRange, as_ranges, check_ranges, kept_layers, translator_layers
from hf_chain.grafting.shards import LICENSE_FILES, TOKENIZER_FILES
from hf_chain.grafting.target import CheckpointTarget, Target, open_target
from hf_chain.grafting.weight_names import surrogate_names, target_name

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def build_surrogate(
    target: str | Path | PreTrainedModel,
    replaced: str | LayerRange | Sequence[LayerRange],
    *,
    translators: int = 1,
    output_dir: str | Path | None = None,
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
) -> PreTrainedModel:
    """Cuts a surrogate out of a language model.

    The first `translators` layers of each range stay, with their own weights, and stand in for it; the rest of the
    range is dropped. Everything else is the target's. From a folder or the Hub, only tensors that stay are read, one
    after the other, and only shards that hold some are downloaded.

    Args:
        target (`str`, `Path` or `PreTrainedModel`): folder or Hub name of a checkpoint in safetensors, or a model in
            memory, whose kept weights are copied. Of a composite model, the decoder is taken.
        replaced (`str`, `LayerRange` or `Sequence[LayerRange]`): the ranges of layers to replace, such as `"16-26"`;
            both ends belong to them, the first layer is 0.
        translators (`int`): layers that stand in for each range.
        output_dir (`str` or `Path`, *optional*): new folder for the surrogate, with the target's tokenizer and
            generation configuration. It appears when all of it is written.
        revision (`str`, *optional*): branch, tag or commit of a target on the Hub.
        dtype (`str` or `torch.dtype`, *optional*): type of the weights; the target's by default.

    Returns:
        `PreTrainedModel`: the surrogate on the CPU, in evaluation mode, with its lineage in its configuration.

    Raises:
        HfChainError: when the target is no model that grafting knows or cannot be read, when the ranges do not fit
            it, or when `output_dir` exists.
    """
    if output_dir is not None and Path(output_dir).exists():
        raise HfChainError(f"output_dir={output_dir} exists already: give a folder that does not")
    if is_deepspeed_zero3_enabled():
        raise HfChainError(
            "under ZeRO-3 no process sees whole weights: cut the surrogate before the training arguments"
        )
    found = open_target(target, revision)
    layers = num_layers(found.config)
    ranges = check_ranges(as_ranges(replaced), layers, translators)
    kept = kept_layers(ranges, layers, translators)
    surrogate = _load(found, {layer: place for place, layer in enumerate(kept)}, dtype)
    lineage = SurrogateLineage(
        target=found.name,
        revision=found.revision,
        target_layers=layers,
        replaced=ranges,
        kept_layers=kept,
        translator_layers=translator_layers(ranges, layers, translators),
        translators=translators,
    )
    write_lineage(surrogate.config, lineage)
    surrogate.name_or_path = surrogate.config.name_or_path = str(output_dir or "")
    if output_dir is not None:
        _write(surrogate, found, Path(output_dir))
    return surrogate


def _load(target: Target, places: Mapping[int, int], dtype: str | torch.dtype | None) -> PreTrainedModel:
    config = surrogate_config(target.config, places)
    names = surrogate_names(target.config, places, target.names())
    weights = target.weights(names)
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    try:
        with _one_tensor_at_a_time():
            surrogate, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict={names[name]: weight for name, weight in weights.items()},
                dtype=dtype or target.dtype(),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, HfChainError):
            raise
        reason = " ".join(str(error).split())[:200].rstrip(". ")
        raise HfChainError(f"{target.name} cannot be loaded as {model_class.__name__}: {reason}") from error
    _check_whole(report, target, places)
    if target.generation_config is not None:
        surrogate.generation_config = target.generation_config
    if getattr(surrogate.config, "quantization_config", None) is None:
        # Else save_pretrained reverts what loading did: it would fuse experts that the target's shards hold fused, and
        # quantise what was dequantised for want of a GPU, without saying so in the configuration.
        surrogate._weight_conversions = None
    return surrogate


def _check_whole(report: Mapping[str, Any], target: Target, places: Mapping[int, int]) -> None:
    """Refuses a surrogate with weights that no checkpoint gave: transformers only warns of them."""
    for name, found, expected in report["mismatched_keys"]:
        raise HfChainError(
            f"{target_name(target.config, places, name)} of {target.name} has shape {list(found)}, but its"
            f" configuration says {list(expected)}: the two do not belong together"
        )
    missing = sorted(target_name(target.config, places, name) for name in report["missing_keys"])
    if missing:
        raise HfChainError(f"{target.name} lacks {missing[0]} and {len(missing) - 1} more weights: give a whole model")


@contextmanager
def _one_tensor_at_a_time() -> Iterator[None]:
    # By default transformers reads ahead in threads, which for fused experts means the whole model at once.
    switch = "HF_DEACTIVATE_ASYNC_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before


def _write(surrogate: PreTrainedModel, target: Target, folder: Path) -> None:
    try:
        with whole_folder(folder) as staging:
            surrogate.save_pretrained(staging, max_shard_size="5GB")
            if isinstance(target, CheckpointTarget):
                for pattern in (*TOKENIZER_FILES, *LICENSE_FILES):
                    for path in target.checkpoint.folder.glob(pattern):
                        copy = staging / path.relative_to(target.checkpoint.folder)
                        copy.parent.mkdir(exist_ok=True)
                        shutil.copyfile(path, copy)
    except OSError as error:
        raise HfChainError(f"output_dir={folder} cannot be written ({error.strerror}): choose another") from error
