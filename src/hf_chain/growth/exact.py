"""`exact`, `stack` and `interpolate`: the width grows so that the function stays, the depth by three rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch.nn import functional

from hf_chain.families import Family, Slot, Stream, Weight, value_of
from hf_chain.growth.depth import DepthRule, inserted, interpolated, origins, stacked
from hf_chain.growth.fused import Layout
from hf_chain.growth.growth import Growth
from hf_chain.growth.pad import Centred, Isometric, MeanFilled, Padded, PaddedBehindNorm
from hf_chain.growth.units import UnitRule, expert_units, head_units, plain_units
from hf_chain.growth.width import Tiled, WidthRule, normal, root_mean_square, times


def longer(weight: torch.Tensor, axis: int, size: int, kind: str) -> torch.Tensor:
    """A weight with more rows along one of its axes.

    Args:
        weight (`torch.Tensor`): An embedding.
        axis (`int`): Number of the axis.
        size (`int`): Rows of the successor.
        kind (`str`): New words of a `vocab` start as the mean of the old ones, a longer `position` axis goes on with
            its last row, and a `grid` of patches, behind its class tokens, is interpolated (bicubic).
    """
    old = weight.shape[axis]
    if size == old:
        return weight
    rows = weight.movedim(axis, 0)
    if kind == "grid":
        return _resized(rows.flatten(1), size).view(size, *rows.shape[1:]).movedim(0, axis)
    new = rows.mean(0) if kind == "vocab" else rows[-1]
    return torch.cat([rows, new.expand(size - old, *new.shape)]).movedim(0, axis)


def _resized(rows: torch.Tensor, size: int) -> torch.Tensor:
    """Positions `[class tokens + side², D]` on a grid of another side."""
    side, new_side = math.isqrt(len(rows)), math.isqrt(size)
    classes = len(rows) - side**2
    grid = rows[classes:].view(1, side, side, -1).permute(0, 3, 1, 2)
    finer = functional.interpolate(grid, size=(new_side, new_side), mode="bicubic", align_corners=False)
    return torch.cat([rows[:classes], finer.permute(0, 2, 3, 1).reshape(new_side**2, -1)])


# Relative size of the random part of the reads of the second and later new blocks in one gap. Equal blocks in a row
# get almost equal gradients and would learn the same; what they read does not matter while they write nothing.
BLOCK_NOISE = 0.5

# Relative size of new queries and keys where a norm over all heads would see them.
FAINT_HEAD = 1e-6


def exact(growth: Growth) -> Iterator[tuple[str, torch.Tensor]]:
    """The successor computes what its predecessor computes: exact width, new blocks that start as identity."""
    return grow_exactly_wide(growth, inserted)


def stack(growth: Growth) -> Iterator[tuple[str, torch.Tensor]]:
    """Exact width; successor block l′ is predecessor block l′ mod L, the whole stack again and again (G_stack)."""
    return grow_exactly_wide(growth, stacked)


def interpolate(growth: Growth) -> Iterator[tuple[str, torch.Tensor]]:
    """Exact width; successor block l′ is predecessor block ⌊l′·L/L′⌋, every block repeated in place."""
    return grow_exactly_wide(growth, interpolated)


def grow_exactly_wide(growth: Growth, depth: DepthRule) -> Iterator[tuple[str, torch.Tensor]]:
    """Grow every stream by the exact width rules and a depth rule.

    Args:
        growth (`Growth`): The growth; the epsilons of its new configuration are set.
        depth (`Callable`): Which predecessor block each successor block comes from.

    Yields:
        `tuple[str, torch.Tensor]`: The successor's weights by name, float64.
    """
    streams = streams_of(growth, depth, StreamGrowth)
    for name in growth.names:
        slot = growth.family.slot(name)
        yield name, growth.weight(name) if slot is None else streams[id(slot.stream)].weight(name, slot)


def streams_of(growth: Growth, depth: DepthRule, kind: Callable[..., Grown]) -> dict[int, Grown]:
    """The rules of every stream, by its identity; a stage knows those of the stage before.

    Args:
        growth (`Growth`): The growth.
        depth (`Callable`): Which predecessor block each successor block comes from.
        kind (`Callable`): `StreamGrowth`, or what makes one of the same arguments.
    """
    made: dict[int, Grown] = {}
    for stream in growth.family.streams:
        before = made[next(reversed(made))] if stream.stage else None
        made[id(stream)] = kind(growth, stream, depth)
        made[id(stream)].source = before
    return made


def set_epsilons(family: Family, old: Any, new: Any) -> None:
    """Set the epsilons of norms in a configuration before the model is built: ε′ = ε·D/D′ where a stream is padded.

    Args:
        family (`Family`): What the weights are.
        old (`PreTrainedConfig`): The predecessor's configuration.
        new (`PreTrainedConfig`): The successor's; changed.
    """
    for stream in family.streams:
        if stream.epsilon:
            tiled = issubclass(width_rule(family, stream, old, new), Tiled)
            scale = 1 if tiled else stream.width_of(old) / stream.width_of(new)
            setattr(stream.config_of(new), stream.epsilon, getattr(stream.config_of(old), stream.epsilon) * scale)


def width_rule(family: Family, stream: Stream, old: Any, new: Any) -> type[Tiled | Padded]:
    """The rule by which a stream gets wider.

    Args:
        family (`Family`): What the weights are.
        stream (`Stream`): One of its streams.
        old (`PreTrainedConfig`): The predecessor's configuration.
        new (`PreTrainedConfig`): The successor's.
    """
    before, after = stream.width_of(old), stream.width_of(new)
    if before == after or (after % before == 0 and (stream.first_norm or stream.multiples or not stream.epsilon)):
        return Tiled
    if stream.norm == "rms":
        return Padded
    if stream.first_norm:
        return PaddedBehindNorm
    if stream.output_is_stream:
        return Isometric
    # What passes a norm on its way into the stream leaves new channels at zero.
    between = stream.multiples and "post_gain" not in stream.silenced
    filled = _is_tied(family, old) or "scale" in stream.silenced or between
    return MeanFilled if filled else Centred


def _is_tied(family: Family, config: Any) -> bool:
    """Whether the embedding is the head as well."""
    return family.kind == "language" and bool(value_of(config, "tie_word_embeddings"))


Grown = TypeVar("Grown", bound="StreamGrowth")


class StreamGrowth:
    """The rules of one stream, weight by weight.

    Args:
        growth (`Growth`): The growth.
        stream (`Stream`): One of its family's.
        depth (`Callable`): Which predecessor block each successor block comes from.
    """

    source: StreamGrowth | None = None

    def __init__(self, growth: Growth, stream: Stream, depth: DepthRule) -> None:
        self.growth, self.stream = growth, stream
        self.old_heads, self.new_heads = stream.heads_of(growth.old), stream.heads_of(growth.new)
        self.old_width, self.new_width = stream.width_of(growth.old), stream.width_of(growth.new)
        self.origins = origins(depth, stream, growth.old, growth.new)
        rule = width_rule(growth.family, stream, growth.old, growth.new)
        found = [name for name in growth.names if stream.is_of(stream.first_norm, name) and name.endswith(".weight")]
        first = [growth.weight(name) for name in found] if rule is PaddedBehindNorm else []
        self.width: WidthRule = rule(self.old_width, self.new_width, growth.generator, *first)
        self.tied = _is_tied(growth.family, growth.old)
        # Where the epsilon stays, all that is in a padded stream grows by 1/√r: norms see the variance that they know.
        self.factor = 1.0 if stream.epsilon else self.width.epsilon_scale**-0.5
        # What the embedding is multiplied with, so that the model's own factor gives what it gave.
        self.embedding_factor = self.factor * (self.old_width / self.new_width) ** stream.embedding_power
        slots = [growth.family.slot(name) for name in growth.names]
        own = [slot.weight for slot in slots if slot is not None and slot.stream is stream]
        self.normed = {weight.axes[0]: weight.role for weight in own if weight.role in ("unit_gain", "head_gain")}

    def weight(self, name: str, slot: Slot) -> torch.Tensor:
        """A weight of the successor, float64, in any layout in memory."""
        spec, origin = slot.weight, None if slot.block is None else self.origins[slot.block]
        if origin and origin.inserted and self._starts_at_zero(spec):
            return torch.zeros((), dtype=torch.float64).expand(self.growth.shape(name))
        source = self.stream.in_block(name, origin.block if origin else None)
        old = self.growth.weight(source)
        if spec.role in ("keep", "head_gain"):
            return old
        scale = self.growth.weight(self.stream.beside(source, spec.scaled_by)) if spec.scaled_by else None
        layout = Layout(spec.axes, self.old_heads, old.shape)
        larger = Layout(spec.axes, self.new_heads, self.growth.shape(name))
        parts = zip(layout.parts, layout.split(old), larger.shapes, strict=True)
        if self.stream.is_of(self.stream.first_norm, name):
            grown = self.width.first_gain(old) if spec.role == "gain" else self.width.first_shift(old)
            grown *= self.factor
        else:
            grown = larger.join(
                [self._part(replace(spec, axes=axes), part, shape, scale) for axes, part, shape in parts]
            )
        if self.tied and self.stream.is_of(self.stream.last_norm, name):
            offset = self.stream.gain_offset
            grown = (grown + offset) * self.width.head_scale / self.embedding_factor - offset
        if origin and origin.inserted:
            self._silence_block(grown, spec, origin.inserted)
        return grown

    def _starts_at_zero(self, spec: Weight) -> bool:
        """Whether a weight of a new block is zero, so that the block adds nothing to the stream."""
        return spec.role in self.stream.silenced and spec.role != "post_gain"

    def _silence_block(self, weight: torch.Tensor, spec: Weight, number: int) -> None:
        """Make a new block an identity, and tell it apart from other new blocks in the same gap."""
        if spec.role == "post_gain":
            # What is written to new channels is zero already; with a gain of zero as well they would never learn.
            # Copies of a tiled stream are not zero.
            copies = len(weight) if isinstance(self.width, Tiled) else self.old_width
            weight[:copies] = -self.stream.gain_offset
        elif spec.role == "read" and number > 1:
            weight += normal(self.growth.generator, *weight.shape, scale=root_mean_square(weight) * BLOCK_NOISE)

    def _part(
        self, spec: Weight, weight: torch.Tensor, shape: Sequence[int], scale: torch.Tensor | None
    ) -> torch.Tensor:
        """One part of a weight, in which every axis is of one kind."""
        axes, role = spec.axes, spec.role
        if axes[0] == "expert" and len(axes) > (2 if role == "read" else 1):
            return self._experts(spec, weight, shape, scale)
        if role in ("embed", "probe"):
            return self._grow_input(spec, weight, shape)
        if role == "unit_gain":
            units = self._units(axes[0], len(weight), shape[0])
            share = len(units.positions) / units.size
            fresh = weight.abs().mean().expand(units.size).index_copy(0, units.positions, weight[units.sources])
            return fresh * share**0.5
        if role == "bias":
            number = axes.index("head") if "head" in axes else 0
            units = self._units(axes[number], weight.shape[number], shape[number])
            return units.bias(weight.movedim(number, 0)).movedim(0, number)
        if role in ("read", "raw_read"):
            return self._grow_read(spec, weight, shape, scale)
        if role == "write":
            residual = axes.index("residual")
            grown = times(self.width.write(weight.movedim(residual, 0), scale), self.factor)
            if len(axes) > 1:
                units = self._units(axes[1 - residual], grown.shape[1], shape[1 - residual])
                grown = units.placed(grown, 1)
            return grown.movedim(0, residual)
        if role == "depthwise":
            return self.width.depthwise(weight) * (self.factor if weight.dim() == 1 else 1)
        offset = self.stream.gain_offset if role in ("gain", "post_gain") else 0.0
        rule = getattr(self.width, role.removeprefix("post_"))
        return rule(weight + offset) - offset

    def _grow_input(self, spec: Weight, weight: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        residual = spec.axes.index("residual")
        for number, (axis, size) in enumerate(zip(spec.axes, shape, strict=False)):
            if number != residual and axis != "source":
                weight = self._longer(weight, number, size, axis)
        grown = times(getattr(self.width, spec.role)(weight.movedim(residual, 0)), self.embedding_factor)
        grown = grown.movedim(0, residual)
        if self.source is None or "source" not in spec.axes:
            return grown
        # The norm between two stages may leave some of the mean in new channels.
        rows = grown.movedim(1, -1)
        read = self.source.width.read_mean(rows.flatten(0, -2), rows.new_zeros(rows[..., 0].numel()))
        return read.unflatten(0, rows.shape[:-1]).movedim(-1, 1)

    def _longer(self, weight: torch.Tensor, axis: int, size: int, kind: str) -> torch.Tensor:
        return longer(weight, axis, size, kind)

    def _grow_read(
        self, spec: Weight, weight: torch.Tensor, shape: Sequence[int], gain: torch.Tensor | None
    ) -> torch.Tensor:
        residual = spec.axes.index("residual")
        weight = weight.movedim(residual, 1)
        units = self._units(spec.axes[1 - residual], len(weight), shape[1 - residual])
        if units.rotation:
            return units.rotation(self.width.read(weight)).movedim(1, residual)
        sigma = root_mean_square(weight)
        if gain is None:
            read = getattr(self.width, spec.role)(times(weight, units.scale))
        else:
            # Behind a depthwise convolution new channels are −m·√r, of which the gained old ones lack (1−r)·m.
            read = self.width.read_mean(weight, (weight * gain).mean(1) / gain.abs().mean())
        count = len(units.fresh)
        if units.leads and units.size == len(read):
            return read.movedim(1, residual)
        if units.mean:
            fresh = read.mean(0).expand(count, -1)
        elif units.silent:
            fresh = getattr(self.width, f"silent_{spec.role}")(count, sigma)
        else:
            # The fan-in grew by 1/r, so the spread shrinks by √r, and a new unit is as loud as an old one.
            spread = units.fresh_scale * sigma * (self.old_width / self.new_width) ** 0.5
            fresh = normal(self.growth.generator, count, self.new_width, scale=spread)
        return units.filled(read, fresh).movedim(1, residual)

    def _experts(
        self, spec: Weight, weight: torch.Tensor, shape: Sequence[int], scale: torch.Tensor | None
    ) -> torch.Tensor:
        """Experts one by one; copies of one part by random writes that add up to zero."""
        inner, old = replace(spec, axes=spec.axes[1:]), len(weight)
        grown = torch.stack([self._part(inner, weight[number % old], shape[1:], scale) for number in range(shape[0])])
        if spec.role == "write" and len(spec.axes) > 2 and shape[0] > old:
            copies = grown.unflatten(0, (-1, old))
            noise = normal(self.growth.generator, *copies.shape) * root_mean_square(weight)
            grown += (noise - noise.mean(0)).flatten(0, 1)
        return grown

    def _units(self, axis: str, old: int, new: int) -> UnitRule:
        if axis in ("query", "key", "value", "context", "head"):
            rule = head_units(axis, self.old_heads, self.new_heads)
            if axis not in self.normed:
                return rule
            # A norm of queries or keys has the epsilon of the norms over the stream, which gets smaller.
            whole = self.normed[axis] == "unit_gain"
            share = len(rule.positions) / rule.size if whole else 1.0
            scale = rule.scale * (self.width.epsilon_scale / share) ** 0.5
            return replace(rule, scale=scale, fresh_scale=FAINT_HEAD if whole else 1.0)
        if axis == "expert":
            return expert_units(old, new)
        return plain_units(axis, old, new)
