"""Makes the Auto classes of transformers know our models, without importing transformers.

`import hf_chain` must stay cheap, and still `AutoModelForImageTextToText.from_pretrained` must load a grafted model
afterwards. Our files register themselves when they are imported. So each is imported right after the Auto class that
it registers with: at once where that is there already, else when Python imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

_AUTO = "transformers.models.auto."
_OURS = "hf_chain.models.grafted_vlm."

REGISTERED_AFTER = {
    f"{_AUTO}configuration_auto": f"{_OURS}configuration_grafted_vlm",
    f"{_AUTO}modeling_auto": f"{_OURS}modeling_grafted_vlm",
    f"{_AUTO}processing_auto": f"{_OURS}processing_grafted_vlm",
}
"""Module with an Auto class -> our module that registers with it."""


class _RegisterAfter:
    """Finds the modules of the Auto classes as usual, and adds our part to their end."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in REGISTERED_AFTER:
            return None
        specs = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = cast("Loader", _ThenOurs(spec.loader))
        return spec


class _ThenOurs:
    """The usual loader, after which our module is imported. (The base class in `importlib.abc` is slow to import.)"""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        import_module(REGISTERED_AFTER[module.__name__])


def register_auto_classes() -> None:
    """Registers the models of hf_chain with the Auto classes, now or as soon as those are imported."""
    for theirs, ours in REGISTERED_AFTER.items():
        if theirs in sys.modules:
            import_module(ours)
    if not any(isinstance(finder, _RegisterAfter) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegisterAfter())
