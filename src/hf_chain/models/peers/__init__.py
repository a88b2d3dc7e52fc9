"""Checkpoints of other libraries as stock models and back: CLIPs of open_clip and ViTs of timm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from hf_chain.errors import HfChainError, reason
from hf_chain.families import family_of
from hf_chain.files import check_as_written, write_json
from hf_chain.loaded_weights import require_finite
from hf_chain.models.peers.open_clip import OPEN_CLIP
from hf_chain.models.peers.peer import Peer, preprocessing_of, read_json
from hf_chain.models.peers.timm import TIMM

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["PEERS", "from_peer", "to_peer"]

logger = logging.get_logger(__name__)

PEERS = {peer.name: peer for peer in (OPEN_CLIP, TIMM)}
"""Library -> what its checkpoints are."""


def from_peer(name: str | Path) -> tuple[PreTrainedModel, Any]:
    """Reads a checkpoint of open_clip or timm, neither of which has to be installed.

    Args:
        name (`str` or `Path`): Folder or Hub name: `open_clip_config.json` with `open_clip_model.safetensors`, or
            timm's `config.json` with `model.safetensors`.

    Returns:
        A `CLIPModel` or a `ViTForImageClassification` in evaluation mode and in the type of the file, and the image
        processor that does what the checkpoint says.

    Raises:
        HfChainError: When it is neither, when a field has no counterpart in the stock model, or when a weight is
            missing, left over, of another shape or not finite; or when a file is not as its manifest says.
    """
    import transformers

    peer, told = _found(str(name))
    try:
        config = peer.read_config(told, str(name))
        images = peer.preprocessing(told, config).processor()
        with torch.device("meta"):
            shapes = {
                one: weight.shape for one, weight in getattr(transformers, peer.model)(config).named_parameters()
            }
    except HfChainError:
        raise
    except Exception as error:  # A wrong type in a field shows wherever it is first used.
        raise HfChainError(
            f"{peer.config_file} of {name} cannot be read ({reason(error)}): give a whole checkpoint"
        ) from error
    path = _file(str(name), peer.weights_file)
    if path is None:
        raise HfChainError(
            f"{name} holds no {peer.weights_file}, and pickles are not read: save its weights as safetensors"
        )
    try:
        weights = load_file(path)
    except Exception as error:
        raise HfChainError(f"{path} cannot be read ({reason(error)}): give a whole checkpoint") from error
    found = peer.to_stock(weights, shapes, str(name))
    model = getattr(transformers, peer.model)(config)
    model.load_state_dict(found, strict=False, assign=True)
    require_finite(model, str(name))
    check_as_written(name)
    return model.eval(), images


def to_peer(
    model: PreTrainedModel, folder: Path, image_processor: Any = None, tokenizer: Any = None, name: str = "the model"
) -> Peer:
    """Writes a stock model as a checkpoint that open_clip or timm loads.

    Norms have an epsilon of 1e-6 in timm. Where a ViT has another, what is written to its stream is multiplied by
    √(1e-6/ε), which every norm behind it undoes: the outputs stay.

    Args:
        model (`PreTrainedModel`): A `CLIPModel`, for open_clip, or a `ViTForImageClassification`, for timm.
        folder (`Path`): An empty folder that exists.
        image_processor (`BaseImageProcessor`, *optional*): What it does is written into the configuration.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Is written beside a CLIP.
        name (`str`, *optional*): What the user calls the model.

    Returns:
        `Peer`: The kind of checkpoint.

    Raises:
        HfChainError: When a class, a field, a weight or what the processor does has no counterpart.
    """
    kinds = {peer.model: peer for peer in PEERS.values()}
    peer = kinds.get(type(model).__name__)
    if peer is None:
        raise HfChainError(f"{name} is a {type(model).__name__}: only {' and '.join(kinds)} have a peer")
    images = None if image_processor is None else preprocessing_of(image_processor)
    told = peer.write_config(model.config, images, tokenizer is not None, name)
    weights = dict(model.named_parameters())
    if peer.epsilon is not None and model.config.layer_norm_eps != peer.epsilon:
        logger.warning(
            f"norms of {name} have an epsilon of {model.config.layer_norm_eps:g}, those of {peer.name}"
            f" {peer.epsilon:g}: its residual stream is scaled instead, which keeps the outputs"
        )
        weights = _scaled(model, (peer.epsilon / model.config.layer_norm_eps) ** 0.5)
    found = peer.from_stock({one: weight.detach().cpu() for one, weight in weights.items()}, name)
    save_file(found, folder / peer.weights_file, metadata={"format": "pt"})
    write_json(folder / peer.config_file, told)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return peer


def _scaled(model: PreTrainedModel, factor: float) -> dict[str, torch.Tensor]:
    """The weights, with a residual stream that is `factor` times as large in front of every norm."""
    family, found = family_of(model.config), {}
    for name, weight in model.named_parameters():
        slot = family.slot(name)
        written = slot is not None and slot.weight.role in ("embed", "write")
        found[name] = (weight.double() * factor).to(weight.dtype) if written else weight
    return found


def _found(name: str) -> tuple[Peer, dict[str, Any]]:
    """What kind of checkpoint it is, and what its configuration says."""
    for peer in PEERS.values():
        path = _file(name, peer.config_file)
        told = {} if path is None else read_json(path)
        if told and (peer is OPEN_CLIP or "architecture" in told):
            return peer, told
    raise HfChainError(
        f"{name} is no checkpoint of open_clip or timm (no {OPEN_CLIP.config_file}, and no {TIMM.config_file} that"
        " names an architecture): give one, or --to open_clip or timm for a stock model"
    )


def _file(name: str, file: str) -> Path | None:
    """A file of a folder or of a model on the Hub, `None` where it has none of this name."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder / file if (folder / file).is_file() else None
    if name.startswith((".", "/", "~")):
        raise HfChainError(f"There is no folder {name}: give that of a model, or a Hub name")
    try:
        return Path(hf_hub_download(name, file))
    except EntryNotFoundError:
        return None
    except Exception as error:
        raise HfChainError(
            f"{name} cannot be read ({reason(error)}): give a folder or the Hub name of a model, and check the network"
        ) from error
