"""The recipe: one YAML file that says which family is trained on which data, and how."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from hf_chain.data.settings import DataSettings
from hf_chain.evaluation.settings import EvaluationSettings
from hf_chain.hub.settings import HubSettings
from hf_chain.methods.chain.shapes import ModelSettings, TowerSettings
from hf_chain.runs.recipe_file import parse_values, read_values, validated
from hf_chain.runs.training_fields import check_training
from hf_chain.settings import LARGEST_SEED, MOST_EPOCHS, FolderName, Settings, expanded
from hf_chain.tasks.values import UsualFields, check_values_of

Operator = Literal["exact", "copy", "copy_fused", "stack", "interpolate", "random"]


class TokenizerSettings(Settings):
    """Where the tokenizer comes from."""

    name_or_path: str | None = Field(
        None, description="Hub name or folder of a tokenizer; null trains one on the captions."
    )
    vocab_size: int = Field(2_000, ge=514, description="Largest size of a tokenizer that is trained.")

    _paths = field_validator("name_or_path")(expanded)


class MemberSettings(Settings):
    """One member of the family."""

    name: FolderName = Field(description="Name of the member; part of its folder and repository name.")
    vision: TowerSettings = Field(description="Shape of the image tower.")
    text: TowerSettings = Field(description="Shape of the text tower.")
    projection_dim: int | None = Field(None, ge=1, description="Embedding size; null takes the one of `model`.")
    epochs: float = Field(gt=0, le=MOST_EPOCHS, description="Passes over the training data.")
    operator: Operator | None = Field(None, description="Growth operator; null takes the one of the recipe.")
    training: dict[str, Any] = Field({}, description="`ChainConfig` fields of this member, over those of the recipe.")
    training_alone: dict[str, Any] = Field(
        {}, description="Further `ChainConfig` fields where it is trained from scratch, which suits higher rates."
    )


class Recipe(Settings):
    """Everything that decides what a run produces."""

    name: FolderName = Field(description="Name of the run; its folder is `<output_dir>/<name>`.")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Seed of weights, data order and growth.")
    output_dir: str = Field("runs", min_length=1, description="Folder of all runs.")
    data: DataSettings = Field(description="The training and evaluation data.")
    tokenizer: TokenizerSettings = Field(TokenizerSettings(), description="The tokenizer.")
    model: ModelSettings = Field(description="What all members share.")
    members: list[MemberSettings] = Field(min_length=1, description="The family, smallest member first.")
    predecessor: str | None = Field(
        None, description="Hub name or folder of a published CLIP that the first member grows from."
    )
    operator: Operator = Field("exact", description="Growth operator of all members after the first.")
    training: dict[str, Any] = Field({}, description="`ChainConfig` fields, the same for all members.")
    cache_teacher_features: bool = Field(False, description="Store the teacher's features on disk before training.")
    independent: bool = Field(False, description="Train every member from scratch, as the baseline of a chain.")
    baseline_epochs: float | None = Field(
        None,
        gt=0,
        le=MOST_EPOCHS,
        description="Epochs of independent training, for the plan; null takes the first member's.",
    )
    evaluation: EvaluationSettings = Field(EvaluationSettings(), description="What is evaluated, on which splits.")
    hub: HubSettings = Field(HubSettings(), description="Where members are pushed.")

    _paths = field_validator("output_dir", "predecessor")(expanded)

    @model_validator(mode="after")
    def _members_form_a_chain(self) -> Recipe:
        names = [member.name for member in self.members]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"members has {name!r} twice; give every member a name of its own")
        for member in self.members:
            _check_heads(member, self.model)
        for small, large in zip(self.members, self.members[1:], strict=False):
            _check_ascending(small, large, self.model)
        _check_training(self.training, "training")
        for member in self.members:
            _check_training(self.training_of(member), f"members.{member.name}.training", member.training)
            _check_training(member.training_alone, f"members.{member.name}.training_alone")
        return self

    @model_validator(mode="after")
    def _members_have_repositories(self) -> Recipe:
        self.hub.check_names([member.name for member in self.members], "members")
        return self

    @model_validator(mode="after")
    def _evaluated_splits_are_loaded(self) -> Recipe:
        for split in self.evaluation.splits:
            if split not in ("train", "validation", *self.data.test_splits):
                raise ValueError(
                    f"evaluation.splits has {split!r}; use train, validation or one of data.test_splits "
                    f"({', '.join(self.data.test_splits) or 'which is empty'})"
                )
        return self

    @model_validator(mode="after")
    def _a_baseline_is_made_by_its_flag(self) -> Recipe:
        if self.independent:
            ignored = {
                "predecessor": self.predecessor,
                "baseline_epochs": any(member.epochs != self.baseline_epochs for member in self.members)
                and self.baseline_epochs,
                "training_alone": any(member.training_alone for member in self.members),
            }
            if found := next((name for name, value in ignored.items() if value), None):
                raise ValueError(
                    f"independent is true, which leaves {found} unused; leave it out and run with --independent"
                )
        return self

    @model_validator(mode="after")
    def _teacher_features_can_be_cached(self) -> Recipe:
        if self.cache_teacher_features and self.data.streaming:
            raise ValueError("cache_teacher_features is true, but data.streaming too; set one of them to false")
        if self.cache_teacher_features and self.data.augmentation.enabled and not self.data.image_views:
            raise ValueError(
                "cache_teacher_features is true, but data.augmentation draws a new view each epoch; "
                "set data.image_views to 1 or more"
            )
        return self

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return Path(self.output_dir) / self.name

    def folder_name(self, index: int) -> str:
        """Folder of a member inside the run, such as `02-small` for index 1."""
        return f"{index + 1:02d}-{self.members[index].name}"

    @property
    def step_names(self) -> list[str]:
        """All members, smallest first."""
        return [member.name for member in self.members]

    def training_of_step(self, name: str) -> dict[str, Any]:
        """`ChainConfig` fields of the member called `name`."""
        return self.training_of(self.members[self.step_names.index(name)])

    def training_of(self, member: MemberSettings) -> dict[str, Any]:
        """`ChainConfig` fields of a member: the recipe's, then its own."""
        return {**self.training, **member.training}

    def as_independent(self) -> Recipe:
        """The baseline of this chain: same members, data and training, each from scratch for the baseline epochs."""
        epochs = self.baseline_epochs or self.members[0].epochs
        members = [
            member.model_copy(
                update={"epochs": epochs, "training": member.training | member.training_alone, "training_alone": {}}
            )
            for member in self.members
        ]
        update = {"name": f"{self.name}-independent", "independent": True, "predecessor": None, "members": members}
        return self.model_copy(update=update)

    def to_yaml(self) -> str:
        """The recipe as YAML, without fields that have their default value."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path (`str` or `Path`): the YAML file.
        overrides (`Sequence[str]`): values to replace, as `section.field=value`; a member is named by its name
            (`members.small.epochs=4`) and the value is read as YAML.

    Raises:
        HfChainError: when the file is missing, is no YAML, or says something that is not allowed.
    """
    values = read_values(path, overrides)
    return validated(Recipe, values, origin=str(path))


def parse_recipe(text: str, overrides: Sequence[str] = (), origin: str = "recipe") -> Recipe:
    """Like `load_recipe`, from the text itself; `origin` names it in errors."""
    return validated(Recipe, parse_values(text, overrides, origin), origin)


def _check_training(values: dict[str, Any], where: str, own: dict[str, Any] | None = None) -> None:
    with suppress(ValueError):
        return check_training(values, where, UsualFields, partial(check_values_of, UsualFields), own)
    # Only now, as it starts torch.
    from hf_chain.trainer.chain_config import ChainConfig, check_values

    check_training(values, where, ChainConfig, check_values, own)


def _check_heads(member: MemberSettings, model: ModelSettings) -> None:
    for tower in ("vision", "text"):
        try:
            getattr(member, tower).heads(model.head_size)
        except ValueError as error:
            raise ValueError(f"members.{member.name}.{tower}.{error}") from error


def _check_ascending(small: MemberSettings, large: MemberSettings, model: ModelSettings) -> None:
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
