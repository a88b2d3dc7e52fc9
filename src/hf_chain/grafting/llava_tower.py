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
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers.activations import ACT2FN

from hf_chain.errors import HfChainError
from hf_chain.models.grafted_vlm.vision_towers import tower_family, with_layers
from hf_chain.module_modes import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

DROWNING_GAIN = 2.0**32
"""Drowns the residual stream in what the layer adds; float32 and bfloat16 can hold it."""


@dataclass(frozen=True)
class LayerNames:
    """Where a tower keeps what the norm's layer is made of, and what its weights are called.

    Args:
        layers (`str`): the list of layers.
        norm (`str`): the norm in front of a layer's MLP.
        published (`str`): what stands before the names of the tower's weights in published Llavas.
    """

    layers: str
    norm: str
    published: str = ""


LAYERS = {
    "clip_vision_model": LayerNames("encoder.layers", "layer_norm2", "vision_model."),
    "siglip_vision_model": LayerNames("encoder.layers", "layer_norm2", "vision_model."),
    "dinov2": LayerNames("encoder.layer", "norm2"),
    "dinov2_with_registers": LayerNames("encoder.layer", "norm2"),
    "vit": LayerNames("layers", "layernorm_after"),
}
"""`model_type` of the vision configuration -> its names."""


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
        normed = getattr(tower, tower_family(tower.config).norm)(stream)
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
    config = tower.config
    names = LAYERS[config.model_type]
    state = dict(tower.state_dict())
    last = f"{names.layers}.{config.num_hidden_layers - 1}."
    layer = {
        name.removeprefix(last): torch.zeros_like(weight) for name, weight in state.items() if name.startswith(last)
    }
    _check(config, layer, gain)
    norm = tower_family(config).norm
    layer[f"{names.norm}.weight"] = state[f"{norm}.weight"].clone()
    layer[f"{names.norm}.bias"] = state[f"{norm}.bias"].clone()
    rise, fall, size = layer["mlp.fc1.weight"], layer["mlp.fc2.weight"], config.hidden_size
    identity = torch.eye(size, dtype=rise.dtype, device=rise.device)
    rise[:size], rise[size : 2 * size] = identity, -identity
    fall[:, :size], fall[:, size : 2 * size] = gain * identity, -gain * identity
    if "layer_scale2.lambda1" in layer:
        layer["layer_scale2.lambda1"].fill_(1)
    end = f"{names.layers}.{config.num_hidden_layers}."
    grown = with_layers(config, config.num_hidden_layers + 1)
    return grown, state | {end + name: weight for name, weight in layer.items()}


def _check(config: PreTrainedConfig, layer: dict[str, torch.Tensor], gain: float) -> None:
    refused = f"post_layernorm of this {config.model_type} cannot be exported: "
    rise = layer.get("mlp.fc1.weight")
    if rise is None:
        raise HfChainError(f"{refused}its MLP is gated; train with post_layernorm=False, or serve it with hf_chain")
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
