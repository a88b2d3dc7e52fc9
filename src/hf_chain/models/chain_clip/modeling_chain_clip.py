"""CLIP as it is trained in a chain: several captions an image, token dropping, a map to the teacher's size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, save_torch_state_dict
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPModel
from transformers import initialization as init
from transformers.models.auto.modeling_auto import AutoModel

from hf_chain.adapters import HUB, check_model_files, check_no_adapter
from hf_chain.errors import HfChainError
from hf_chain.loaded_weights import check_loaded, read_model
from hf_chain.models.chain_clip.configuration_chain_clip import ChainCLIPConfig
from hf_chain.models.chain_clip.stock_clip import (
    MAX_LOGIT_SCALE,
    chain_config,
    check_stock,
    maps_beside,
    maps_name,
    only_maps,
    stock_config,
    stock_state,
)
from hf_chain.models.dual_encoder import ChainCLIPOutput, MappedDualEncoder
from hf_chain.models.saved_as_stock import TeacherMap

__all__ = ["ChainCLIPModel", "ChainCLIPOutput"]


class ChainCLIPModel(MappedDualEncoder, CLIPModel):
    """A `CLIPModel` with what training in a chain needs, all of it inside one trainable module.

    Its parameters are those of the stock model, and where sizes differ two maps to the teacher's embedding size. The
    logit scale has shape `[1]`, as 0-d parameters break DeepSpeed, but for that of a wrapped stock model. `to_clip`
    gives a stock model back.
    """

    config: ChainCLIPConfig
    config_class = ChainCLIPConfig

    def __init__(self, config: ChainCLIPConfig) -> None:
        super().__init__(config)
        self.logit_scale = nn.Parameter(torch.tensor([float(config.logit_scale_init_value)]))
        self.image_to_teacher = self.text_to_teacher = None
        size = config.teacher_projection_dim
        if size is not None and size != config.projection_dim:
            self.image_to_teacher = TeacherMap(config.projection_dim, size, bias=False)
            self.text_to_teacher = TeacherMap(config.projection_dim, size, bias=False)
        self.register_load_state_dict_pre_hook(self._reshape_logit_scale)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, TeacherMap):
            init.eye_(module.weight)

    @classmethod
    def from_clip(cls, model: CLIPModel, teacher_projection_dim: int | None = None) -> ChainCLIPModel:
        """Wraps a stock model, whose modules and weights it shares: what trains the one trains the other.

        So frozen parameters stay frozen, optimizers fit, and whatever else is set in the modules holds.

        Args:
            model (`CLIPModel`): the member to train.
            teacher_projection_dim (`int`, *optional*): the teacher's embedding size.

        Raises:
            HfChainError: when it is another model, or has an adapter, weights or ways of its own, which would be left
                behind.
        """
        check_no_adapter(model, f"this {type(model).__name__}")
        check_stock(model)
        chain_model = cls._around(model, teacher_projection_dim)
        chain_model.training = model.training
        return chain_model

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *args: Any,
        config: Any = None,
        state_dict: dict[str, torch.Tensor] | None = None,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Loads any stock CLIP folder or repository, with the maps to the teacher where a checkpoint holds them.

        Args:
            pretrained_model_name_or_path (`str`, `os.PathLike` or `None`): folder or Hub name; `None` with
                `config` and `state_dict`.
            args: for the model.
            config (`ChainCLIPConfig`, `CLIPConfig` or `str`, *optional*): in place of the folder's.
            state_dict (`dict`, *optional*): a stock model's weights, or this class's, in place of files.
            output_loading_info (`bool`): whether to return what was missing and left over as well.
            kwargs: as in `PreTrainedModel.from_pretrained`, such as `dtype`, `device_map`, `subfolder` and `variant`;
                fields of the configuration, `teacher_projection_dim` included.

        Returns:
            `ChainCLIPModel`: in evaluation mode; with `output_loading_info`, and a `dict`.

        Raises:
            HfChainError: when it has an adapter, or weights that are missing, too many or not finite.
        """
        known = None if pretrained_model_name_or_path is None else os.fspath(pretrained_model_name_or_path)
        name = "state_dict" if known is None else known
        size = kwargs.pop("teacher_projection_dim", getattr(config, "teacher_projection_dim", None))
        if known is not None:
            check_model_files(known, **{option: kwargs[option] for option in HUB if option in kwargs})
        if isinstance(config, ChainCLIPConfig):
            config = stock_config(config)
        maps = only_maps(state_dict) if known is None else maps_beside(known, **kwargs)
        # Other shapes are refused below, so that the weight is named.
        kwargs.pop("ignore_mismatched_sizes", None)
        weights = None if state_dict is None else stock_state(state_dict)
        stock, report = read_model(CLIPModel, known, *args, config=config, state_dict=weights, **kwargs)
        check_loaded(stock, report, name)
        size = size or getattr(stock.config, "teacher_projection_dim", None)
        model = cls._around(stock, size or (next(iter(maps.values())).shape[0] if maps else None))
        own = model._map_names()
        if maps:
            model._take_maps(maps, name)
        report["missing_keys"] |= own - set(maps)
        return (model.eval(), report) if output_loading_info else model.eval()

    @classmethod
    def _around(cls, stock: CLIPModel, size: int | None) -> ChainCLIPModel:
        """The parts of a stock model themselves, on the devices that they are on."""
        config = chain_config(stock.config, size)
        config.text_config, config.vision_config = stock.config.text_config, stock.config.vision_config
        with torch.device("meta"):
            model = cls(config)
        for name, part in stock.named_children():
            setattr(model, name, part)
        model.logit_scale = stock.logit_scale
        for name, part in model.named_children():
            if isinstance(part, TeacherMap):
                like = {"device": stock.logit_scale.device, "dtype": stock.dtype}
                setattr(model, name, TeacherMap(part.in_features, part.out_features, bias=False, **like))
                model._init_weights(getattr(model, name))
        if hasattr(stock, "hf_device_map"):
            model.hf_device_map = stock.hf_device_map
        return model

    def to_clip(self) -> CLIPModel:
        """The stock `CLIPModel` with these weights, in evaluation mode: 0-d logit scale, no maps to the teacher."""
        model = CLIPModel(stock_config(self.config)).to(self.dtype)
        model.load_state_dict(stock_state(self.state_dict()))
        return model.to(self.device).eval()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "50GB",
        variant: str | None = None,
        token: str | bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes a folder that `CLIPModel.from_pretrained` loads, and the maps to the teacher beside it.

        Args:
            save_directory (`str` or `os.PathLike`): the folder, made when it does not exist.
            is_main_process (`bool`): other processes write nothing.
            state_dict (`dict`, *optional*): full weights to write, for engines that shard the module's own.
            push_to_hub (`bool`): whether to upload what was written, to `repo_id`, by default the folder's name.
            max_shard_size (`int` or `str`): size above which the weights are split over several files.
            variant (`str`, *optional*): goes into the names of weight files, as `model.fp16.safetensors`.
            token (`str` or `bool`, *optional*): for the Hub.
            kwargs: `repo_id`, `private`, `commit_message` and `create_pr` for the Hub; how transformers is to write
                adapters and old formats, which do not occur here.

        Raises:
            HfChainError: for `distributed_checkpoint`, which writes files of another kind.
        """
        if kwargs.get("distributed_checkpoint"):
            raise HfChainError("distributed_checkpoint=True is not written: give the full weights as state_dict")
        if not is_main_process:
            return
        state = self.state_dict() if state_dict is None else state_dict
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        earlier = self._get_files_timestamps(folder)
        # No CLIPModel is built here: under ZeRO-3 that would be a collective, and only one process saves.
        stock = stock_state(state)
        config = stock_config(self.config)
        config.architectures = [CLIPModel.__name__]
        config.dtype = next(iter(stock.values())).dtype
        config.save_pretrained(folder)
        mark = f".{variant}" if variant else ""
        pattern = f"model{mark}{{suffix}}.safetensors"
        save_torch_state_dict(stock, folder, filename_pattern=pattern, max_shard_size=max_shard_size)
        index = folder / f"model{mark}.safetensors.index.json"
        if variant and index.exists():
            index.replace(folder / f"model.safetensors.index{mark}.json")
        path = folder / maps_name(variant)
        path.unlink(missing_ok=True)
        if maps := {name: weight.contiguous() for name, weight in only_maps(state).items()}:
            save_file(maps, path)
        if push_to_hub:
            private, wanted = kwargs.get("private"), kwargs.get("repo_id") or folder.resolve().name
            repo = HfApi(token=token).create_repo(wanted, private=private, exist_ok=True).repo_id
            told = {name: kwargs[name] for name in ("commit_message", "create_pr") if name in kwargs}
            self._upload_modified_files(folder, repo, earlier, token=token, **told)

    @staticmethod
    def _reshape_logit_scale(module: Any, state: dict[str, torch.Tensor], prefix: str, *_: Any) -> None:
        """Lets `load_state_dict` take a 0-d logit scale for one of shape `[1]`, and the other way round."""
        name = f"{prefix}logit_scale"
        if name in state and state[name].dim() != module.logit_scale.dim():
            state[name] = state[name].reshape(() if module.logit_scale.dim() == 0 else 1)

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Limits the logit scale to 100, as CLIP does after every step."""
        self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)


AutoModel.register(ChainCLIPConfig, ChainCLIPModel, exist_ok=True)
