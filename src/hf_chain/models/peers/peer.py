"""What a checkpoint of another library is to a stock model: names of weights and fields, as data, for both ways."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hf_chain.errors import HfChainError, reason, shortened

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Table = Mapping[str, tuple[str, ...]]
"""A weight of the peer -> the stock weights that it holds one after the other."""

ANY: Sequence[Any] = ()
"""Of a field whose every value has a counterpart, or changes no output."""


def layer(theirs: str, *ours: str) -> dict[str, tuple[str, ...]]:
    """The weight and the bias of a layer, or of several that the peer has fused into one."""
    return {f"{theirs}.{kind}": tuple(f"{one}.{kind}" for one in ours) for kind in ("weight", "bias")}


@dataclass(frozen=True)
class Peer:
    """A kind of checkpoint of another library.

    Args:
        name (`str`): The library.
        model (`str`): The stock class.
        config_file, weights_file (`str`): Names of its two files.
        outer (`Table`): Weights outside of the blocks.
        blocks (`tuple[tuple[str, str], ...]`): What stands before a block's number, there and here.
        block (`Table`): Weights of a block, by what follows its number and a dot.
        transposed (`frozenset[str]`): Weights that the peer multiplies from the other side.
        read_config (`Callable`): From what its configuration says, and what the user calls it, to the stock one.
        write_config (`Callable`): The other way, with what the image processor does and whether a tokenizer is there.
        preprocessing (`Callable`): What is done to images, from what its configuration says and the stock one.
        epsilon (`float`, *optional*): That of all norms, where no field of the peer holds it.
    """

    name: str
    model: str
    config_file: str
    weights_file: str
    outer: Table
    blocks: tuple[tuple[str, str], ...]
    block: Table
    read_config: Callable[[Mapping[str, Any], str], PreTrainedConfig]
    write_config: Callable[[PreTrainedConfig, Preprocessing | None, bool, str], dict[str, Any]]
    preprocessing: Callable[[Mapping[str, Any], PreTrainedConfig], Preprocessing]
    transposed: frozenset[str] = frozenset()
    epsilon: float | None = None

    def table(self, stock: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Every weight of the peer -> those of a stock model with these weights."""
        named = dict(self.outer)
        for theirs, ours in self.blocks:
            depth = len({name.removeprefix(ours).split(".")[0] for name in stock if name.startswith(ours)})
            for number in range(depth):
                for rest, parts in self.block.items():
                    named[f"{theirs}{number}.{rest}"] = tuple(f"{ours}{number}.{part}" for part in parts)
        return {theirs: ours for theirs, ours in named.items() if ours[0] in stock}

    def to_stock(self, weights: Mapping[str, torch.Tensor], shapes: Mapping[str, torch.Size], name: str) -> Any:
        """The stock weights that a checkpoint holds.

        Args:
            weights (`Mapping[str, torch.Tensor]`): All of the checkpoint.
            shapes (`Mapping[str, torch.Size]`): Shapes of the stock weights.
            name (`str`): What the user calls the checkpoint.

        Raises:
            HfChainError: Naming a weight that is missing, has no counterpart or another shape than is configured.
        """
        table = self.table(shapes)
        if unknown := sorted(weights.keys() - table.keys()):
            raise HfChainError(f"{name} holds {unknown[0]}, which has no counterpart in {self.model}")
        if missing := sorted(table.keys() - weights.keys()):
            raise HfChainError(f"{name} lacks {missing[0]}, which its {self.config_file} asks for: give a whole model")
        found = {}
        for theirs, ours in table.items():
            weight = weights[theirs].T if theirs in self.transposed else weights[theirs]
            parts = weight.chunk(len(ours)) if len(ours) > 1 else [weight]
            for stock, part in zip(ours, parts, strict=True):
                if part.shape != shapes[stock]:
                    raise HfChainError(
                        f"{theirs} of {name} has shape {list(weights[theirs].shape)}, which does not fit its"
                        f" {self.config_file}: the two do not belong together"
                    )
                found[stock] = part.contiguous()
        return found

    def from_stock(self, weights: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
        """The weights of the peer that a stock model holds.

        Args:
            weights (`Mapping[str, torch.Tensor]`): All of the stock model.
            name (`str`): What the user calls it.

        Raises:
            HfChainError: Naming a weight that has no counterpart.
        """
        table = self.table(weights)
        if unknown := sorted(weights.keys() - {stock for ours in table.values() for stock in ours}):
            raise HfChainError(f"{unknown[0]} of {name} has no counterpart in {self.name}: give a {self.model}")
        joined = {
            theirs: torch.cat([weights[one] for one in ours]) if len(ours) > 1 else weights[ours[0]]
            for theirs, ours in table.items()
        }
        return {
            name: (weight.T if name in self.transposed else weight).contiguous() for name, weight in joined.items()
        }


def known_fields(told: Mapping[str, Any], known: Mapping[str, Sequence[Any]], where: str, model: str) -> None:
    """Refuses fields of a configuration that have no counterpart.

    Args:
        told (`Mapping[str, Any]`): Fields and values.
        known (`Mapping[str, Sequence]`): Field -> the values that have one, or `ANY`.
        where (`str`): What the user calls the fields' place, such as `name: vision_cfg.`.
        model (`str`): The stock class.

    Raises:
        HfChainError: Naming the first field and its value.
    """
    for field, value in told.items():
        allowed = known.get(field)
        if allowed is None:
            raise HfChainError(f"{where}{field}={shortened(value)} has no counterpart in {model}")
        if allowed and value not in allowed:
            raise HfChainError(
                f"{where}{field}={shortened(value)} has no counterpart in {model}: only"
                f" {' or '.join(map(repr, allowed))} has one"
            )


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image, pixels in RGB.

    Args:
        size (`int`): Pixels of the shorter side after resizing, or of both.
        crop (`int`): Pixels of both sides of what is cut out of the centre.
        mean, std (`tuple[float, ...]`): What is subtracted from, and divides, values between 0 and 1.
        interpolation (`str`): `bicubic` or `bilinear`.
        squash (`bool`): Both sides are resized, whatever the shape.
    """

    size: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    squash: bool

    def processor(self) -> Any:
        """A stock image processor that does it."""
        from transformers import CLIPImageProcessorPil

        size = {"height": self.size, "width": self.size} if self.squash else {"shortest_edge": self.size}
        return CLIPImageProcessorPil(
            size=size,
            crop_size={"height": self.crop, "width": self.crop},
            resample=RESAMPLING[self.interpolation],
            image_mean=self.mean,
            image_std=self.std,
        )


RESAMPLING = {"bilinear": 2, "bicubic": 3}
"""Pillow's numbers."""


def preprocessing_of(processor: Any) -> Preprocessing:
    """What a stock image processor does.

    Args:
        processor (`BaseImageProcessor`): It.

    Raises:
        HfChainError: When no peer does the same.
    """
    told = processor.to_dict()
    size, crop = dict(told.get("size") or {}), dict(told.get("crop_size") or {})
    sides = {int(size[name]) for name in ("height", "width", "shortest_edge") if size.get(name)}
    crops = set(crop.values()) if told.get("do_center_crop") else sides
    names = {number: name for name, number in RESAMPLING.items()}
    resample = told.get("resample")
    usual = told.get("do_resize") and told.get("do_rescale") and told.get("do_normalize")
    if len(sides) != 1 or len(crops) != 1 or resample not in names or not usual:
        raise HfChainError(
            f"the image processor ({type(processor).__name__}, size={size}, crop_size={crop}, resample={resample})"
            " does what no peer does: give one that resizes (bicubic or bilinear), cuts a square and normalises"
        )
    mean, std = (tuple(float(value) for value in told[name]) for name in ("image_mean", "image_std"))
    return Preprocessing(min(sides), min(crops), mean, std, names[resample], "shortest_edge" not in size)


def whole_ratio(part: int, whole: int) -> float:
    """A ratio from which `int(whole · ratio)` is `part` again."""
    return part / whole if int(whole * (part / whole)) == part else (part + 0.5) / whole


def square(value: Any, where: str, model: str) -> int:
    """One side in pixels, of a number or of two equal ones.

    Raises:
        HfChainError: Where they differ.
    """
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise HfChainError(f"{where}={value} has no counterpart in {model}: only squares have one")
    return int(sides.pop())


def read_json(path: Path) -> dict[str, Any]:
    """What a configuration says.

    Raises:
        HfChainError: Where it is no JSON object.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HfChainError(f"{path} cannot be read ({reason(error)}): give a whole checkpoint") from error
    if not isinstance(told, dict):
        raise HfChainError(f"{path} holds {shortened(told)}, no JSON object: give a whole checkpoint")
    return told


def sections(told: Mapping[str, Any], *names: str, where: str) -> Iterator[Mapping[str, Any]]:
    """Parts of a configuration, empty where there is none.

    Raises:
        HfChainError: Where one is no JSON object.
    """
    for name in names:
        part = told.get(name) or {}
        if not isinstance(part, Mapping):
            raise HfChainError(f"{where}{name}={shortened(part)} is no JSON object: give a whole checkpoint")
        yield part
