"""Checkpoints of open_clip and timm as stock folders, and back: what `hf-chain convert` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hf_chain.adapters import check_model_files
from hf_chain.commands.beside import beside
from hf_chain.errors import HfChainError, reason
from hf_chain.files import new_folder
from hf_chain.loaded_weights import check_loaded, read_model
from hf_chain.models.peers import PEERS, from_peer, to_peer

STOCK = "transformers"


def convert_folder(source: str, output: Path, to: str) -> list[str]:
    """Reads a model of one library and writes it as one of another, with what prepares its inputs.

    Args:
        source (`str`): Folder or Hub name.
        output (`Path`): Folder of the result.
        to (`str`): `transformers`, `open_clip` or `timm`.

    Returns:
        `list[str]`: What was written: the kind of model, and of what stands beside it.

    Raises:
        HfChainError: When `source` has no counterpart there, cannot be loaded, or `output` exists.
    """
    if to not in (STOCK, *PEERS):
        raise HfChainError(f"--to {to!r} is unknown: use one of {', '.join((STOCK, *PEERS))}")
    check_model_files(source)
    with new_folder(output) as folder:
        if to == STOCK:
            return _stock(source, folder)
        model = _model(source, PEERS[to].model)
        images, tokenizer = beside(source, "AutoImageProcessor"), None
        if to == "open_clip":
            tokenizer = beside(source, "AutoTokenizer")
        to_peer(model, folder, images, tokenizer, source)
        return [f"{to}'s {type(model).__name__}", *(type(part).__name__ for part in (images, tokenizer) if part)]


def _stock(source: str, folder: Path) -> list[str]:
    from transformers import CLIPProcessor

    model, images = from_peer(source)
    model.save_pretrained(folder)
    tokenizer = beside(source, "AutoTokenizer") if type(model).__name__ == "CLIPModel" else None
    prepares = images if tokenizer is None else CLIPProcessor(image_processor=images, tokenizer=tokenizer)
    prepares.save_pretrained(folder)
    return [type(model).__name__, type(prepares).__name__]


def _model(name: str, kind: str) -> Any:
    import transformers

    stock = getattr(transformers, kind)
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        if config.model_type != stock.config_class.model_type:
            raise HfChainError(f"its model_type is {config.model_type!r}, not {stock.config_class.model_type!r}")
        model, found = read_model(stock, name, config=config, dtype="auto", use_safetensors=True)
    except Exception as error:  # The Hub, JSON and configuration classes raise errors of their own.
        raise HfChainError(
            f"{name} cannot be loaded as a {kind} ({reason(error)}): give the folder or the Hub name of one in"
            " safetensors, and check the network"
        ) from error
    check_loaded(model, found, name)
    return model
