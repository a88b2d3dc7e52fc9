"""Grafting a trained encoder onto its target: what `hf-chain graft` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hf_chain.cost.table import human
from hf_chain.files import check_new_folder, new_folder
from hf_chain.grafting.graft import graft
from hf_chain.methods.graft.card.folder_card import write_grafted_card
from hf_chain.methods.graft.headline import check_checkpoint, load_processor
from hf_chain.runs.environment import describe_environment


def graft_folder(vlm: str, target: str, output: Path, revision: str | None = None, command: str = "") -> str:
    """Plugs the image half of a model onto its target and writes the folder of the result.

    Args:
        vlm (`str`): folder or Hub name of the model that was trained on a surrogate.
        target (`str`): folder or Hub name of the language model that the surrogate was cut from.
        output (`Path`): new folder.
        revision (`str`, *optional*): branch, tag or commit of a target on the Hub.
        command (`str`): what was typed, for the card.

    Returns:
        `str`: what came out, in a line.

    Raises:
        HfChainError: when the two do not fit or cannot be read, or the folder cannot be made.
    """
    check_new_folder(output)
    check_checkpoint(vlm)
    check_checkpoint(target, revision)
    processor = load_processor(vlm)
    origin: dict[str, Any] = {} if revision is None else {"revision": revision}
    model = graft(vlm, target, **origin)
    with new_folder(output) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_grafted_card(
            folder,
            output.name,
            model.num_parameters(),
            vlm,
            target,
            command=command,
            environment=describe_environment(),
        )
    decoder = model.language_model.num_parameters()
    images = model.num_parameters() - decoder
    origin = (model.config.hf_chain_graft or {}).get("surrogate") or {}
    carried = ", ".join(map(str, origin.get("trained_layers", ())))
    layers = f", with layers {carried} as they were trained on its surrogate" if carried else ""
    return f"{output}: {human(images)} parameters of {vlm} on {human(decoder)} of {target}{layers}"
