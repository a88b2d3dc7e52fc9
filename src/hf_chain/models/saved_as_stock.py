"""Models in training that share the modules of a stock model, and are saved as that, with their maps beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from hf_chain.models.chain_clip.stock_clip import MAP_SUFFIX, TEACHER_MAPS_NAME, only_maps


class TeacherMap(nn.Linear):
    """Linear map from the member's to the teacher's embedding size.

    It starts by taking the leading coordinates, which is where growth puts the predecessor's embedding.
    """


class SavedAsStock(PreTrainedModel):
    """A mixin before the stock class; `_stock` holds the stock model, in a tuple so that it is no module within."""

    _stock: tuple[PreTrainedModel, ...] = ()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *args: Any,
        state_dict: dict[str, torch.Tensor] | None = None,
        is_main_process: bool = True,
        **kwargs: Any,
    ) -> None:
        """Writes a folder that the stock class loads, and the maps to the teacher beside it.

        Args:
            save_directory (`str` or `os.PathLike`): the folder.
            args: as for `PreTrainedModel.save_pretrained`.
            state_dict (`dict`, *optional*): full weights to write, for engines that shard the module's own.
            is_main_process (`bool`): other processes write nothing.
            kwargs: as for `PreTrainedModel.save_pretrained`.
        """
        state = self.state_dict() if state_dict is None else state_dict
        own = {name: weight for name, weight in state.items() if MAP_SUFFIX not in name}
        self._stock[0].save_pretrained(
            save_directory, *args, state_dict=own, is_main_process=is_main_process, **kwargs
        )
        if is_main_process and (maps := only_maps(state)):
            save_file(
                {name: weight.contiguous() for name, weight in maps.items()}, Path(save_directory, TEACHER_MAPS_NAME)
            )
