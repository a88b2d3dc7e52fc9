"""Names of a package that are imported when they are first used, so that `import hf_chain` starts nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, str], moved: Mapping[str, str] = MappingProxyType({})
) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562), which gets a `__dir__` that lists the names as well.

    Args:
        package (`str`): the package's `__name__`.
        modules (`Mapping[str, str]`): public name to the module inside the package that it lives in.
        moved (`Mapping[str, str]`): name that lived here once to the whole name of what it is now.

    Returns:
        `Callable`: raises `AttributeError` for other names, as a module does. What it has found once is the package's
            own from then on.
    """
    module = sys.modules[package]

    def find(name: str) -> Any:
        if name in moved:
            raise ImportError(f"{package}.{name} is {moved[name]} now")
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(module, name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(module), *modules})

    vars(module)["__dir__"] = names
    return find
