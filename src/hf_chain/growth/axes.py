"""Which axis of which weight is residual, query, key, value, MLP, embedding …: growth reads it as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["embed", "read", "write", "gain", "shift", "bias"]


@dataclass(frozen=True)
class Weight:
    """How one weight touches the residual stream.

    Args:
        role (`str`): `embed` puts the input into the stream, `read` takes the stream as input, `write` adds a block's
            output to the stream, `gain` and `shift` are a norm's scale and offset, `bias` belongs to the units a read
            makes.
        axes (`tuple[str, ...]`): the name of every axis of the tensor, in its order.
    """

    role: Role
    axes: tuple[str, ...]

    @property
    def inner(self) -> str | None:
        """The axis of units between a read and a write, one of `INNER_AXES`, if there is one."""
        return next((axis for axis in self.axes if axis in INNER_AXES), None)


@dataclass(frozen=True)
class Place:
    """One weight of one tower: its full name, its block number (`None` outside the blocks) and its `Weight`."""

    template: str
    block: int | None
    weight: Weight

    @property
    def name(self) -> str:
        """The name in the model's state dict."""
        return self.in_block(self.block)

    def in_block(self, block: int | None) -> str:
        """The name the same weight has in another block."""
        return self.template.format(block=block)


@dataclass(frozen=True)
class Tower:
    """The axis table of one tower.

    Args:
        config (`str`): the name of the tower's part of the model configuration.
        outer (`Mapping[str, Weight]`): weights outside the blocks, by name.
        block (`Mapping[str, Weight]`): weights of a block, by name with `{block}` for its number.
        first_norm (`str`, *optional*): the prefix of a norm that stands before the first block, where there is one.
    """

    config: str
    outer: Mapping[str, Weight]
    block: Mapping[str, Weight]
    first_norm: str | None = None

    def config_of(self, config: Any) -> Any:
        """The tower's part of a model configuration, which transformers types as a dictionary or nothing as well."""
        return getattr(config, self.config)

    def places(self, blocks: int) -> Iterator[Place]:
        """Every weight of the tower when it has `blocks` blocks."""
        for template, weight in self.outer.items():
            yield Place(template, None, weight)
        for number in range(blocks):
            for template, weight in self.block.items():
                yield Place(template, number, weight)


INNER_AXES = frozenset({"query", "key", "value", "context", "mlp", "embedding"})

_BLOCK = {
    "layer_norm1.weight": Weight("gain", ("residual",)),
    "layer_norm1.bias": Weight("shift", ("residual",)),
    "self_attn.q_proj.weight": Weight("read", ("query", "residual")),
    "self_attn.q_proj.bias": Weight("bias", ("query",)),
    "self_attn.k_proj.weight": Weight("read", ("key", "residual")),
    "self_attn.k_proj.bias": Weight("bias", ("key",)),
    "self_attn.v_proj.weight": Weight("read", ("value", "residual")),
    "self_attn.v_proj.bias": Weight("bias", ("value",)),
    "self_attn.out_proj.weight": Weight("write", ("residual", "context")),
    "self_attn.out_proj.bias": Weight("write", ("residual",)),
    "layer_norm2.weight": Weight("gain", ("residual",)),
    "layer_norm2.bias": Weight("shift", ("residual",)),
    "mlp.fc1.weight": Weight("read", ("mlp", "residual")),
    "mlp.fc1.bias": Weight("bias", ("mlp",)),
    "mlp.fc2.weight": Weight("write", ("residual", "mlp")),
    "mlp.fc2.bias": Weight("write", ("residual",)),
}

CLIP_TEXT = Tower(
    config="text_config",
    outer={
        "text_model.embeddings.token_embedding.weight": Weight("embed", ("vocab", "residual")),
        "text_model.embeddings.position_embedding.weight": Weight("embed", ("position", "residual")),
        "text_model.final_layer_norm.weight": Weight("gain", ("residual",)),
        "text_model.final_layer_norm.bias": Weight("shift", ("residual",)),
        "text_projection.weight": Weight("read", ("embedding", "residual")),
    },
    block={f"text_model.encoder.layers.{{block}}.{name}": weight for name, weight in _BLOCK.items()},
)

CLIP_VISION = Tower(
    config="vision_config",
    outer={
        "vision_model.embeddings.class_embedding": Weight("embed", ("residual",)),
        "vision_model.embeddings.patch_embedding.weight": Weight("embed", ("residual", "colour", "row", "column")),
        "vision_model.embeddings.position_embedding.weight": Weight("embed", ("position", "residual")),
        "vision_model.pre_layrnorm.weight": Weight("gain", ("residual",)),
        "vision_model.pre_layrnorm.bias": Weight("shift", ("residual",)),
        "vision_model.post_layernorm.weight": Weight("gain", ("residual",)),
        "vision_model.post_layernorm.bias": Weight("shift", ("residual",)),
        "visual_projection.weight": Weight("read", ("embedding", "residual")),
    },
    block={f"vision_model.encoder.layers.{{block}}.{name}": weight for name, weight in _BLOCK.items()},
    first_norm="vision_model.pre_layrnorm",
)

CLIP = (CLIP_TEXT, CLIP_VISION)
