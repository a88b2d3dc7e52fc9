"""Recipes of any task and family: members by the fields of the family's own configuration."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic import ConfigDict, Field, create_model

from hf_chain.errors import HfChainError
from hf_chain.families import FAMILIES, VISION_TEXT
from hf_chain.methods.chain.chain_recipe import ChainRecipe, MemberSettings
from hf_chain.runs.recipe_file import suggestion
from hf_chain.settings import Settings
from hf_chain.tasks import TASKS, find_paradigm


class FamilyModelSettings(Settings):
    """What all members share: these, and any field of the family's configuration."""

    model_config = ConfigDict(extra="allow")

    head_size: int | None = Field(
        None, ge=1, description="Channels of an attention head: gives heads to members that name no number of them."
    )
    mlp_ratio: float = Field(4.0, gt=0, description="Width of the MLP over that of the stream, where none is named.")
    attn_implementation: str | None = Field(
        None, description="`eager`, `sdpa`, `flash_attention_2`, …; null lets transformers choose."
    )


class TowersSettings(FamilyModelSettings):
    """The same of a dual encoder of any two towers, whose kinds stand in `vision.model_type` and `text.model_type`."""

    max_text_tokens: int | None = Field(
        None, ge=3, le=1_000_000, description="Length of captions in tokens; null takes all that the text tower can."
    )


class FamilyMemberSettings(MemberSettings):
    """One member: these, and its sizes by the fields of the family's configuration, such as `hidden_size`."""

    model_config = ConfigDict(extra="allow")


class FamilyRecipe(ChainRecipe):
    """Everything that decides what the run of a family produces."""

    model: FamilyModelSettings = Field(FamilyModelSettings(), description="What all members share.")
    members: list[FamilyMemberSettings] = Field(min_length=1, description="The family, smallest member first.")


@lru_cache
def family_recipe(task: str, family: str) -> type[FamilyRecipe]:
    """The class of the recipes of a task and a family.

    Args:
        task (`str`): one of `tasks.TASKS`.
        family (`str`): one of `families.FAMILIES`, or `families.VISION_TEXT`.

    Raises:
        HfChainError: for one that is not known, or a family that the task does not train.
    """
    if str(task) not in TASKS:
        raise HfChainError(f"task is {task!r}, which is unknown{suggestion(str(task), list(TASKS))}")
    if str(family) not in (families := [*FAMILIES, VISION_TEXT]):
        raise HfChainError(f"family is {family!r}, which is unknown{suggestion(str(family), families)}")
    paradigm = find_paradigm(task)
    if family not in paradigm.families():
        raise HfChainError(
            f"task is {task} and family is {family}, which it does not train: use one of "
            f"{', '.join(sorted(paradigm.families()))}"
        )
    data: Any = (paradigm.data_settings, Field(description="The training and evaluation data."))
    evaluated: Any = (
        paradigm.evaluation_settings,
        Field(paradigm.evaluation_settings(), description="What is evaluated, on which splits."),
    )
    sections = {"data": data, "evaluation": evaluated}
    if family == VISION_TEXT:
        sections["model"] = (TowersSettings, Field(TowersSettings(), description="What all members share."))
    return create_model("FamilyRecipe", __base__=FamilyRecipe, **sections)
