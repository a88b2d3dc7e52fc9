"""Whether a loaded model is what its files hold: nothing missing, nothing left over, nothing that is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_chain.engine import own_part
from hf_chain.errors import HfChainError
from hf_chain.files import check_as_written


def first_not_finite(folder: Path) -> str | None:
    """The first weight with NaN or infinity in the safetensors files of a folder and of the folders in it.

    One tensor at a time is in memory.

    Args:
        folder (`Path`): a model, a checkpoint or an adapter.

    Returns:
        `str`, *optional*: the tensor's name; `None` where all are finite.

    Raises:
        SafetensorError: when a file is damaged.
    """
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if not is_finite(file.get_tensor(name)):
                    return name
    return None


def first_not_finite_of(tensors: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The name of the first of these tensors with NaN or infinity; of sharded ones this process's part counts."""
    return next((name for name, tensor in tensors if not is_finite(own_part(tensor))), None)


def require_finite(model: nn.Module, name: str) -> None:
    """Refuses a model with weights that are not finite.

    Args:
        model (`nn.Module`): the model; weights that are offloaded to disk are not looked at.
        name (`str`): what the user calls it.

    Raises:
        HfChainError: naming the weight.
    """
    weight = first_not_finite_of(model.state_dict(keep_vars=True).items())
    if weight is not None:
        raise HfChainError(
            f"{weight} of {name} holds NaN or infinity: its training diverged or its file is damaged, give a model "
            "with finite weights"
        )


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity; integers and tensors without data have neither."""
    if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    if not tensor.numel():
        return True
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.element_size() == 1:
        # Torch computes little in eight bits.
        tensor = tensor.float()
    # NaN is the least and the greatest wherever there is one. A sum in float32 would copy what is in half precision.
    least, greatest = torch.aminmax(tensor)
    return math.isfinite(least) and math.isfinite(greatest)


def read_model(model_class: Any, name: str | None, *arguments: Any, **loading: Any) -> tuple[Any, dict[str, Any]]:
    """Calls `from_pretrained`, and leaves it to `check_loaded` to say which weights are wrong.

    Args:
        model_class (`type`): a class of models, or an Auto class.
        name (`str` or `None`): folder or Hub name; `None` where `loading` holds configuration and weights.
        arguments: further arguments of `from_pretrained`.
        loading: the same, by name.

    Returns:
        The model, and the report for `check_loaded`.
    """
    with without_list_of_weights():
        return model_class.from_pretrained(
            name, *arguments, output_loading_info=True, ignore_mismatched_sizes=True, **loading
        )


@contextmanager
def without_list_of_weights() -> Iterator[None]:
    """Keeps transformers from listing every weight that is wrong, as `check_loaded` names one."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


@contextmanager
def names_as_in_memory(model: PreTrainedModel) -> Iterator[None]:
    """Within the block `load_state_dict` of a model takes weights as its files hold them.

    Those of a ViT have other names there, which transformers' `from_pretrained` knows and its Trainer does not.

    Args:
        model (`PreTrainedModel`): the model; classes with a `from_pretrained` of their own write the names in memory.
    """
    if type(model).from_pretrained.__func__ is not PreTrainedModel.from_pretrained.__func__:
        yield
        return

    def convert(module: nn.Module, state: dict[str, torch.Tensor], prefix: str, *_: Any) -> None:
        if state.keys() <= module.state_dict().keys():
            return
        loaded, report = read_model(type(model), None, config=model.config, state_dict=dict(state), dtype=model.dtype)
        found = {name: value for name, value in loaded.state_dict().items() if name not in report["missing_keys"]}
        # What does not fit is for load_state_dict to say.
        found |= {name: state[name] for name in report["unexpected_keys"] if name in state}
        found |= {name: torch.empty(shape, device="meta") for name, shape, _ in report["mismatched_keys"]}
        state.clear()
        state.update(found)

    handle = model.register_load_state_dict_pre_hook(convert)
    try:
        yield
    finally:
        handle.remove()


def check_loaded(
    model: PreTrainedModel,
    report: dict[str, Any],
    name: str,
    called: Callable[[str], str] = str,
    left_out: Callable[[str], bool] = lambda weight: False,
) -> None:
    """Refuses a model that `from_pretrained` has made up weights of, or from whose files it has dropped some.

    Transformers only warns of either. What it knows to be old buffers it does not report.

    Args:
        model (`PreTrainedModel`): the model.
        report (`dict`): what `read_model` gives beside it.
        name (`str`): what the user calls it.
        called (`Callable[[str], str]`): what it calls a weight of the model; the same by default.
        left_out (`Callable[[str], bool]`): whether a weight of the files is left out on purpose.

    Raises:
        HfChainError: naming the first weight that is missing, too many, of another shape or not finite, a way of
            quantisation that transformers has passed over, or a file that is not as its manifest says.
    """
    quantisation = getattr(model.config, "quantization_config", None)
    if quantisation is not None and getattr(model, "hf_quantizer", None) is None:
        raise HfChainError(
            f"{name} is quantised by {quantisation['quant_method']!r}, which transformers does not know: put"
            " quantization_config of its config.json right"
        )
    for weight, found, expected in report["mismatched_keys"]:
        raise HfChainError(
            f"{called(weight)} of {name} has shape {list(found)}, but its configuration says {list(expected)}: the two"
            " do not belong together"
        )
    if missing := report["missing_keys"]:
        raise HfChainError(f"{name} lacks {_listed(map(called, missing))}: give a whole model")
    if unexpected := {weight for weight in report["unexpected_keys"] if not left_out(weight)}:
        raise HfChainError(
            f"{name} holds {_listed(map(called, unexpected))} that its configuration has no place for and that would"
            " be dropped: put its config.json right"
        )
    require_finite(model, name)
    check_as_written(name)


def _listed(weights: Iterable[str]) -> str:
    first, *rest = sorted(weights)
    return f"{first} and {len(rest)} more weights" if rest else first
