"""Tests see neither what lies in the checkout nor what is in a user's caches and settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import accelerate.commands.config.config_args as accelerate_settings
import datasets
import huggingface_hub.constants as hub
import matplotlib
import pytest
import torch

from support.own_home import MADE
from support.recipes import REPOSITORY


@pytest.fixture(scope="module")
def folder_of_a_module_fixture() -> Path:
    return Path.cwd()


def test_a_test_and_its_fixtures_begin_in_an_empty_folder(folder_of_a_module_fixture: Path) -> None:
    assert os.listdir() == [] and REPOSITORY not in Path.cwd().parents
    assert folder_of_a_module_fixture == Path.cwd()
    Path("left").touch()


def test_nothing_is_there_that_another_test_left() -> None:
    assert os.listdir() == []


def test_caches_settings_and_tokens_are_those_of_the_session() -> None:
    made = Path(os.environ[MADE])
    places = [hub.HF_HUB_CACHE, hub.HF_TOKEN_PATH, datasets.config.HF_DATASETS_CACHE, matplotlib.get_cachedir()]
    places += [
        torch.hub.get_dir(),
        accelerate_settings.default_yaml_config_file,
        os.environ["TORCHINDUCTOR_CACHE_DIR"],
    ]
    assert Path.home() == made
    assert [place for place in places if made not in Path(place).parents] == []


def test_variables_of_the_user_do_not_lead_elsewhere(tmp_path: Path) -> None:
    code = (
        "from support.own_home import enter_own_home; enter_own_home()\n"
        "import datasets; print(datasets.config.HF_DATASETS_CACHE)"
    )
    variables = {name: str(tmp_path / "mine") for name in ("HF_HOME", "HF_DATASETS_CACHE", "XDG_CACHE_HOME")}
    variables |= {"PYTHONPATH": str(REPOSITORY / "tests"), "HF_TOKEN": "secret"}
    kept = {name: value for name, value in os.environ.items() if name != MADE}
    found = subprocess.run(
        [sys.executable, "-c", code], env=kept | variables, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert str(tmp_path) not in found
    assert not Path(found).parents[2].exists(), "the session's home is removed at its end"
