"""What cards and pushed recipes give away of a machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from hf_chain.cli.arguments import typed_command
from hf_chain.hub.card import public_recipe


def test_a_recipe_keeps_the_last_part_of_absolute_paths() -> None:
    data = {"source": "me/pairs", "data_files": ["/data/a.json", "b/c.json"]}
    recipe = {"output_dir": "/home/me/runs", "data": data}
    assert yaml.safe_load(public_recipe(recipe | {"seed": 0})) == {
        "output_dir": "runs",
        "data": {"source": "me/pairs", "data_files": ["a.json", "b/c.json"]},
        "seed": 0,
    }


def test_a_command_is_the_one_that_was_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = [
        "surrogate",
        str(tmp_path / "a model"),
        "out",
        f"--data={tmp_path / 'x.txt'}",
        "--samples",
        "1000",
        "runs/tiny",
    ]
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/hf-chain", *words])
    assert typed_command() == "hf-chain surrogate 'a model' out --data=x.txt --samples 1000 runs/tiny"
