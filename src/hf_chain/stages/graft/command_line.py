"""The commands of a graft as cards show them: with the exact model, and without the paths of a machine."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from hf_chain.hub.graft_card_results import public_name

if TYPE_CHECKING:
    from hf_chain.stages.graft.cut_folder import SurrogateOptions

_FLAGS = {"methods": "method"}
"""Options whose flag is not their field's name with dashes."""


def surrogate_command(target: str, output: Path, options: SurrogateOptions) -> str:
    """`hf-chain surrogate` with all options that are not the default.

    Args:
        target (`str`): folder or Hub name of the language model.
        output (`Path`): the new folder.
        options (`SurrogateOptions`): how it was cut.
    """
    words = ["surrogate", public_name(target), output.name]
    for option in fields(options):
        value = getattr(options, option.name)
        if option.name != "replaced" and value == option.default:
            continue
        flag = f"--{_FLAGS.get(option.name, option.name.replace('_', '-'))}"
        values: Sequence[object] = value if isinstance(value, (tuple, list)) else [value]
        for one in values:
            words += [flag] if one is True else [flag, public_name(str(one))]
    return shlex.join(["hf-chain", *words])


def graft_command(vlm: str, target: str, output: Path, revision: str | None = None) -> str:
    """`hf-chain graft`; arguments as `graft_folder` takes them."""
    words = ["graft", public_name(vlm), public_name(target), output.name]
    return shlex.join(["hf-chain", *words, *(["--revision", revision] if revision is not None else [])])
