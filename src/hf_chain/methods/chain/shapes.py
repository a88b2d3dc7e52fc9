"""Shapes of the members, as a recipe gives them and as `CLIPConfig` takes them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field, field_validator, model_validator

from hf_chain.settings import Settings

if TYPE_CHECKING:
    from transformers import CLIPConfig

CHANNELS = 3
"""Of an image, in CLIP."""
USUAL_ACTIVATIONS = ("gelu", "quick_gelu")
"""Known without asking transformers, which starts torch."""


class TowerSettings(Settings):
    """Shape of one tower of a member."""

    hidden_size: int = Field(ge=1, description="Width of the residual stream.")
    num_hidden_layers: int = Field(ge=1, description="Number of blocks.")
    num_attention_heads: int | None = Field(None, ge=1, description="Heads; null gives heads of `model.head_size`.")
    intermediate_size: int | None = Field(None, ge=1, description="Width of the MLP; null is 4 × `hidden_size`.")

    @property
    def mlp_size(self) -> int:
        """Width of the MLP."""
        return self.intermediate_size or 4 * self.hidden_size

    def heads(self, head_size: int) -> int:
        """Number of heads, of `head_size` channels each unless the recipe gives the number.

        Raises:
            ValueError: when heads × head size is not the width.
        """
        if self.num_attention_heads is None:
            if self.hidden_size % head_size:
                raise ValueError(
                    f"hidden_size is {self.hidden_size}, which is not heads × head size; choose a multiple of "
                    f"model.head_size ({head_size}) or give num_attention_heads"
                )
            return self.hidden_size // head_size
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads is {self.num_attention_heads}, which does not divide hidden_size "
                f"{self.hidden_size}; choose a number that does"
            )
        return self.num_attention_heads


class ModelSettings(Settings):
    """What all members of a family share."""

    image_size: int = Field(224, ge=1, le=8192, description="Height and width of the images in pixels.")
    patch_size: int = Field(16, ge=1, description="Height and width of a patch in pixels.")
    max_text_tokens: int = Field(77, ge=3, le=1_000_000, description="Length of the text context in tokens.")
    projection_dim: int = Field(512, ge=1, description="Size of the shared embedding.")
    head_size: int = Field(64, ge=1, description="Channels of an attention head.")
    hidden_act: str = Field("gelu", description="Activation of the MLPs; OpenAI's CLIP has `quick_gelu`.")
    attn_implementation: str | None = Field(
        None, description="`eager`, `sdpa`, `flash_attention_2`, …; null lets transformers choose."
    )

    @field_validator("hidden_act")
    @classmethod
    def _activation_is_known(cls, value: str) -> str:
        if value in USUAL_ACTIVATIONS:
            return value
        from transformers.activations import ACT2FN

        if value not in ACT2FN:
            raise ValueError(f"hidden_act is {value!r}; use gelu, quick_gelu or another of transformers' activations")
        return value

    @model_validator(mode="after")
    def _patches_fill_the_image(self) -> ModelSettings:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size is {self.image_size}, not a multiple of patch_size {self.patch_size}; "
                f"choose {self.image_size // self.patch_size * self.patch_size or self.patch_size}"
            )
        return self

    def clip_config(
        self,
        vision: TowerSettings,
        text: TowerSettings,
        projection_dim: int | None,
        vocab_size: int,
        bos_token_id: int,
        eos_token_id: int,
    ) -> CLIPConfig:
        """Configuration of a member.

        Args:
            vision (`TowerSettings`): shape of the image tower.
            text (`TowerSettings`): shape of the text tower.
            projection_dim (`int`, *optional*): embedding size; by default the one all members share.
            vocab_size (`int`): tokens of the tokenizer.
            bos_token_id (`int`): first token of a caption.
            eos_token_id (`int`): last token of a caption, at which the text tower is read, and the padding token.
        """
        from transformers import CLIPConfig

        config = CLIPConfig(**self._sizes(vision, text, projection_dim, vocab_size, bos_token_id, eos_token_id))
        if self.attn_implementation is not None:
            config._attn_implementation = self.attn_implementation
        return config

    def counted(self, *shape: Any) -> CLIPConfig:
        """What `clip_config` says of a member as far as costs and growth read it, without transformers and torch.

        Args:
            shape: as for `clip_config`.
        """
        sizes = self._sizes(*shape)
        vision = SimpleNamespace(**sizes.pop("vision_config"), num_channels=CHANNELS)
        text = SimpleNamespace(**sizes.pop("text_config"))
        return cast("CLIPConfig", SimpleNamespace(**sizes, model_type="clip", vision_config=vision, text_config=text))

    def _sizes(
        self,
        vision: TowerSettings,
        text: TowerSettings,
        projection_dim: int | None,
        vocab_size: int,
        bos_token_id: int,
        eos_token_id: int,
    ) -> dict[str, Any]:
        size = projection_dim or self.projection_dim

        def tower(settings: TowerSettings) -> dict[str, int | str]:
            return {
                "hidden_size": settings.hidden_size,
                "num_hidden_layers": settings.num_hidden_layers,
                "num_attention_heads": settings.heads(self.head_size),
                "intermediate_size": settings.mlp_size,
                "hidden_act": self.hidden_act,
                "projection_dim": size,
            }

        return {
            "projection_dim": size,
            "vision_config": tower(vision) | {"image_size": self.image_size, "patch_size": self.patch_size},
            "text_config": tower(text)
            | {
                "vocab_size": vocab_size,
                "max_position_embeddings": self.max_text_tokens,
                "bos_token_id": bos_token_id,
                "eos_token_id": eos_token_id,
                "pad_token_id": eos_token_id,
            },
        }
