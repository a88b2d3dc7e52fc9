"""The recipe: one YAML file that says which family is trained on which data, and how."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from hf_chain.data.settings import DataSettings
from hf_chain.errors import HfChainError
from hf_chain.evaluation.settings import EvaluationSettings
from hf_chain.hub.settings import HubSettings
from hf_chain.settings import Settings
from hf_chain.stages.shapes import ModelSettings, TowerSettings

Operator = Literal["exact", "copy", "copy_fused", "stack", "interpolate", "random"]


class TokenizerSettings(Settings):
    """Where the tokenizer comes from."""

    name_or_path: str | None = Field(
        None, description="Hub name or folder of a tokenizer; null trains one on the captions."
    )
    vocab_size: int = Field(2_000, ge=300, description="Largest size of a tokenizer that is trained.")


class MemberSettings(Settings):
    """One member of the family."""

    name: str = Field(description="Name of the member; part of its folder and repository name.")
    vision: TowerSettings = Field(description="Shape of the image tower.")
    text: TowerSettings = Field(description="Shape of the text tower.")
    projection_dim: int | None = Field(None, ge=1, description="Embedding size; null takes the one of `model`.")
    epochs: float = Field(gt=0, description="Passes over the training data.")
    operator: Operator | None = Field(None, description="Growth operator; null takes the one of the recipe.")
    training: dict[str, Any] = Field({}, description="`ChainConfig` fields of this member, over those of the recipe.")

    @field_validator("name")
    @classmethod
    def _name_fits_a_folder(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError(f"name is {value!r}; use letters, digits, '.', '_' and '-', starting with a letter or digit")
        return value


class Recipe(Settings):
    """Everything that decides what a run produces."""

    name: str = Field(description="Name of the run; its folder is `<output_dir>/<name>`.")
    seed: int = Field(0, ge=0, description="Seed of weights, data order and growth.")
    output_dir: str = Field("runs", description="Folder of all runs.")
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
        None, gt=0, description="Epochs of independent training, for the plan; null takes the first member's."
    )
    evaluation: EvaluationSettings = Field(EvaluationSettings(), description="What is evaluated, on which splits.")
    hub: HubSettings = Field(HubSettings(), description="Where members are pushed.")

    @field_validator("name")
    @classmethod
    def _name_fits_a_folder(cls, value: str) -> str:
        return MemberSettings._name_fits_a_folder(value)

    @model_validator(mode="after")
    def _members_form_a_chain(self) -> Recipe:
        names = [member.name for member in self.members]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"members has {name!r} twice; give every member a name of its own")
        for small, large in zip(self.members, self.members[1:], strict=False):
            _check_ascending(small, large, self.model)
        _check_training(self.training, "training")
        for member in self.members:
            _check_training(self.training_of(member), f"members.{member.name}.training")
        return self

    @cached_property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return Path(self.output_dir) / self.name

    def folder_name(self, index: int) -> str:
        """Folder of a member inside the run, such as `02-small` for index 1."""
        return f"{index + 1:02d}-{self.members[index].name}"

    def training_of(self, member: MemberSettings) -> dict[str, Any]:
        """`ChainConfig` fields of a member: the recipe's, then its own."""
        return {**self.training, **member.training}

    def as_independent(self) -> Recipe:
        """The baseline of this chain: same members, data and training, each from scratch for the baseline epochs."""
        epochs = self.baseline_epochs or self.members[0].epochs
        members = [member.model_copy(update={"epochs": epochs}) for member in self.members]
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
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HfChainError(f"Recipe {path} cannot be read ({error}): give the path of a YAML file") from error
    return parse_recipe(text, overrides, origin=str(path))


def parse_recipe(text: str, overrides: Sequence[str] = (), origin: str = "recipe") -> Recipe:
    """Like `load_recipe`, from the text itself; `origin` names it in errors."""
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise HfChainError(f"{origin} is no valid YAML{line}: {getattr(error, 'problem', error)}") from error
    if not isinstance(values, dict):
        raise HfChainError(f"{origin} holds {type(values).__name__}, not a mapping: start with `name:`, `data:`, …")
    for override in overrides:
        _override(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise HfChainError(f"{origin}: {_first_problem(error)}") from error


def _check_training(values: dict[str, Any], where: str) -> None:
    from hf_chain.trainer.chain_config import check_values, known_fields

    for name in values:
        if name in RUNNER_FIELDS:
            raise ValueError(f"{where}.{name} is set by the runner; {RUNNER_FIELDS[name]}")
        if name not in known_fields():
            raise ValueError(f"{where}.{name} is unknown{_suggestion(name, known_fields())}")
    try:
        check_values(values)
    except HfChainError as error:
        raise ValueError(f"{where}: {error}") from error


RUNNER_FIELDS = {
    "output_dir": "use `output_dir` and `name` of the recipe",
    "num_train_epochs": "use `epochs` of the member",
    "max_steps": "use `epochs` of the member",
    "seed": "use `seed` of the recipe",
    "data_seed": "use `seed` of the recipe",
    "push_to_hub": "use `hub.push`",
    "use_cpu": "it follows from the machine",
    "remove_unused_columns": "the collator needs every column",
}
"""`ChainConfig` fields that the runner fills, and what to use instead."""


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-3` is a number, as in YAML 1.2, and not a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)


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
            f"members.{large.name}.projection_dim is smaller than that of {small.name} before it; it can only grow"
        )


def _override(values: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise HfChainError(f"Override {override!r} has no '=': write section.field=value")
    *parents, last = path.split(".")
    target: Any = values
    for key in parents:
        if isinstance(target, list):
            target = next((item for item in target if isinstance(item, dict) and item.get("name") == key), None)
        elif isinstance(target, dict):
            target = target.setdefault(key, {})
        if not isinstance(target, (dict, list)):
            raise HfChainError(f"Override {override!r}: there is no {key!r} in the recipe")
    if not isinstance(target, dict):
        raise HfChainError(f"Override {override!r}: name a member and its field, such as members.small.epochs=4")
    target[last] = yaml.load(text, Loader=_Loader)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        return f"{place} is unknown{_suggestion(str(problem['loc'][-1]), _fields_at(problem['loc'][:-1]))}{more}"
    if problem["type"] == "missing":
        return f"{place} is missing{more}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{place + ': ' if place else ''}{message}{more}"
    return f"{place} is {problem['input']!r}: {message[0].lower()}{message[1:]}{more}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    schema: Any = Recipe
    for part in location:
        if isinstance(part, str):
            annotation = schema.model_fields[part].annotation
            inner = getattr(annotation, "__args__", (annotation,))
            schema = next((item for item in inner if isinstance(item, type) and issubclass(item, Settings)), Recipe)
    return list(schema.model_fields)


def _suggestion(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known)[:12])}" + (
        ", …" if len(known) > 12 else ""
    )
