"""What is to know of the engine that trains: one process, DDP, or DeepSpeed's ZeRO.

Whatever has to be done otherwise under one of them is done here; other files ask, and do not look which one it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from transformers.integrations.deepspeed import (
    is_deepspeed_available,
    is_deepspeed_zero3_enabled,
    unset_hf_deepspeed_config,
)

from hf_chain.errors import HfChainError, reason

if TYPE_CHECKING:
    from accelerate import Accelerator

Reader = tuple[nn.Module, nn.Parameter]
"""A module, and a parameter of a module within it that it reads itself."""


class Engine:
    """The engine behind an accelerator.

    Args:
        accelerator (`Accelerator`): of a trainer.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    @property
    def is_deepspeed(self) -> bool:
        """Whether it is DeepSpeed, which keeps weights, gradients and the optimizer's state itself."""
        return getattr(self.accelerator.state, "deepspeed_plugin", None) is not None

    @property
    def shards(self) -> bool:
        """Whether each process holds a part of every parameter, as with ZeRO-3."""
        return self.is_deepspeed and self.accelerator.state.deepspeed_plugin.zero_stage == 3

    # Between processes, which all have to call these

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Adds a tensor up over the processes."""
        return self.accelerator.reduce(tensor.to(self.accelerator.device), "sum")

    def mean(self, value: float) -> float:
        """Mean of a number over the processes."""
        return self.accelerator.reduce(torch.tensor(value, device=self.accelerator.device), "mean").item()

    def max(self, values: Sequence[int]) -> list[int]:
        """The largest that any process has in each place."""
        mine = torch.tensor(values, device=self.accelerator.device)
        return self.accelerator.gather(mine[None]).amax(dim=0).tolist()

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return flag if self.accelerator.num_processes == 1 else bool(self.sum(torch.tensor(float(flag))).item())

    # Gradients

    def backward(self, loss: torch.Tensor) -> None:
        """Backward pass of a loss that is the whole step's, which nothing divides by a number of micro-batches."""
        self.accelerator.backward(loss, **({"scale_wrt_gas": False} if self.is_deepspeed else {}))

    @contextmanager
    def synchronised(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Lets gradients meet over processes in the last of several backward passes only."""
        if last:
            yield
            return
        state = self.accelerator.gradient_state
        before = state.sync_gradients
        state._set_sync_gradients(False)
        try:
            with self.accelerator.no_sync(model):
                yield
        finally:
            state._set_sync_gradients(before)

    @torch.no_grad()
    def clamp(self, parameter: nn.Parameter, largest: float) -> None:
        """Limits a parameter after a step; under DeepSpeed in the optimizer's float32 copy as well."""
        if not self.is_deepspeed:
            parameter.clamp_(max=largest)
            return
        from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param

        value = safe_get_full_fp32_param(parameter)
        if value is not None and value.max().item() > largest:
            safe_set_full_fp32_param(parameter, value.clamp(max=largest))

    # Models, before the engine takes them over

    def flatten_scalars(self, model: nn.Module) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Gives 0-d parameters the shape `[1]` where the engine breaks on them.

        Returns:
            `list[tuple[nn.Parameter, nn.Parameter]]`: each as it was, and what is in its place.
        """
        replaced = []
        for module in model.modules() if self.is_deepspeed else ():
            for name, old in list(module.named_parameters(recurse=False)):
                if old.dim() == 0:
                    setattr(module, name, nn.Parameter(old.data.reshape(1), old.requires_grad))
                    replaced.append((old, getattr(module, name)))
        return replaced

    def restore_scalars(self, replaced: Iterable[tuple[nn.Parameter, nn.Parameter]]) -> None:
        """Gives 0-d parameters of the user's model what those in their place have come to, where that is whole."""
        for old, new in replaced:
            if not is_sharded(new):
                old.data.copy_(new.data.reshape(()))

    def gather_for(self, readers: Iterable[Reader]) -> None:
        """Has parameters gathered for modules that read them outside of the module they are in."""
        for module, parameter in readers if self.shards else ():
            import deepspeed

            deepspeed.zero.register_external_parameter(module, parameter)

    def place_teacher(self, teacher: Any, readers: Iterable[Reader]) -> Any:
        """Places a frozen model: its parameters are sharded as the student's are, or replicated as those are.

        Args:
            teacher (`PreTrainedModel`): the model.
            readers (`Iterable`): as for `gather_for`.
        """
        if not self.shards:
            return teacher.to(self.accelerator.device)
        import deepspeed

        self.gather_for(readers)
        for parameter in teacher.parameters():
            if parameter.dim() == 0:
                # DeepSpeed cannot broadcast it.
                parameter.data = parameter.data.reshape(1)
        largest = max(parameter.numel() for parameter in teacher.parameters())
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "zero_optimization": {
                "stage": 3,
                "overlap_comm": False,
                "reduce_bucket_size": largest,
                "stage3_param_persistence_threshold": int(math.sqrt(largest)),
                "stage3_prefetch_bucket_size": 0,
            },
        }
        engine, *_ = deepspeed.initialize(model=teacher, config=config)
        engine.module.eval()
        return engine.module


def builds_in_pieces() -> bool:
    """Whether models that are made now are sharded from the start, as under ZeRO-3 once its arguments are there."""
    return is_deepspeed_zero3_enabled()


def build_whole_again() -> None:
    """Has models that are made from here on built whole, and not sharded by an engine that is no longer there."""
    unset_hf_deepspeed_config()


def require_whole_weights(remedy: str) -> None:
    """Refuses to go on where models are sharded from the start.

    Args:
        remedy (`str`): when, or where, to do it instead.

    Raises:
        HfChainError: naming the remedy.
    """
    if builds_in_pieces():
        raise HfChainError(f"under ZeRO-3 no process sees whole weights: {remedy}")


# Tensors over processes


class _AllGather(torch.autograd.Function):
    """`all_gather` whose backward sums what every process wants of this one's rows."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        ctx.rows = tensor.shape[0]
        return _concatenate(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        # An all-reduce instead of a reduce-scatter, which gloo lacks.
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        return gradient.narrow(0, dist.get_rank() * ctx.rows, ctx.rows)


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """Rows of all processes, in rank order; the tensor itself when there is one process.

    Every process computes its own part of a loss whose mean over processes is the loss of the global batch. As the
    engines average gradients over processes, summing in the backward pass gives exactly the global batch's gradient.

    Args:
        tensor (`torch.Tensor`): shape `[B, ...]`, with the same `B` on every process.

    Returns:
        `torch.Tensor`: shape `[world size × B, ...]`.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return tensor
    return _AllGather.apply(tensor) if tensor.requires_grad else _concatenate(tensor)


def _concatenate(tensor: torch.Tensor) -> torch.Tensor:
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def process_rank() -> int:
    """Rank of this process, 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


# Sharded parameters


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether ZeRO-3 or FSDP2 has left a part of the tensor to other processes."""
    return hasattr(tensor, "ds_tensor") or hasattr(tensor, "to_local")


def own_part(tensor: Any) -> torch.Tensor:
    """What of a tensor is in this process: all of it where it is not sharded."""
    if hasattr(tensor, "ds_tensor"):
        # The last part is filled up with what happens to be in memory.
        part, rank = tensor.ds_tensor, dist.get_rank(tensor.ds_process_group)
        return part[: max(0, tensor.ds_numel - rank * part.numel())]
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def size_of(parameter: nn.Parameter) -> int:
    """Numbers in a parameter, in all processes together."""
    return getattr(parameter, "ds_numel", parameter.numel())


def whole_copies(parameters: Mapping[str, nn.Parameter], main_process: bool) -> dict[str, torch.Tensor]:
    """Whole copies of parameters on the CPU, in the main process; every process has to call it.

    One parameter at a time is whole on every device.
    """
    tensors = {}
    for name, parameter in parameters.items():
        with _whole(parameter):
            value = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
            if main_process:
                tensors[name] = value.detach().cpu().clone()
    return tensors


def _whole(parameter: nn.Parameter) -> AbstractContextManager[Any]:
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    context: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(parameter)
    return context


# DeepSpeed's configuration


def read_deepspeed(given: Any) -> dict[str, Any] | None:
    """The DeepSpeed configuration that `deepspeed` is or names.

    Raises:
        HfChainError: when it cannot be read, or DeepSpeed is not installed.
    """
    if given is None:
        return None
    if not is_deepspeed_available():
        raise HfChainError("deepspeed is set and not installed: `pip install deepspeed`, or leave it out")
    if isinstance(given, str):
        try:
            given = json.loads(given if given.startswith("{") else Path(given).expanduser().read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise HfChainError(
                f"deepspeed is no configuration that can be read ({reason(error)}): give a JSON file"
            ) from error
    if not isinstance(given, dict):
        raise HfChainError(f"deepspeed holds {type(given).__name__}, not a mapping: give a DeepSpeed configuration")
    return given


def check_rates_and_saving(config: Mapping[str, Any] | None) -> None:
    """Refuses a DeepSpeed configuration that would replace the parts' learning rates, or cannot save the model.

    Args:
        config (`Mapping`, *optional*): the DeepSpeed configuration.

    Raises:
        HfChainError: when it brings an optimizer or a scheduler of its own, or leaves weights in pieces when it saves.
    """
    for section in ("optimizer", "scheduler"):
        if section in (config or {}):
            raise HfChainError(
                f"the DeepSpeed configuration has a section {section}, which would give all parts one learning rate: "
                "remove it; the Trainer's own is used instead"
            )
    sharding = (config or {}).get("zero_optimization") or {}
    if sharding.get("stage") == 3 and not sharding.get("stage3_gather_16bit_weights_on_model_save"):
        raise HfChainError(
            "the DeepSpeed configuration has ZeRO-3 without stage3_gather_16bit_weights_on_model_save in "
            "zero_optimization, so the trained model could not be saved: set it to true"
        )
