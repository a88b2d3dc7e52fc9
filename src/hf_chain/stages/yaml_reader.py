"""YAML as recipes are written in it: `1e-3` is a number, and no key stands twice."""

from __future__ import annotations

import re
from typing import Any

import yaml

from hf_chain.errors import HfChainError


class _Loader(yaml.SafeLoader):
    """`SafeLoader` with the numbers of YAML 1.2, in which a second value for a key is an error."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: list[Any] = []
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands there twice", problem_mark=key.start_mark)
            seen.append(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)


def read_yaml(text: str, origin: str) -> Any:
    """Reads one YAML document of plain values.

    Args:
        text (`str`): the document.
        origin (`str`): where it comes from, for errors.

    Raises:
        HfChainError: when it is no YAML, naming the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise HfChainError(f"{origin} is no valid YAML{where}, {problem}: correct it there") from error
