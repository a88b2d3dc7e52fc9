"""`VisionTextDualEncoder`: the streams of any two towers, and projections that read what each of them pools."""

from __future__ import annotations

from dataclasses import replace

from hf_chain.families.family import Family, Role, Stream, Weight

VISION_TEXT = "vision-text-dual-encoder"
"""Its `model_type`."""

TOWERS = {"vision_config": ("vision_model", "visual_projection"), "text_config": ("text_model", "text_projection")}
"""Part of the configuration -> module of the tower, and its projection."""

NORMS_ON_THE_STREAM = Family(streams=(), kind="encoder", pooled="units")
"""BERT and its like: no block of theirs can start as identity, so they stay, and the image tower grows beside them."""


def dual_encoder(vision: Family, text: Family) -> Family:
    """The family of a dual encoder.

    Args:
        vision (`Family`): That of the image tower, an encoder with a `pooler_output`.
        text (`Family`): That of the text tower, likewise, or `NORMS_ON_THE_STREAM`.

    Returns:
        `Family`: The streams of both, under the names that they have in the whole model.
    """
    towers = dict(zip(TOWERS, (vision, text), strict=True))
    return Family(
        streams=tuple(stream for part, tower in towers.items() for stream in _streams(tower, part)),
        kind="dual",
        embedding="projection_dim",
        linked=tuple(
            (f"{part}.{name}", f"{part}.{other}") for part, tower in towers.items() for name, other in tower.linked
        ),
        outside=rf"logit_scale|{TOWERS['text_config'][0]}\..*" if text is NORMS_ON_THE_STREAM else "logit_scale",
        fixed="text_config" if text is NORMS_ON_THE_STREAM else None,
        refused=tuple((f"{part}.{name}", *why) for part, tower in towers.items() for name, *why in tower.refused),
    )


def _streams(tower: Family, part: str) -> list[Stream]:
    module, projection = TOWERS[part]
    streams = [replace(stream, part=part, prefix=rf"{module}\.(?:{stream.prefix})") for stream in tower.streams]
    role: Role = "raw_read" if tower.pooled == "stream" else "read"
    projected = {f"{projection}.weight": Weight(role, ("embedding", "residual"))}
    if tower.pooled in ("norm", "stream"):
        last = streams[-1]
        streams[-1] = replace(last, prefix=rf"{last.prefix}|(?={projection})", outer={**last.outer, **projected})
    else:
        # New pooled units are zero: a stream without blocks, and without a mean.
        pooled = Stream(part=part, prefix=f"(?={projection})", outer=projected, block={}, norm="rms")
        streams.append(pooled if tower.streams else replace(pooled, epsilon=None))
    return streams
