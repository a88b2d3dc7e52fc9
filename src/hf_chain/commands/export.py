"""Writing a grafted model as a stock one: what `hf-chain export` does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from transformers import LlavaForConditionalGeneration

from hf_chain.errors import HfChainError
from hf_chain.files import check_new_folder
from hf_chain.grafting.export_llava import IMAGE_END, IMAGE_START, export_llava
from hf_chain.methods.graft.card.folder_card import write_export_card
from hf_chain.methods.graft.headline import load_grafted
from hf_chain.runs.environment import describe_environment

EXPORTS: dict[str, Callable[..., object]] = {
    "llava": export_llava,
    "llava-serving": partial(export_llava, serving=True),
}
"""Name of a format and the function that writes it."""


def export_folder(model: str, output: Path, form: str = "llava", command: str = "") -> str:
    """Writes a grafted model in a format that needs no hf_chain.

    Args:
        model (`str`): folder or Hub name of a grafted model.
        output (`Path`): new folder.
        form (`str`): one of `EXPORTS`.
        command (`str`): what was typed, for the card.

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

    def describe(folder: Path, llava: LlavaForConditionalGeneration) -> None:
        write_export_card(
            folder,
            output.name,
            llava.num_parameters(),
            model,
            vlm.config,
            command=command,
            environment=describe_environment(),
            serving=form == "llava-serving",
        )

    EXPORTS[form](vlm.cpu(), processor, output, complete=describe)
    plain = f"{IMAGE_START}{processor.image_token}{IMAGE_END}"
    said = f"{output}: a stock Llava with the same logits; a plain prompt has {plain} where an image stands"
    if form == "llava" and vlm.config.post_layernorm:
        said += "; engines that read one hidden state, such as vLLM, need --format llava-serving"
    return said
