"""What a recipe says about the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hf_chain.settings import Settings

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


class HubSettings(Settings):
    """The `hub` section of a recipe; without it members stay local and their cards claim nothing about the Hub."""

    push: bool = Field(False, description="Push each member to a repository of its own once it is saved.")
    prefix: str | None = Field(
        None, description="Start of the repository names: with user/scenes the member tiny goes to user/scenes-tiny."
    )
    private: bool | None = Field(
        None,
        description="Create private repositories, and push to no public one; false creates public ones, and null what "
        "the namespace's own rule says.",
    )
    license: str | None = Field(
        None, description="Licence of the weights as the Hub writes it, such as apache-2.0; null leaves it out."
    )
    dataset: str | None = Field(None, description="Hub name of the training data, for the card; null leaves it out.")
    language: str | None = Field(None, description="Language code of the captions, such as en; null leaves it out.")
    tags: list[str] = Field([], description="Further tags for the card.")
    trainable: bool = Field(
        False, description="Push `trainable.safetensors` too: what a stage of a graft trained, once more by itself."
    )
    timeout: float = Field(600.0, gt=0, description="Seconds after which one push is given up and left for later.")

    @field_validator("prefix", "dataset")
    @classmethod
    def _check_repo_id(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:
            check_repo_id(value, str(info.field_name), namespaced=info.field_name == "prefix")
        return value

    @field_validator("license")
    @classmethod
    def _check_license(cls, value: str | None) -> str | None:
        if value is not None and (value in ("license", "licence") or not _LICENSE.fullmatch(value)):
            raise ValueError(f"license: {value!r} is no licence of the Hub; give one such as apache-2.0 or cc-by-4.0")
        return value

    @model_validator(mode="after")
    def _check_prefix(self) -> HubSettings:
        if self.push and self.prefix is None:
            raise ValueError("prefix: needed to push; give the start of the repository names, such as user/scenes")
        return self

    def repo_id(self, member: str) -> str | None:
        """Repository of the member called `member`: `<prefix>-<member>`, or `None` while no prefix is set."""
        return f"{self.prefix}-{member}" if self.prefix else None

    def check_names(self, names: Iterable[str], section: str) -> None:
        """Checks, where members are pushed, that each can have a repository.

        Raises:
            ValueError: naming the member of the section whose name does not fit.
        """
        for name in names if self.push else ():
            check_repo_id(f"{self.prefix}-{name}", f"{section}.{name}.name")


def check_repo_id(value: str, field: str, namespaced: bool = True) -> None:
    """Checks that the Hub would take `value` as a repository name.

    Raises:
        ValueError: naming `field`, the value and what is allowed.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    form = "user/name" if namespaced else "user/name or name"
    wrong = ValueError(
        f"{field}: {value!r} is no repository name; write {form} with letters, digits, '-', '_' and '.', "
        "without '--' or '..', at most 96 characters"
    )
    if namespaced and value.count("/") != 1:
        raise wrong
    try:
        validate_repo_id(value)
    except HFValidationError as error:
        raise wrong from error
