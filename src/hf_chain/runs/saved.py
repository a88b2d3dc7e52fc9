"""Whether a member or stage is done: the ledger says so, and its folder is what the ledger means."""

from __future__ import annotations

from pathlib import Path

from hf_chain.errors import HfChainError
from hf_chain.files import CARD_NAME, MANIFEST_NAME, check_whole, file_sha256, weights_sha256
from hf_chain.runs.ledger import MemberRecord

REMEDY = "restore it, or remove that folder to make it again"


def saved_fields(folder: Path) -> dict[str, str]:
    """What the ledger notes of a folder that `whole_folder` has finished.

    Args:
        folder (`Path`): the member or stage.
    """
    return {
        "folder": folder.name,
        "weights_sha256": weights_sha256(folder),
        "manifest_sha256": manifest_sha256(folder),
        "card_sha256": file_sha256(folder / CARD_NAME),
    }


def is_saved(record: MemberRecord, folder: Path) -> bool:
    """Whether a member or stage is done; `check_saved` reads what is in its folder."""
    return record.saved and folder.is_dir()


def check_saved(record: MemberRecord, folder: Path) -> None:
    """Refuses a saved folder that is not what was saved. Reads each of its files once.

    Args:
        record (`MemberRecord`): what the ledger knows of the member or stage.
        folder (`Path`): its folder.

    Raises:
        HfChainError: naming the folder, what differs and the remedy.
    """
    if not record.manifest_sha256:
        # Saved by an hf_chain that wrote no manifests.
        if weights_sha256(folder) != record.weights_sha256:
            raise HfChainError(f"{folder} is damaged (its weights have changed): {REMEDY}")
        return
    check_manifest(folder, record.manifest_sha256, record.name)


def manifest_sha256(folder: Path) -> str:
    """Hash of the manifest of a folder that is whole."""
    return file_sha256(folder / MANIFEST_NAME)


def check_manifest(folder: Path, expected: str, name: str) -> None:
    """Refuses a folder that is not what its manifest says, or another one than the ledger means.

    Args:
        folder (`Path`): the folder.
        expected (`str`): hash of its manifest, of the ledger.
        name (`str`): what was saved there.

    Raises:
        HfChainError: naming the folder, what differs and the remedy.
    """
    check_whole(folder, REMEDY)
    if manifest_sha256(folder) != expected:
        raise HfChainError(f"{folder} is not what {name} was saved as, but another whole folder: {REMEDY}")
