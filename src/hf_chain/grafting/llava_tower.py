"""A vision tower whose last hidden state has passed the tower's last norm, in stock classes.

A stock Llava reads hidden states, and no hidden state has passed the last norm. One more layer of the tower's own kind
can stand in for the norm, exactly:

- its attention is zero, and its second norm is the tower's last norm;
- its MLP is the identity, as act(z) - act(-z) = z for GELU, quick GELU, SiLU and ReLU alike;
- it adds 2^32 times the norm's output to the residual stream, beside which the stream is less than a rounding error.

The adapter divides by 2^32. Both are powers of two, so not a bit is lost on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers.activations import ACT2FN

from hf_chain.errors import HfChainError
from hf_chain.models.grafted_vlm.vision_towers import tower_family, with_layers

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

GAIN = 2.0**32
"""What the norm's output is multiplied by: it drowns the residual stream, and float32 and bfloat16 can hold it."""


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


def tower_with_norm(tower: PreTrainedModel) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
    """Configuration and weights of a tower with one more layer, whose output is the norm's, times `GAIN`.

    Args:
        tower (`PreTrainedModel`): the tower; not changed.

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
    _check(config, layer)
    norm = tower_family(config).norm
    layer[f"{names.norm}.weight"] = state[f"{norm}.weight"].clone()
    layer[f"{names.norm}.bias"] = state[f"{norm}.bias"].clone()
    rise, fall, size = layer["mlp.fc1.weight"], layer["mlp.fc2.weight"], config.hidden_size
    identity = torch.eye(size, dtype=rise.dtype, device=rise.device)
    rise[:size], rise[size : 2 * size] = identity, -identity
    fall[:, :size], fall[:, size : 2 * size] = GAIN * identity, -GAIN * identity
    if "layer_scale2.lambda1" in layer:
        layer["layer_scale2.lambda1"].fill_(1)
    end = f"{names.layers}.{config.num_hidden_layers}."
    grown = with_layers(config, config.num_hidden_layers + 1)
    return grown, state | {end + name: weight for name, weight in layer.items()}


def _check(config: PreTrainedConfig, layer: dict[str, torch.Tensor]) -> None:
    refused = f"post_layernorm of this {config.model_type} cannot be exported: "
    rise = layer.get("mlp.fc1.weight")
    if rise is None:
        raise HfChainError(f"{refused}its MLP is gated; train with post_layernorm=False, or serve it with hf_chain")
    if len(rise) < 2 * config.hidden_size:
        raise HfChainError(
            f"{refused}its intermediate_size {len(rise)} is below twice its hidden_size {config.hidden_size}; train"
            " with post_layernorm=False, or serve it with hf_chain"
        )
    if rise.dtype == torch.float16:
        raise HfChainError(f"{refused}float16 cannot hold the numbers it takes; export in bfloat16 or float32")
    act, points = ACT2FN[config.hidden_act], torch.linspace(-9, 9, 37, dtype=torch.float64)
    if not torch.allclose(act(points) - act(-points), points, atol=1e-9):
        raise HfChainError(
            f"{refused}with hidden_act {config.hidden_act!r} its MLP cannot be an identity; train with"
            " post_layernorm=False, or serve it with hf_chain"
        )
