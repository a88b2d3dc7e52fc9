"""Recipes of chains: of CLIPs here, of other families by `family_recipe.py`; how they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hf_chain.data.settings import DataSettings
from hf_chain.evaluation.settings import EvaluationSettings
from hf_chain.methods.chain.chain_recipe import ChainRecipe, MemberSettings, TokenizerSettings
from hf_chain.methods.chain.family_recipe import family_recipe
from hf_chain.methods.chain.shapes import ModelSettings, TowerSettings
from hf_chain.runs.recipe_file import parse_values, read_values, validated


class ClipTokenizerSettings(TokenizerSettings):
    """The same for CLIP, whose words end in tokens of their own."""

    vocab_size: int = Field(2_000, ge=514, description="Largest size of a tokenizer that is trained.")


class ClipMemberSettings(MemberSettings):
    """One member of a family of CLIPs."""

    vision: TowerSettings = Field(description="Shape of the image tower.")
    text: TowerSettings = Field(description="Shape of the text tower.")
    projection_dim: int | None = Field(None, ge=1, description="Embedding size; null takes the one of `model`.")


class Recipe(ChainRecipe):
    """Everything that decides what the run of a family of CLIPs produces."""

    task: Literal["contrastive"] = Field("contrastive", description="The pre-training paradigm.")
    family: Literal["clip"] = Field("clip", description="The architecture.")
    data: DataSettings = Field(description="The training and evaluation data.")
    tokenizer: ClipTokenizerSettings = Field(ClipTokenizerSettings(), description="The tokenizer.")
    model: ModelSettings = Field(description="What all members share.")
    members: list[ClipMemberSettings] = Field(min_length=1, description="The family, smallest member first.")
    evaluation: EvaluationSettings = Field(EvaluationSettings(), description="What is evaluated, on which splits.")

    def check_shape(self, member: ClipMemberSettings) -> None:
        """Heads fill both towers."""
        for tower in ("vision", "text"):
            try:
                getattr(member, tower).heads(self.model.head_size)
            except ValueError as error:
                raise ValueError(f"members.{member.name}.{tower}.{error}") from error

    def check_ascending(self, small: ClipMemberSettings, large: ClipMemberSettings) -> None:
        """Both towers and the embedding grow."""
        _check_ascending(small, large, self.model)


def recipe_class(values: Mapping[str, Any]) -> type[ChainRecipe]:
    """The class of a recipe, by what it says of task and family.

    Raises:
        HfChainError: for a task or a family that is not known.
    """
    task, family = values.get("task", "contrastive"), values.get("family", "clip")
    if (task, family) == ("contrastive", "clip"):
        return Recipe
    return family_recipe(str(task), str(family))


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> ChainRecipe:
    """Reads and checks a recipe.

    Args:
        path (`str` or `Path`): the YAML file.
        overrides (`Sequence[str]`): values to replace, as `section.field=value`; a member is named by its name
            (`members.small.epochs=4`) and the value is read as YAML.

    Raises:
        HfChainError: when the file is missing, is no YAML, or says something that is not allowed.
    """
    values = read_values(path, overrides)
    return validated(recipe_class(values), values, origin=str(path))


def parse_recipe(text: str, overrides: Sequence[str] = (), origin: str = "recipe") -> ChainRecipe:
    """Like `load_recipe`, from the text itself; `origin` names it in errors."""
    values = parse_values(text, overrides, origin)
    return validated(recipe_class(values), values, origin)


def _check_ascending(small: ClipMemberSettings, large: ClipMemberSettings, model: ModelSettings) -> None:
    for tower in ("vision", "text"):
        before, after = getattr(small, tower), getattr(large, tower)
        for field in ("hidden_size", "num_hidden_layers"):
            if getattr(after, field) < getattr(before, field):
                raise ValueError(
                    f"members.{large.name}.{tower}.{field} is {getattr(after, field)}, smaller than "
                    f"{getattr(before, field)} of {small.name} before it; order the members from small to large"
                )
        if after.mlp_size < before.mlp_size:
            raise ValueError(
                f"members.{large.name}.{tower}.intermediate_size is {after.mlp_size}, smaller than {before.mlp_size} "
                f"of {small.name} before it; order the members from small to large"
            )
    if (large.projection_dim or model.projection_dim) < (small.projection_dim or model.projection_dim):
        raise ValueError(
            f"members.{large.name}.projection_dim is {large.projection_dim or model.projection_dim}, smaller than "
            f"{small.projection_dim or model.projection_dim} of {small.name} before it; it can only grow"
        )
