"""What the recipes of all chains have: one YAML file that says which family is trained on which data, and how."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from hf_chain.hub.settings import HubSettings
from hf_chain.methods.chain.rates import RateRules
from hf_chain.methods.chain.until import UntilSettings, check_until
from hf_chain.runs.training_fields import check_training
from hf_chain.settings import LARGEST_SEED, MOST_EPOCHS, FolderName, Settings, expanded
from hf_chain.tasks import feature_loss_weight, find_paradigm
from hf_chain.tasks.paradigm import Paradigm
from hf_chain.tasks.values import UsualFields, check_values_of

Operator = Literal["exact", "copy", "copy_fused", "stack", "interpolate", "random"]


class TokenizerSettings(Settings):
    """Where the tokenizer comes from."""

    name_or_path: str | None = Field(
        None, description="Hub name or folder of a tokenizer; null trains one on the data."
    )
    vocab_size: int = Field(2_000, ge=257, description="Largest size of a tokenizer that is trained.")

    _paths = field_validator("name_or_path")(expanded)


class MemberSettings(Settings):
    """One member of a family, whatever it is."""

    name: FolderName = Field(description="Name of the member; part of its folder and repository name.")
    epochs: float = Field(gt=0, le=MOST_EPOCHS, description="Passes over the training data.")
    grown_from: str | None = Field(None, description="Member it grows from; null takes the one before it.")
    operator: Operator | None = Field(None, description="Growth operator; null takes the one of the recipe.")
    until: UntilSettings | None = Field(
        None, description="What ends its training before its epochs are over; null takes the one of the recipe."
    )
    training: dict[str, Any] = Field({}, description="`ChainConfig` fields of this member, over those of the recipe.")
    training_alone: dict[str, Any] = Field(
        {}, description="Further `ChainConfig` fields where it is trained from scratch, which suits higher rates."
    )


class ChainRecipe(Settings):
    """What the recipes of all tasks have."""

    name: FolderName = Field(description="Name of the run; its folder is `<output_dir>/<name>`.")
    task: str = Field("contrastive", description="The pre-training paradigm, one of `tasks.TASKS`.")
    family: str = Field("clip", description="The architecture, by its `model_type` in transformers.")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Seed of weights, data order and growth.")
    output_dir: str = Field("runs", min_length=1, description="Folder of all runs.")
    data: Any = Field(description="The training and evaluation data.")
    tokenizer: TokenizerSettings = Field(TokenizerSettings(), description="The tokenizer.")
    model: Any = Field(description="What all members share.")
    members: list[Any] = Field(min_length=1, description="The family, smallest member first.")
    predecessor: str | None = Field(
        None, description="Hub name or folder of a published model that the first member grows from."
    )
    operator: Operator = Field("exact", description="Growth operator of all members after the first.")
    optimizer_state: bool = Field(
        True, description="Let AdamW's state grow with the weights of a predecessor that has a trunk."
    )
    until: UntilSettings | None = Field(
        None, description="What ends the training of members that name none of their own."
    )
    training: dict[str, Any] = Field({}, description="`ChainConfig` fields, the same for all members.")
    rates: RateRules = Field(RateRules(), description="Rules for the learning rates and warm-ups of members.")
    cache_teacher_features: bool = Field(False, description="Store the teacher's features on disk before training.")
    independent: bool = Field(False, description="Train every member from scratch, as the baseline of a chain.")
    baseline_epochs: float | None = Field(
        None,
        gt=0,
        le=MOST_EPOCHS,
        description="Epochs of independent training, for the plan; null takes the first member's.",
    )
    evaluation: Any = Field(description="What is evaluated, on which splits.")
    hub: HubSettings = Field(HubSettings(), description="Where members are pushed.")

    _paths = field_validator("output_dir", "predecessor")(expanded)

    @model_validator(mode="after")
    def _members_form_a_chain(self) -> ChainRecipe:
        names = self.step_names
        for index, member in enumerate(self.members):
            if names.count(member.name) > 1:
                raise ValueError(f"members has {member.name!r} twice; give every member a name of its own")
            if member.grown_from is not None and member.grown_from not in names[:index]:
                raise ValueError(
                    f"members.{member.name}.grown_from is {member.grown_from!r}, no member before it; "
                    f"use {' or '.join(names[:index]) or 'predecessor of the recipe'}"
                )
            self.check_shape(member)
        for member in self.members:
            if (before := self.parent_of(member)) is not None:
                self.check_ascending(before, member)
        self._check_training(self.training, "training")
        for member in self.members:
            self._check_training(self.training_of(member), f"members.{member.name}.training", member.training)
            self._check_training(member.training_alone, f"members.{member.name}.training_alone")
        return self

    def check_shape(self, member: Any) -> None:
        """Refuses sizes that no model can have.

        Raises:
            ValueError: naming the field.
        """

    def check_ascending(self, small: Any, large: Any) -> None:
        """Refuses a member that is smaller than the one it grows from.

        Raises:
            ValueError: naming the field.
        """

    def _check_training(self, values: dict[str, Any], where: str, own: dict[str, Any] | None = None) -> None:
        def checked(check: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
            return lambda values: check({"task": self.task, **values})

        with suppress(ValueError):
            return check_training(values, where, UsualFields, checked(partial(check_values_of, UsualFields)), own)
        # Only now, as it starts torch.
        from hf_chain.trainer.chain_config import ChainConfig, check_values

        check_training(values, where, ChainConfig, checked(check_values), own)

    @model_validator(mode="after")
    def _members_have_repositories(self) -> ChainRecipe:
        self.hub.check_names(self.step_names, "members")
        return self

    @model_validator(mode="after")
    def _evaluated_splits_are_loaded(self) -> ChainRecipe:
        for split in self.evaluation.splits:
            if split not in ("train", "validation", *self.data.test_splits):
                raise ValueError(
                    f"evaluation.splits has {split!r}; use train, validation or one of data.test_splits "
                    f"({', '.join(self.data.test_splits) or 'which is empty'})"
                )
        return self

    @model_validator(mode="after")
    def _targets_can_be_measured(self) -> ChainRecipe:
        check_until(self)
        return self

    @model_validator(mode="after")
    def _a_baseline_is_made_by_its_flag(self) -> ChainRecipe:
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
    def _teacher_features_can_be_cached(self) -> ChainRecipe:
        if self.cache_teacher_features and self.data.streaming:
            raise ValueError("cache_teacher_features is true, but data.streaming too; set one of them to false")
        if self.cache_teacher_features and find_paradigm(self.task).mask_is_drawn:
            raise ValueError(
                f"cache_teacher_features is true, but the teacher of {self.task} sees another mask at every step; set "
                "it to false"
            )
        augmentation = getattr(self.data, "augmentation", None)
        if self.cache_teacher_features and augmentation and augmentation.enabled and not self.data.image_views:
            raise ValueError(
                "cache_teacher_features is true, but data.augmentation draws a new view each epoch; "
                "set data.image_views to 1 or more"
            )
        return self

    @property
    def paradigm(self) -> Paradigm:
        """What the task brings to this recipe."""
        return find_paradigm(self.task, self.family)(self)

    @property
    def published(self) -> str | None:
        """The published model that the first member grows from, where it does."""
        return None if self.independent else self.predecessor

    @property
    def evaluated_splits(self) -> list[str]:
        """Names of the splits every member is evaluated on."""
        return list(dict.fromkeys([*self.evaluation.splits, *self.data.test_splits]))

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

    def parent_of(self, member: Any) -> Any:
        """The member that another one grows from; `None` where it is the first, or trained from scratch."""
        index = self.step_names.index(member.name)
        if self.independent or index == 0:
            return None
        before = self.step_names.index(member.grown_from) if member.grown_from else index - 1
        return self.members[before]

    def operator_of(self, member: Any) -> str | None:
        """The operator that a member grows by; `None` where it is trained from scratch."""
        if self.parent_of(member) is None and (member is not self.members[0] or self.published is None):
            return None
        return member.operator or self.operator

    def training_of_step(self, name: str) -> dict[str, Any]:
        """`ChainConfig` fields of the member called `name`."""
        return self.training_of(self.members[self.step_names.index(name)])

    def training_of(self, member: Any) -> dict[str, Any]:
        """`ChainConfig` fields of a member: the recipe's, those of its rules for rates, then its own."""
        ruled = self.rates.fields(self.training, self.members[0], member, self.operator_of(member) is not None)
        return {**self.training, **ruled, **member.training}

    def until_of(self, member: Any) -> UntilSettings | None:
        """What ends the training of a member before its epochs are over: its own, or the recipe's."""
        until: UntilSettings | None = member.until or self.until
        return until

    def is_taught(self, member: Any) -> bool:
        """Whether a member has a teacher."""
        weight = feature_loss_weight({"task": self.task, **self.training_of(member)})
        return self.operator_of(member) is not None and weight > 0

    def as_independent(self) -> Self:
        """The baseline of this chain: same members, data and training, each from scratch for all baseline epochs."""
        epochs = self.baseline_epochs or self.members[0].epochs
        members = [
            member.model_copy(
                update={"epochs": epochs, "training": member.training | member.training_alone, "training_alone": {}}
                | {"until": None}
            )
            for member in self.members
        ]
        update = {"name": f"{self.name}-independent", "independent": True, "predecessor": None, "members": members}
        return self.model_copy(update=update | {"until": None})

    def to_yaml(self) -> str:
        """The recipe as YAML, without fields that have their default value."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)
