"""Configuration of a vision encoder, an adapter and a language model in one."""

from __future__ import annotations

import copy
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, AutoConfig

from hf_chain.cost.macs import image_patches, image_tokens
from hf_chain.errors import HfChainError, shortened
from hf_chain.models.grafted_vlm.vision_towers import cut_config, keeps_aspect_ratio, tower_stream


@strict
class GraftedVLMConfig(PreTrainedConfig):
    """Everything a grafted vision-language model is built from.

    Args:
        vision_config (`PreTrainedConfig` or `dict`, *optional*): the vision tower, a CLIP by default. After
            construction it ends at `vision_layer`: layers that are never run are not built.
        text_config (`PreTrainedConfig` or `dict`, *optional*): the decoder-only language model, a Llama by default.
        vision_layer (`int`): the tower's hidden state that is used, counted as in `hidden_states`. It reads `-1` after
            construction, when the tower has been cut there.
        class_token (`bool`): whether class and register tokens are handed on, for towers that have them.
        post_layernorm (`bool`): whether all tokens pass the tower's last norm, as in the paper.
        image_size (`int`, *optional*): height and width in pixels of the images, for towers that take any size; that
            of `vision_config` by default.
        adapter_layers (`int`): linear layers of the adapter, with GELU between them.
        adapter_hidden_size (`int`, *optional*): its inner size; the language model's embedding size by default.
        image_token_id (`int`): the placeholder in `input_ids`. It is never embedded and may lie outside of the
            language model's vocabulary.
        tokenizer_fingerprint (`dict`, *optional*): hashes of the vocabulary and chat template it is trained with,
            which tell at grafting whether the target speaks the same language.
        hf_chain_graft (`dict`, *optional*): where the image half was trained and what it was grafted onto.

    Raises:
        HfChainError: for a part that is no configuration, a vision tower that is not known, a layer it does not have,
            or an adapter without layers.

    Source: Zero-Shot Vision Encoder Grafting via LLM Surrogates (arXiv 2505.22664), section 3.
    """

    model_type = "grafted_vlm"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}

    vision_config: Any = None
    text_config: Any = None
    vision_layer: int = -1
    class_token: bool = True
    post_layernorm: bool = True
    image_size: int | None = None
    adapter_layers: int = 2
    adapter_hidden_size: int | None = None
    image_token_id: int = 32000
    tokenizer_fingerprint: dict | None = None
    hf_chain_graft: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.text_config = _sub_config("text_config", self.text_config, "llama")
        whole = _sub_config("vision_config", self.vision_config, "clip_vision_model")
        vision_config = cut_config(whole, self.vision_layer)
        for name, value in tower_stream(vision_config).spared.items():
            setattr(vision_config, name, value)
        self.vision_config, self.vision_layer = vision_config, -1
        if self.adapter_layers < 1:
            raise HfChainError(f"adapter_layers={self.adapter_layers}: the adapter needs at least 1 linear layer")
        super().__post_init__(**kwargs)

    @property
    def embedding_size(self) -> int:
        """Size of what the language model takes as `inputs_embeds`."""
        text = self.text_config
        # A few OPT models embed in fewer channels than their hidden state has.
        return getattr(text, "word_embed_proj_dim", None) or text.hidden_size

    @property
    def image_height_and_width(self) -> tuple[int, int]:
        """Pixels of an image; not for towers that keep the aspect ratio."""
        size = self.image_size or self.vision_config.image_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def tokens_per_image(self) -> int | None:
        """Tokens that the tower makes of an image, without image start and end; `None` where images differ."""
        if keeps_aspect_ratio(self.vision_config):
            return None
        return image_tokens(self) if self.class_token else image_patches(self)


def _sub_config(name: str, config: Any, default: str) -> PreTrainedConfig:
    if isinstance(config, PreTrainedConfig):
        # The base class writes its attention implementation into it, which must not reach a model in use.
        return copy.deepcopy(config)
    if not isinstance(config, dict | None):
        raise HfChainError(f"{name}={shortened(config)} is no configuration: give one, or its dictionary")
    values = {"model_type": default, **(config or {})}
    if values["model_type"] not in CONFIG_MAPPING:
        raise HfChainError(
            f"{name} has model_type {values['model_type']!r}, which transformers does not know: mend it"
        )
    return CONFIG_MAPPING[values["model_type"]](**values)


AutoConfig.register(GraftedVLMConfig.model_type, GraftedVLMConfig, exist_ok=True)
