"""What the stages of a graft share beside what all runs do: the conversations, and the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_chain.methods.context import RunContext
from hf_chain.methods.graft.data import Conversations
from hf_chain.methods.graft.recipe import GraftRecipe
from hf_chain.models.grafted_vlm.language_models import load_causal_lm, load_tokenizer


@dataclass
class GraftContext(RunContext[GraftRecipe]):
    """As `RunContext`, with the data of the recipe.

    Args:
        conversations (`Conversations`): the data.
    """

    conversations: Conversations

    @property
    def target_source(self) -> str:
        """Folder or Hub name of the language model that the encoder is meant for."""
        return self.recipe.target.name_or_path or str(self.folder("target"))


def load_target(context: GraftContext, **loading: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The language model that the encoder is meant for, in the type and at the revision that the recipe says.

    Args:
        context (`GraftContext`): the run.
        loading: more arguments of `from_pretrained`, such as `device_map`.

    Returns:
        The model in evaluation mode, and its tokenizer.

    Raises:
        HfChainError: when it cannot be loaded, or not all of it.
    """
    settings, source = context.recipe.target, context.target_source
    if settings.attn_implementation is not None:
        loading["attn_implementation"] = settings.attn_implementation
    target = load_causal_lm(source, settings.dtype, revision=settings.revision, **loading)
    return target.eval(), load_tokenizer(source, revision=settings.revision)
