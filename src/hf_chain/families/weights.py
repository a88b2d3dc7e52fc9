"""Weights as stock modules name them: linear layers, norms and whole blocks, for the tables of the families."""

from __future__ import annotations

from collections.abc import Mapping

from hf_chain.families.family import Role, Weight

Table = dict[str, Weight]


def read(name: str, units: str) -> Table:
    """A linear layer that takes the stream as input, with its bias."""
    return {f"{name}.weight": Weight("read", (units, "residual")), f"{name}.bias": Weight("bias", (units,))}


def write(name: str, units: str, scaled_by: str | None = None) -> Table:
    """A linear layer that adds to the stream, with its bias."""
    return {
        f"{name}.weight": Weight("write", ("residual", units), scaled_by),
        f"{name}.bias": Weight("write", ("residual",), scaled_by),
    }


def norm(name: str, gain: Role = "gain") -> Table:
    """A norm over the stream, with its offset."""
    return {f"{name}.weight": Weight(gain, ("residual",)), f"{name}.bias": Weight("shift", ("residual",))}


def patches(name: str) -> Table:
    """The convolution, or the linear layer, that puts patches into the stream."""
    return {
        f"{name}.weight": Weight("embed", ("residual", "colour", "row", "column")),
        f"{name}.bias": Weight("embed", ("residual",)),
    }


def attention(prefix: str, names: str = "q_proj k_proj v_proj o_proj", scaled_by: str | None = None) -> Table:
    """The four linear layers of attention."""
    query, key, value, output = (f"{prefix}{name}" for name in names.split())
    return read(query, "query") | read(key, "key") | read(value, "value") | write(output, "context", scaled_by)


def mlp(
    prefix: str, names: str = "fc1 fc2", scaled_by: str | None = None, reads: Mapping[str, str] | None = None
) -> Table:
    """An MLP: the last of the names writes, those before it read; `reads` names further ones with their units."""
    *plain, output = names.split()
    table = write(f"{prefix}{output}", "mlp", scaled_by)
    for name, units in ({name: "mlp" for name in plain} | dict(reads or {})).items():
        table |= read(f"{prefix}{name}", units)
    return table
