"""Folders are written whole, brought to disk before they count, and known again by their manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_chain.errors import HfChainError
from hf_chain.files import check_whole, first_difference, model_sha256, whole_folder, write_manifest
from support.damage import DAMAGES, flip

NAMES = ("config.json", "lora/adapter.safetensors", "model.safetensors", "manifest.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a model with an adapter and a card."""
    with whole_folder(tmp_path / "model") as staging:
        (staging / "lora").mkdir()
        for name in NAMES[:3]:
            (staging / name).write_bytes(name.encode() * 100)
        (staging / "README.md").write_text("a card")
    return tmp_path / "model"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", NAMES)
def test_damage_to_any_file_is_named(folder: Path, name: str, damage: str) -> None:
    assert first_difference(folder) is None
    DAMAGES[damage](folder / name)
    # A flipped bit in a manifest may spoil what it says of another file.
    expected = r"manifest.json|has changed|bytes" if name == "manifest.json" else name
    with pytest.raises(HfChainError, match=expected) as error:
        check_whole(folder, "make it again")
    assert str(error.value).startswith(f"{folder} is damaged (") and str(error.value).endswith("): make it again")


@pytest.mark.parametrize("manifest", [True, False])
def test_another_model_in_a_folder_is_another_one_and_another_card_is_none(folder: Path, manifest: bool) -> None:
    if not manifest:
        (folder / "manifest.json").unlink()
    before = model_sha256(folder)
    (folder / "README.md").write_text("another card")
    assert model_sha256(folder) == before
    flip(folder / "model.safetensors")
    if manifest:
        write_manifest(folder)
    assert model_sha256(folder) != before


@pytest.mark.parametrize("content", ["[]", '{"files": 3}', '{"files": {"a": 1}}', "[" * 100_000, "\udcff"])
def test_a_manifest_of_any_content_is_refused_and_no_exception(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert first_difference(folder) == "manifest.json cannot be read"


def test_cards_and_notes_may_change_and_what_is_loaded_may_not_come_in(folder: Path) -> None:
    (folder / "README.md").write_text("edited")
    (folder / "notes.txt").write_text("mine")
    assert first_difference(folder) is None
    for name in ("adapter_config.json", "tokenizer.model", "merges.txt"):
        (folder / name).write_text("{}")
        assert first_difference(folder) == f"{name} was not there when it was written"
        (folder / name).unlink()


@pytest.mark.parametrize("name", ["merges.txt", "vocab.txt", "tokenizer.model", "chat_template.jinja"])
def test_another_tokenizer_of_any_kind_makes_another_model(folder: Path, name: str) -> None:
    (folder / "manifest.json").unlink()
    (folder / name).write_text("a b")
    before = model_sha256(folder)
    (folder / name).write_text("b a")
    assert model_sha256(folder) != before


def test_sizes_alone_are_compared_on_request(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(folder / "model.safetensors")
    monkeypatch.setenv("HF_CHAIN_VERIFY", "size")
    assert first_difference(folder) is None
    (folder / "model.safetensors").write_bytes(b"short")
    assert first_difference(folder) == "model.safetensors has 5 bytes, not 1700"
    write_manifest(folder)
    assert json.loads((folder / "manifest.json").read_text())["files"]["config.json"]["sha256"] is None
    monkeypatch.setenv("HF_CHAIN_VERIFY", "maybe")
    with pytest.raises(HfChainError, match="HF_CHAIN_VERIFY is 'maybe': set it to sha256, or to size"):
        first_difference(folder)


def test_files_and_their_folder_are_on_disk_before_the_folder_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations: list[tuple[str, str]] = []

    def record(name: str, called: Callable[..., object], path_of: Callable[[object], str]) -> None:
        def recorded(what: object, *more: object) -> object:
            operations.append((name, Path(path_of(what)).name))
            return called(what, *more)

        monkeypatch.setattr(os, name, recorded)

    record("fsync", os.fsync, lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}"))
    record("replace", os.replace, str)
    with whole_folder(tmp_path / "model") as staging:
        (staging / "lora").mkdir()
        (staging / "lora" / "adapter.safetensors").write_bytes(b"weights")
        (staging / "config.json").write_bytes(b"{}")
    assert operations == [
        ("fsync", "config.json"),
        ("fsync", "adapter.safetensors"),
        ("fsync", "lora"),
        ("fsync", ".manifest.json.partial"),
        ("replace", ".manifest.json.partial"),
        ("fsync", ".model.partial"),
        ("fsync", tmp_path.name),
        ("replace", ".model.partial"),
        ("fsync", tmp_path.name),
    ]
