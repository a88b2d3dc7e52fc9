"""Makes the Auto classes of transformers know our models, without importing transformers.

`import hf_chain` must stay cheap, and still `AutoModelForImageTextToText.from_pretrained` must load a grafted model
afterwards. Our files register themselves when they are imported. So each is imported after the Auto class that it
registers with: at once where that is there already, else at the end of the import that brings it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

_AUTO = "transformers.models.auto."
_OURS = "hf_chain.models."

REGISTERED_AFTER = {
    f"{_AUTO}configuration_auto": (
        f"{_OURS}grafted_vlm.configuration_grafted_vlm",
        f"{_OURS}chain_clip.configuration_chain_clip",
    ),
    f"{_AUTO}modeling_auto": (
        f"{_OURS}grafted_vlm.modeling_grafted_vlm",
        f"{_OURS}chain_clip.modeling_chain_clip",
    ),
    f"{_AUTO}processing_auto": (f"{_OURS}grafted_vlm.processing_grafted_vlm",),
}
"""Module with an Auto class -> our modules that register with it."""


class _RegisterAfter:
    """Finds modules of theirs and of ours as usual, and adds our part to the end of what is imported with theirs."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in ("transformers", "hf_chain"):
            return None
        specs = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = cast("Loader", _ThenOurs(spec.loader))
        return spec


class _ThenOurs:
    """The usual loader, after which ours are imported. (The base class in `importlib.abc` is slow to import.)"""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        # `python -m` and readers of resources ask loaders for more.
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        with _whole_before_ours(module.__name__):
            self._loader.exec_module(module)


_waiting: list[str] = []
_half_imported: list[str] = []


@contextmanager
def _whole_before_ours(name: str) -> Iterator[None]:
    """Imports ours once no module of either is half imported: they import each other in the midst of it."""
    _half_imported.append(name)
    try:
        yield
        _waiting.extend(REGISTERED_AFTER.get(name, ()))
    finally:
        _half_imported.remove(name)
    # Ours import further ones of theirs, which do not begin with the next of ours.
    while _waiting and not _half_imported:
        _half_imported.append(ours := _waiting.pop(0))
        try:
            import_module(ours)
        finally:
            _half_imported.remove(ours)


def register_auto_classes() -> None:
    """Registers the models of hf_chain with the Auto classes, now or as soon as those are imported."""
    for theirs, ours in REGISTERED_AFTER.items():
        if theirs in sys.modules:
            for module in ours:
                import_module(module)
    if not any(isinstance(finder, _RegisterAfter) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegisterAfter())
