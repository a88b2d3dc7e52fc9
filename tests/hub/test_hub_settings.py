"""The `hub` section of a recipe."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from hf_chain.hub import HubSettings


def test_members_are_named_after_the_prefix() -> None:
    assert HubSettings(push=True, prefix="user/scenes").repo_id("tiny") == "user/scenes-tiny"
    assert HubSettings().repo_id("tiny") is None


@pytest.mark.parametrize(
    "prefix", ["scenes", "a/b/c", "user/sce nes", "user/--scenes", "/scenes", "user/", "user/a..b"]
)
def test_a_malformed_prefix_is_named_with_what_is_allowed(prefix: str) -> None:
    with pytest.raises(ValidationError, match=r"prefix: '.*' is no repository name; write user/name"):
        HubSettings(prefix=prefix)


def test_pushing_needs_a_prefix() -> None:
    with pytest.raises(ValidationError, match="prefix: needed to push"):
        HubSettings(push=True)


@pytest.mark.parametrize("value", ["license", "Apache 2.0", ""])
def test_a_placeholder_is_no_licence(value: str) -> None:
    with pytest.raises(ValidationError, match="license: '.*' is no licence of the Hub"):
        HubSettings(license=value)


def test_a_data_set_may_have_no_namespace() -> None:
    assert HubSettings(dataset="mnist").dataset == "mnist"
    with pytest.raises(ValidationError, match="dataset: './data' is no repository name"):
        HubSettings(dataset="./data")


def test_a_recipe_is_read_without_starting_torch_or_the_client_of_the_hub() -> None:
    code = (
        "import sys, hf_chain.hub.settings; assert not {'torch', 'huggingface_hub', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
