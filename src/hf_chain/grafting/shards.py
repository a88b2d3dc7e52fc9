"""A checkpoint in safetensors shards, in a folder or on the Hub: what it holds, read one tensor at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from hf_chain.adapters import check_model_files
from hf_chain.errors import HfChainError, reason
from hf_chain.files import check_as_written
from hf_chain.loaded_weights import check_loaded, without_list_of_weights

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
)
LICENSE_FILES = ("LICENSE*", "NOTICE*", "USE_POLICY*")
_FIRST_FILES = ("config.json", "generation_config.json", SAFE_WEIGHTS_INDEX_NAME, *TOKENIZER_FILES, *LICENSE_FILES)
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose small files are on this machine.

    Args:
        name (`str`): what the user calls it: a folder or a Hub name.
        folder (`Path`): where its files are, or will be once fetched.
        revision (`str`, *optional*): its commit on the Hub; `None` for a folder.
    """

    name: str
    folder: Path
    revision: str | None

    def shards(self) -> dict[str, str]:
        """What the checkpoint holds: the name of every tensor -> the file it is in.

        Raises:
            HfChainError: when there are no weights in safetensors, or the index cannot be read.
        """
        index = self.folder / SAFE_WEIGHTS_INDEX_NAME
        # A whole file wins over an index, as in transformers.
        if not (self.folder / SAFE_WEIGHTS_NAME).exists() and index.exists():
            return _weight_map(index)
        self.fetch([SAFE_WEIGHTS_NAME])
        if not (self.folder / SAFE_WEIGHTS_NAME).exists():
            raise HfChainError(self._no_safetensors())
        with _opened(self.folder / SAFE_WEIGHTS_NAME) as file:
            return dict.fromkeys(file.keys(), SAFE_WEIGHTS_NAME)

    def fetch(self, files: Iterable[str]) -> None:
        """Downloads files that are not here yet; those the Hub does not have are left to the reader to miss.

        Args:
            files (`Iterable[str]`): their names in the repository.

        Raises:
            HfChainError: when the Hub does not answer.
        """
        if self.revision is not None:
            _download(self.name, self.revision, list(files))

    def tensors(self, shards: Mapping[str, str]) -> dict[str, LazyTensor]:
        """Tensors that are read when they are asked for; their shards are fetched now.

        Args:
            shards (`Mapping[str, str]`): name of a tensor -> its file, a part of what `shards()` gives.

        Returns:
            `dict[str, LazyTensor]`: the tensors by name.

        Raises:
            HfChainError: when a shard is missing or is no safetensors file, or lacks a tensor that it should hold.
        """
        files = sorted(set(shards.values()))
        self.fetch(files)
        for shard in files:
            path = self.folder / shard
            if not path.exists():
                raise HfChainError(f"{self.name} lacks its shard {shard}: download it again")
            with _opened(path) as file:
                missing = sorted({name for name, where in shards.items() if where == shard} - set(file.keys()))
            if missing:
                raise HfChainError(
                    f"{SAFE_WEIGHTS_INDEX_NAME} of {self.name} says {missing[0]} is in {shard}, but it is not:"
                    " download both again"
                )
        return {name: LazyTensor(self.folder / shard, name) for name, shard in shards.items()}

    def _no_safetensors(self) -> str:
        files = [path.name for path in self.folder.iterdir()]
        if self.revision is not None:
            # The answer only makes the message better.
            with suppress(Exception):
                files = HfApi().list_repo_files(self.name, revision=self.revision)
        other = next((name for name in sorted(files) if name.endswith((".bin", ".pt", ".pth", ".gguf"))), None)
        if other is None:
            return f"{self.name} holds no weights ({SAFE_WEIGHTS_NAME} or its index): give a whole model"
        return (
            f"{self.name} holds {other} and no safetensors, and other files are not read: save it with transformers'"
            " save_pretrained first, if you trust it"
        )


@dataclass(frozen=True)
class LazyTensor:
    """One tensor of a shard, in the form that `from_pretrained` takes for a value of a state dict.

    A read maps the file, copies the tensor and unmaps the file, so that the process holds nothing but the copy, and
    the copy does not change when the file does.

    Args:
        path (`Path`): the shard.
        name (`str`): the tensor's name in it.
    """

    path: Path
    name: str

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Reads the tensor, or a part of it."""
        with _opened(self.path) as file:
            return file.get_slice(self.name)[index].clone()

    def get_dtype(self) -> str:
        """The type as the file says it, such as `BF16`."""
        with _opened(self.path) as file:
            return file.get_slice(self.name).get_dtype()

    @property
    def dtype(self) -> torch.dtype:
        """The type; nothing is read."""
        with _opened(self.path) as file:
            return file.get_slice(self.name)[...].dtype


def open_checkpoint(target: str | Path, revision: str | None = None) -> Checkpoint:
    """Finds a checkpoint, and fetches its small files when it is on the Hub.

    Args:
        target (`str` or `Path`): folder or Hub name.
        revision (`str`, *optional*): branch, tag or commit on the Hub.

    Returns:
        `Checkpoint`: the checkpoint; no weights are read or downloaded yet.

    Raises:
        HfChainError: when there is no such folder or repository, or it is no model, or one with an adapter.
    """
    name = str(target)
    check_model_files(target, revision=revision)
    check_as_written(target)
    if is_folder(target):
        found = Checkpoint(name, Path(target).expanduser(), None)
    else:
        # The folder of a snapshot is called by its commit.
        folder = _download(name, revision, list(_FIRST_FILES))
        found = Checkpoint(name, folder, folder.name)
    if not (found.folder / "config.json").is_file():
        raise HfChainError(f"{name} holds no config.json, so it is no model: give the folder or the Hub name of one")
    return found


def is_folder(target: str | Path) -> bool:
    """Whether a model is in a folder, and not on the Hub.

    Args:
        target (`str` or `Path`): folder or Hub name.

    Returns:
        `bool`: false for a Hub name.

    Raises:
        HfChainError: when it can be neither.
    """
    name, folder = str(target), Path(target).expanduser()
    if folder.is_dir():
        return True
    if isinstance(target, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1 or folder.exists():
        raise HfChainError(f"there is no folder {name}: give the folder of a model, or a Hub name")
    return False


def hub_commit(repo: str, revision: str | None = None, **loading: Any) -> str:
    """The commit that a branch or tag of a repository on the Hub stands for now.

    Args:
        repo (`str`): Hub name.
        revision (`str`, *optional*): branch, tag or commit.
        loading: arguments of `snapshot_download`, such as `token` and `cache_dir`.

    Returns:
        `str`: its hash.

    Raises:
        HfChainError: when the Hub does not answer.
    """
    return _download(repo, revision, ["config.json"], **loading).name


def _download(repo: str, revision: str | None, files: list[str], **loading: Any) -> Path:
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=files, **loading))
    except Exception as error:  # huggingface_hub has an error of its own for every refusal.
        # That no file is at hand is not why: what the Hub answered stands behind it.
        behind = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else None
        raise HfChainError(
            f"{repo} is no folder, and cannot be fetched from the Hub ({reason(behind or error)}): check name,"
            " revision, access and network"
        ) from error


def _weight_map(index: Path) -> dict[str, str]:
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        plain = all(Path(shard).name == shard for shard in shards.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HfChainError(f"{index} cannot be read ({type(error).__name__}): download it again") from error
    if not plain:
        raise HfChainError(f"{index} names shards outside of its folder: get the checkpoint from its publisher")
    return shards


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        if _is_pointer(path):
            raise HfChainError(f"{path} is a Git LFS pointer, not the weights: run `git lfs pull` there") from error
        raise HfChainError(
            f"{path} is no readable safetensors file ({reason(error)}): it is encrypted, cut short or damaged,"
            " get it again"
        ) from error


def _is_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


Model = TypeVar("Model", bound="PreTrainedModel")


def load_whole(
    model_class: type[Model],
    config: PreTrainedConfig,
    tensors: Mapping[str, Any],
    dtype: str | torch.dtype,
    name: str,
    called: Callable[[str], str] = str,
) -> Model:
    """Loads a model, one tensor after the other, and refuses one whose weights `check_loaded` refuses.

    Args:
        model_class (`type`): its class.
        config (`PreTrainedConfig`): its configuration.
        tensors (`Mapping[str, Any]`): its weights by name, such as `LazyTensor`s.
        dtype (`str` or `torch.dtype`): type of the weights.
        name (`str`): what the user calls what is loaded.
        called (`Callable[[str], str]`): what it calls a weight of the model; the same by default.

    Returns:
        `PreTrainedModel`: on the CPU, in evaluation mode.

    Raises:
        HfChainError: when the model cannot be loaded, or a weight is missing, too many, not finite or
            of another shape.
    """
    try:
        with _one_tensor_at_a_time(), without_list_of_weights():
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                dtype=dtype,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, HfChainError):
            raise
        raise HfChainError(f"{name} cannot be loaded as {model_class.__name__}: {reason(error)}") from error
    check_loaded(model, report, name, called)
    return model


def named_dtype(*configs: PreTrainedConfig) -> torch.dtype | None:
    """The type that the first of these configurations with one names.

    Args:
        configs (`PreTrainedConfig`): those of a model and of its parts.

    Returns:
        `torch.dtype`, *optional*: `None` where none names one.
    """
    named = next((config.dtype for config in configs if config.dtype is not None), None)
    return getattr(torch, named) if isinstance(named, str) else named


def first_dtype(tensors: Iterable[Any]) -> torch.dtype:
    """The type of the first floating-point tensor; float32 where there is none.

    Args:
        tensors (`Iterable`): tensors or `LazyTensor`s.

    Returns:
        `torch.dtype`: its type.
    """
    types = (tensor.dtype for tensor in tensors)
    return next((dtype for dtype in types if dtype.is_floating_point), torch.float32)


@contextmanager
def _one_tensor_at_a_time() -> Iterator[None]:
    # By default transformers reads ahead in threads, which for fused experts means the whole model at once.
    switch = "HF_DEACTIVATE_ASYNC_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before
