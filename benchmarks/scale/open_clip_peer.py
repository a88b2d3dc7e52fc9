"""Imports open_clip, also where torchvision's compiled operators do not fit to torch: its transforms use none.

Comes before transformers, which torchvision breaks where it is half imported.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import torch

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
open_clip: Any = None
while open_clip is None:
    try:
        import open_clip
    except RuntimeError as error:
        missing = re.search(r"torchvision::(\w+) does not exist", str(error))
        if missing is None:
            raise
        _LIBRARY.define(f"{missing[1]}(Tensor a) -> Tensor")
        for name in [name for name in sys.modules if name.startswith(("torchvision", "open_clip."))]:
            del sys.modules[name]
