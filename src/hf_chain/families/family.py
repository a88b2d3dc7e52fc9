"""What a family is: its residual streams, and what every weight is to them, as data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

from hf_chain.errors import HfChainError

Role = Literal[
    "embed",
    "probe",
    "read",
    "raw_read",
    "bias",
    "write",
    "depthwise",
    "gain",
    "shift",
    "post_gain",
    "post_shift",
    "scale",
    "unit_gain",
    "head_gain",
    "keep",
]
Axes = tuple[str, ...]


@dataclass(frozen=True)
class Weight:
    """What one weight is to its residual stream.

    Args:
        role (`str`): `embed` puts the input into the stream, `read` takes the stream as input, behind a norm, and
            `raw_read` without one, `bias` belongs to the units that a read makes, `write` adds to the stream.
            `depthwise` convolves every channel on its own, in front of a norm and a read. `gain` and `shift` are the
            scale and the offset of a norm over the stream, `post_gain` and `post_shift` those of a norm between a
            write and the stream, `scale` a factor of each channel there (layer scale). `probe` is a constant that a
            read takes instead of the stream, `unit_gain` the scale of a norm over all units of an axis, `head_gain`
            over those of each head, and what growth does not touch is `keep`.
        axes (`tuple[str, ...]`): The name of every axis of the tensor, in its order: `residual`, units between a read
            and a write (`query`, `key`, `value`, `context`, `mlp`, `head`, `embedding`), `expert`, `source` for the
            channels of the stream that this one begins with, and what stays.
            Fused parts are joined by `|` where they follow each other, by `/` where they alternate, from head to head
            or from unit to unit.
        scaled_by (`str`, *optional*): The `scale` that a write passes, or the `gain` between a depthwise convolution
            and a read, by its name in the block.
    """

    role: Role
    axes: Axes = ()
    scaled_by: str | None = None


class Slot(NamedTuple):
    """Where a weight stands: its stream, its block (`None` outside of the blocks) and its `Weight`."""

    stream: Stream
    block: int | None
    weight: Weight


@dataclass(frozen=True)
class Stream:
    """One residual stream: what is put in, blocks that read it and add to it, and what reads it at the end.

    Args:
        outer (`Mapping[str, Weight]`): Weights outside of the blocks, by what follows `prefix` in their names.
        block (`Mapping[str, Weight]`): Weights of a block, by what follows its number.
        blocks (`str`, *optional*): What stands between `prefix` and a block's number.
        prefix (`str`, *optional*): Regular expression of what the names of its weights begin with.
        part (`str`, *optional*): Its part of the model configuration; the configuration itself by default.
        norm (`str`, *optional*, defaults to `"layer"`): `layer` norms subtract the mean, `rms` norms do not.
        first_norm (`str`, *optional*): A norm that stands before the first block, by what follows `prefix`.
        last_norm (`str`, *optional*): The norm behind the last block.
        output_is_normed (`bool`): The model's last hidden state has passed that norm.
        class_tokens (`int`): Tokens in front of an image's patches, beside the registers a configuration counts.
        any_size (`bool`): Images of another size than the configuration's are taken.
        spared (`Mapping[str, Any]`): Fields of the configuration that keep what a graft leaves unused unbuilt.
        output_is_stream (`bool`): Its channels are what other models compare, so that lengths have to stay.
        epsilon (`str`, *optional*): Field that holds the epsilon of its norms; `None` where it is fixed.
        gain_offset (`float`): What norms add to their gains: 1 where a gain of 0 changes nothing.
        embedding_power (`float`): The input is multiplied by the width to this power.
        rotary (`bool`): Positions turn queries and keys, so heads keep their size.
        cosine (`bool`): Attention takes cosines of queries and keys, so heads keep their size.
        multiples (`bool`): Only multiples of its width are exact: its norms do not stand on the stream alone.
        stage (`int`): Its number among the stages of a model, which is its place in fields that are lists. All but
            the first begin with the stage before.
        width_times (`int`): Channels for each one of its field of the width.
        width_again (`str`, *optional*): A field that says the width once more.
        period (`int`): Blocks take turns; so many are added at once.
        width, depth, heads, key_value_heads, head_size, mlp (`str`): Names of the fields of its sizes. What is in no
            field is derived: as many key–value heads as heads, heads that fill the width, one where none are counted.
    """

    outer: Mapping[str, Weight]
    block: Mapping[str, Weight]
    blocks: str = "layers."
    prefix: str = ""
    part: str = ""
    norm: Literal["layer", "rms"] = "layer"
    first_norm: str | None = None
    last_norm: str | None = None
    output_is_normed: bool = True
    class_tokens: int = 0
    any_size: bool = False
    spared: Mapping[str, Any] = field(default_factory=dict)
    output_is_stream: bool = False
    epsilon: str | None = "layer_norm_eps"
    gain_offset: float = 0.0
    embedding_power: float = 0.0
    rotary: bool = False
    cosine: bool = False
    multiples: bool = False
    stage: int = 0
    width_times: int = 1
    width_again: str = ""
    period: int = 1
    width: str = "hidden_size"
    depth: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    key_value_heads: str = "num_key_value_heads"
    head_size: str = ""
    mlp: str = "intermediate_size"

    def config_of(self, config: Any) -> Any:
        """The stream's part of a model configuration."""
        return getattr(config, self.part) if self.part else config

    def width_of(self, config: Any) -> int:
        """Channels D of the stream."""
        return int(self.size_of(config, self.width)) * self.width_times

    def depth_of(self, config: Any) -> int:
        """Blocks of the stream; 0 where it has none."""
        return int(self.size_of(config, self.depth)) if self.block else 0

    def heads_of(self, config: Any) -> Heads:
        """Attention heads of its blocks."""
        part = self.config_of(config)
        heads = int(self.size_of(config, self.heads)) if self.heads else 1
        size = getattr(part, self.head_size, None) or self.width_of(config) // heads
        return Heads(heads, int(getattr(part, self.key_value_heads, None) or heads), int(size))

    def field_of(self, config: Any, name: str) -> str:
        """The same in words of a user, with the stage's place in a list."""
        listed = isinstance(getattr(self.config_of(config), name, None), (list, tuple))
        return f"{self.field(name)}[{self.stage}]" if listed else self.field(name)

    def size_of(self, config: Any, name: str) -> Any:
        """One of its sizes, `None` where the configuration has no such field; of a list, that of its stage."""
        value = getattr(self.config_of(config), name, None)
        return value[self.stage] if isinstance(value, (list, tuple)) else value

    def resize(self, config: Any, name: str, value: Any) -> None:
        """Set one of its sizes; in a list, that of its stage."""
        part = self.config_of(config)
        now = getattr(part, name)
        if isinstance(now, (list, tuple)):
            value = [*now[: self.stage], value, *now[self.stage + 1 :]]
        setattr(part, name, value)

    def prefix_tokens(self, config: Any) -> int:
        """Tokens in front of the patches of an image: class tokens and registers."""
        return self.class_tokens + int(getattr(self.config_of(config), "num_register_tokens", 0))

    def field(self, name: str) -> str:
        """The name of one of its fields in the whole configuration."""
        return f"{self.part}.{name}" if self.part else name

    def slot(self, name: str) -> Slot | None:
        """Where a weight of the model stands, `None` where it is not the stream's.

        Args:
            name (`str`): Its name in the model's state dict.
        """
        match = self._pattern.match(name)
        if match is None:
            return None
        number, rest = match.groups()
        weight = self.outer.get(rest) if number is None else self.block.get(rest)
        return None if weight is None else Slot(self, None if number is None else int(number), weight)

    def block_of(self, name: str) -> int | None:
        """The block of a weight, whether it is described or not; `None` outside of the blocks.

        Args:
            name (`str`): Its name in the model's state dict.
        """
        match = self._pattern.match(name)
        return None if match is None or match[1] is None else int(match[1])

    def is_of(self, module: str | None, name: str) -> bool:
        """Whether a weight is that of a module outside of the blocks.

        Args:
            module (`str`, *optional*): The module, by what follows `prefix`; `None` has no weights.
            name (`str`): The weight's name in the model's state dict.
        """
        match = self._pattern.match(name)
        return module is not None and match is not None and match[1] is None and match[2].startswith(f"{module}.")

    def in_block(self, name: str, block: int | None) -> str:
        """The name that the same weight has in another block.

        Args:
            name (`str`): Its name in the model's state dict.
            block (`int`, *optional*): The other block; a weight outside of the blocks keeps its name.
        """
        match = self._pattern.match(name)
        if match is None or match[1] is None:
            return name
        return f"{name[: match.start(1)]}{block}{name[match.end(1) :]}"

    def beside(self, name: str, other: str) -> str:
        """The name of another weight of the same block.

        Args:
            name (`str`): A weight of the block, by its name in the model's state dict.
            other (`str`): What follows the block's number in the name of the other.
        """
        match = self._pattern.match(name)
        return other if match is None else f"{name[: match.start(2)]}{other}"

    @property
    def silenced(self) -> frozenset[str]:
        """The roles that keep a block from adding anything when they are zero."""
        roles = {weight.role for weight in self.block.values()}
        return frozenset(roles & {"post_gain", "post_shift", "scale"} or {"write"})

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(rf"(?:{self.prefix})(?:(?:{re.escape(self.blocks)})(\d+)\.)?(.+)")


class Heads(NamedTuple):
    """Attention heads, those of keys and values, and channels of a head."""

    number: int
    key_value: int
    size: int


@dataclass(frozen=True)
class Family:
    """One architecture.

    Args:
        streams (`tuple[Stream, ...]`): Its residual streams.
        stages (`Callable`, *optional*): What makes them of the number of stages, where models differ in it.
        kind (`str`): `dual` encoders give image and text embeddings, an `encoder` features or classes, `language`
            models logits.
        embedding (`str`, *optional*): Field of the size that image and text are projected to; of a dual encoder
            without one, embeddings are a stream.
        reads_padding (`bool`): A text is read at its last place, padding or not, and without a mask.
        linked (`tuple[tuple[str, str], ...]`): Pairs of fields that have to be equal.
        outside (`str`, *optional*): Regular expression of weights that belong to no stream; growth keeps them.
        per_layer (`tuple[str, ...]`): Fields that list something for every block.
        project_out (`str`, *optional*): A projection between last norm and head, which some models have.
        pooled (`str`, *optional*): What an encoder's `pooler_output` is: `norm` its last norm's output, `stream` its
            last stream itself, `units` its `pooled` units, of which there are as many as channels.
        fixed (`str`, *optional*): A part of the model configuration whose tower stays as it is.
        cut_only (`str`, *optional*): Why its models can be cut and not grown.
        no_tower (`str`, *optional*): Why its image stream cannot be the vision tower of a graft.
        refused (`tuple[tuple[str, Any, str], ...]`): Field, value and reason of members that growth cannot describe.
    """

    streams: tuple[Stream, ...]
    kind: Literal["dual", "encoder", "language"]
    stages: Callable[[int], tuple[Stream, ...]] | None = None
    embedding: str | None = None
    reads_padding: bool = False
    linked: tuple[tuple[str, str], ...] = ()
    outside: str = r"logit_(?:scale|bias)"
    per_layer: tuple[str, ...] = ("layer_types",)
    project_out: str | None = None
    pooled: Literal["norm", "stream", "units"] | None = None
    fixed: str | None = None
    cut_only: str | None = None
    no_tower: str | None = None
    refused: tuple[tuple[str, Any, str], ...] = field(default=())

    def of(self, config: Any) -> Family:
        """The family with the streams of one model."""
        return replace(self, streams=self.stages(len(config.depths))) if self.stages else self

    def embedding_size(self, config: Any) -> int:
        """Size of the embeddings of a dual encoder."""
        if self.embedding is not None:
            return int(value_of(config, self.embedding))
        return next(stream.width_of(config) for stream in self.streams if stream.output_is_stream)

    @property
    def image(self) -> Stream | None:
        """The stream that patches of an image enter, `None` where there is none, or one after the other."""
        streams = [stream for stream in self.streams if stream.block]
        entered = [s for s in streams if any("colour" in weight.axes for weight in s.outer.values())]
        beside = [stream for stream in streams if entered and stream.part == entered[0].part]
        return entered[0] if len(beside) == 1 else None

    def slot(self, name: str) -> Slot | None:
        """Where a weight stands; `None` for one that belongs to no stream.

        Args:
            name (`str`): Its name in the model's state dict.

        Raises:
            HfChainError: When the family does not know it.
        """
        for slot in self.slots(name):
            return slot
        if re.fullmatch(self.outside, name):
            return None
        raise HfChainError(f"weight {name} is not known to its family: only stock models can grow")

    def slots(self, name: str) -> Iterator[Slot]:
        """Where a weight stands, at most one for a well described family."""
        return (slot for stream in self.streams if (slot := stream.slot(name)) is not None)


@dataclass(frozen=True)
class Composite:
    """A model that holds a decoder beside other towers.

    Args:
        decoder (`str`): The module that holds the decoder's embeddings, layers and last norm.
        prefixes (`tuple[tuple[str, str], ...]`): Beginnings of the decoder's names in checkpoints, and what the
            decoder on its own calls them.
    """

    decoder: str
    prefixes: tuple[tuple[str, str], ...]


def value_of(config: Any, path: str) -> Any:
    """A field of a configuration, `None` where it has none.

    Args:
        config (`PreTrainedConfig`): The configuration.
        path (`str`): The field, behind its part and a dot where it is not in the configuration itself.
    """
    for name in path.split("."):
        config = getattr(config, name, None)
    return config
