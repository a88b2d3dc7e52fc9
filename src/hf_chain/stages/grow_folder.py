"""Growing a published model into a folder: what `hf-chain grow` does."""

from __future__ import annotations

import copy
from pathlib import Path

from hf_chain.errors import HfChainError
from hf_chain.files import whole_folder
from hf_chain.growth import OPERATORS, embedding_error
from hf_chain.growth import grow as grow_model
from hf_chain.stages.published import load_clip_with_processor


def grow_folder(
    predecessor: str,
    output: Path,
    sizes: dict[str, tuple[int | None, int | None]],
    embedding: int | None,
    operator: str,
    seed: int,
) -> dict[str, float]:
    """Grows a CLIP model and writes it, with its processor, as a folder that stock classes load.

    Args:
        predecessor (`str`): folder or Hub name.
        output (`Path`): folder of the grown model.
        sizes (`dict`): `vision` and `text` to width and depth, `None` where they stay; heads keep their size and MLPs
            their ratio.
        embedding (`int`, *optional*): size of the shared embedding.
        operator (`str`): growth operator.
        seed (`int`): seed of the new weights.

    Returns:
        `dict[str, float]`: relative error of the `image` and `text` embeddings.

    Raises:
        HfChainError: when the predecessor cannot be loaded or cannot grow to that shape, or `output` exists.
    """
    if operator not in OPERATORS:
        raise HfChainError(f"operator {operator!r} is unknown: use one of {', '.join(OPERATORS)}")
    if output.exists():
        raise HfChainError(f"{output} exists already: give a folder that does not")
    model, processor = load_clip_with_processor(predecessor)
    config = copy.deepcopy(model.config)
    for name, (width, depth) in sizes.items():
        tower = getattr(config, f"{name}_config")
        if width is not None:
            head_size = tower.hidden_size // tower.num_attention_heads
            if width % head_size:
                raise HfChainError(
                    f"{name} width {width} is not a multiple of the head size {head_size}: "
                    f"choose {width - width % head_size + head_size}"
                )
            tower.intermediate_size = tower.intermediate_size * width // tower.hidden_size
            tower.hidden_size, tower.num_attention_heads = width, width // head_size
        tower.num_hidden_layers = depth or tower.num_hidden_layers
        tower.projection_dim = embedding or tower.projection_dim
    config.projection_dim = embedding or config.projection_dim
    grown = grow_model(model, config, operator=operator, seed=seed)
    try:
        with whole_folder(output) as folder:
            grown.save_pretrained(folder)
            processor.save_pretrained(folder)
    except NotADirectoryError as error:
        raise HfChainError(f"{output} cannot be made, {output.parent} is no folder: choose another") from error
    return embedding_error(model, grown)
