"""Writing a grafted model as a stock one: what `hf-chain export` does."""

from __future__ import annotations

from pathlib import Path

from hf_chain.errors import HfChainError
from hf_chain.files import check_new_folder
from hf_chain.grafting.export_llava import IMAGE_END, IMAGE_START, export_llava
from hf_chain.stages.graft.grafted import load_grafted

EXPORTS = {"llava": export_llava}
"""Name of a format and the function that writes it."""


def export_folder(model: str, output: Path, form: str = "llava") -> str:
    """Writes a grafted model in a format that needs no hf_chain.

    Args:
        model (`str`): folder or Hub name of a grafted model.
        output (`Path`): new folder.
        form (`str`): one of `EXPORTS`.

    Returns:
        `str`: what came out, in a line.

    Raises:
        HfChainError: for an unknown format, when the format cannot say what the model does, or when the folder cannot
            be made.
    """
    if form not in EXPORTS:
        raise HfChainError(f"format {form!r} is unknown: use {' or '.join(EXPORTS)}")
    check_new_folder(output)
    vlm, processor = load_grafted(model)
    EXPORTS[form](vlm.cpu(), processor, output)
    plain = f"{IMAGE_START}{processor.image_token}{IMAGE_END}"
    return f"{output}: a stock Llava with the same logits; a plain prompt has {plain} where an image stands"
