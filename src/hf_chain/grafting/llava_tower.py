"""A vision tower whose hidden states have passed the tower's last norm, in stock classes.

A stock Llava reads hidden states, and no hidden state has passed the last norm n. One more layer of the tower's own
kind can stand in for the norm, exactly:

- its attention is zero, and its second norm is the tower's last norm;
- its MLP is the identity, as act(z) - act(-z) = z for GELU, quick GELU, SiLU and ReLU alike.

So it adds gain * n(x) to the stream x. A Llava may read several hidden states, and the first weight of its adapter
then takes the difference of the last two, divided by the gain: x is gone, and the gain is as large as the stream is
(`balanced_gain`). Optimisers and float16 survive that. Engines that read a single hidden state need `DROWNING_GAIN`,
beside which x is less than a rounding error, and which neither optimisers nor float16 survive.

All gains are powers of two, so that dividing by one loses nothing.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import torch
from transformers.activations import ACT2FN

from hf_chain.errors import HfChainError
from hf_chain.models.grafted_vlm.vision_towers import tower_norm, tower_stream, with_layers
from hf_chain.module_modes import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

DROWNING_GAIN = 2.0**32
"""Drowns the residual stream in what the layer adds; float32 and bfloat16 can hold it."""


def published_prefix(config: PreTrainedConfig) -> str:
    """What stands before the names of a tower's weights in published Llavas.

    Args:
        config (`PreTrainedConfig`): the tower's.
    """
    # Where towers have it in dual encoders too.
    match = re.match(tower_stream(config).prefix, "vision_model.")
    return match[0] if match else ""


def balanced_gain(tower: PreTrainedModel, image_height_and_width: tuple[int, int]) -> float:
    """The power of two, from 1 to 256, by which the norm's output is as large as the stream it is added to.

    A smaller gain would lose the norm's output in the rounding of a large stream; a larger one would make weights
    small that an optimiser changes by its learning rate whatever their size.

    Args:
        tower (`PreTrainedModel`): the tower; it looks at one picture of noise.
        image_height_and_width (`tuple[int, int]`): pixels.
    """
    noise = torch.randn(
        1, tower.config.num_channels, *image_height_and_width, generator=torch.Generator().manual_seed(0)
    )
    with evaluation_mode(tower):
        stream = tower(noise.to(tower.device, tower.dtype), output_hidden_states=True).hidden_states[-1]
        normed = tower_norm(tower)(stream)
    ratio = float(stream.abs().float().median() / normed.abs().float().median())
    return 2.0 ** round(math.log2(min(max(ratio, 1.0), 256.0))) if math.isfinite(ratio) else 1.0


def tower_with_norm(tower: PreTrainedModel, gain: float) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
    """Configuration and weights of a tower with one more layer, which adds the norm's output, times a gain.

    Args:
        tower (`PreTrainedModel`): the tower; not changed.
        gain (`float`): a power of two.

    Raises:
        HfChainError: when a layer of this tower cannot be a norm.
    """
    config, stream = tower.config, tower_stream(tower.config)
    state, depth = dict(tower.state_dict()), stream.depth_of(tower.config)
    last = f"{stream.blocks}{depth - 1}."
    layer = {
        name.removeprefix(last): torch.zeros_like(weight) for name, weight in state.items() if name.startswith(last)
    }
    there = {name: weight for name, weight in stream.block.items() if name in layer}
    rises, falls = (
        [name for name, weight in there.items() if weight.role == role and "mlp" in weight.axes]
        for role in ("read", "write")
    )
    _check(config, [layer[name] for name in rises], gain)
    second = [name for name, weight in there.items() if weight.role == "gain"][-1].removesuffix("weight")
    for part in ("weight", "bias"):
        layer[f"{second}{part}"] = state[f"{stream.last_norm}.{part}"].clone()
    rise, fall, size = layer[rises[0]], layer[falls[0]], stream.width_of(config)
    identity = torch.eye(size, dtype=rise.dtype, device=rise.device)
    rise[:size], rise[size : 2 * size] = identity, -identity
    fall[:, :size], fall[:, size : 2 * size] = gain * identity, -gain * identity
    for name, weight in there.items():
        if weight.role == "scale":
            layer[name].fill_(1)
    end = f"{stream.blocks}{depth}."
    return with_layers(config, depth + 1), state | {end + name: weight for name, weight in layer.items()}


def _check(config: PreTrainedConfig, rises: list[torch.Tensor], gain: float) -> None:
    refused = f"post_layernorm of this {config.model_type} cannot be exported: "
    if len(rises) != 1:
        raise HfChainError(f"{refused}its MLP is gated; train with post_layernorm=False, or serve it with hf_chain")
    (rise,) = rises
    if len(rise) < 2 * config.hidden_size:
        raise HfChainError(
            f"{refused}its intermediate_size {len(rise)} is below twice its hidden_size {config.hidden_size}; train"
            " with post_layernorm=False, or serve it with hf_chain"
        )
    if gain > torch.finfo(rise.dtype).max:
        raise HfChainError(
            f"{refused}float16 cannot hold the numbers that serving takes; export in bfloat16 or float32, or not for"
            " serving"
        )
    act, points = ACT2FN[config.hidden_act], torch.linspace(-9, 9, 37, dtype=torch.float64)
    if not torch.allclose(act(points) - act(-points), points, atol=1e-9):
        raise HfChainError(
            f"{refused}with hidden_act {config.hidden_act!r} its MLP cannot be an identity; train with"
            " post_layernorm=False, or serve it with hf_chain"
        )
