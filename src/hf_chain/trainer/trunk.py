"""The trunk of a training: the state before the learning rate falls, from which successors grow and trainings go on.

A training warms up, goes on at a stable rate, and ends with a short branch that is delivered: a decay of the rate, or
the mean of several states. Sources: warm-up, stable, decay (arXiv 2404.06395), growth from the state that has not
decayed (arXiv 2511.04981), merging (arXiv 2507.17634).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl

from hf_chain.cost import branch_steps
from hf_chain.errors import HfChainError
from hf_chain.files import sync, whole_folder
from hf_chain.growth.optimizer_state import MOMENTS
from hf_chain.trainer.stage_trainer import stop

if TYPE_CHECKING:
    from hf_chain.trainer.chain_config import ChainConfig
    from hf_chain.trainer.stage_trainer import StageTrainer

TRUNK_FOLDER = "trunk"
STATE_NAME = "optimizer_state.safetensors"
"""Beside the weights of a trunk: AdamW's state by the names of its weights."""
STATES_FOLDER = "merged_states"


@dataclass
class TrunkRate:
    """Factor on the learning rate at a step. A checkpoint of the schedule holds its fields, also where they changed.

    Args:
        warmup (`int`): steps in which it rises to 1.
        trunk (`int`): steps of the trunk, warm-up included.
        end (`int`): steps of the whole training; the rate falls linearly to 0 from the trunk's end to there.
    """

    warmup: int
    trunk: int
    end: int

    @classmethod
    def of(cls, args: ChainConfig, steps: int) -> TrunkRate:
        """The schedule of a training.

        Args:
            args (`ChainConfig`): with a `trunk_decay`.
            steps (`int`): of the whole training.

        Raises:
            HfChainError: when no step is left for the trunk.
        """
        assert args.trunk_decay is not None
        decay = 0 if args.trunk_merge else branch_steps(args.trunk_decay, steps)
        if decay >= steps:
            raise HfChainError(
                f"trunk_decay is {args.trunk_decay} and the training has {steps} steps, which leaves no trunk: train "
                "longer, or leave it out"
            )
        return cls(int(args.get_warmup_steps(steps)), steps - decay, steps)

    def __call__(self, step: int) -> float:
        """The factor, 0 to 1."""
        if step < self.warmup:
            return step / self.warmup
        return 1.0 if step < self.trunk else (self.end - step) / max(1, self.end - self.trunk)

    def end_soon(self, step: int, share: float) -> None:
        """Ends the trunk at `step`, and the training once the decay has its share of all steps."""
        self.trunk = step
        self.end = min(self.end, step + max(1, round(step * share / (1 - share))))


class Trunk(TrainerCallback):
    """Keeps the trunk of a training on disk, and the states that are merged.

    Args:
        trainer (`StageTrainer`): the trainer.
        args (`ChainConfig`): its arguments, with a `trunk_decay`.
    """

    def __init__(self, trainer: StageTrainer, args: ChainConfig) -> None:
        self.trainer, self.args = trainer, args
        self.folder = Path(args.output_dir, TRUNK_FOLDER)
        self.rate: TrunkRate | None = None

    @property
    def states(self) -> Path:
        """Folder of the states that are merged; of no use once the result is saved."""
        return self.folder.with_name(f".{self.folder.name}.{STATES_FOLDER}")

    def merged_steps(self) -> list[int]:
        """The steps whose states are merged, at equal distances over the last share of the training."""
        args, rate = self.args, self.rate
        assert args.trunk_decay is not None and rate is not None
        share, count = args.trunk_decay * rate.end, args.trunk_merge
        return sorted({rate.end - round(share * number / max(1, count - 1)) for number in range(count)})

    def on_train_begin(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Takes no step more where the checkpoint is that of the last one."""
        if self.rate is not None and state.global_step >= self.rate.end:
            control.should_training_stop = True

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Saves what is to be kept of this step, and ends a training that was told to end soon."""
        assert self.rate is not None
        if args.trunk_merge and state.global_step in self.merged_steps():
            self._keep_state(state.global_step)
        if state.global_step == self.rate.trunk:
            self._save()
        if self.rate.end <= state.global_step < state.max_steps:
            stop(args, control)

    def end_at(self, step: int) -> None:
        """Ends the trunk at the step that is done, where the branch begins; keeps it as it is."""
        assert self.rate is not None and self.args.trunk_decay is not None
        self.rate.end_soon(step, self.args.trunk_decay)
        self._save()

    def on_train_end(self, args: Any, *_: Any, **kwargs: Any) -> None:
        """Puts the mean of the kept states into the model."""
        if args.trunk_merge:
            files = [self.states / f"{step}.safetensors" for step in self.merged_steps()]
            self.trainer._unwrapped.load_state_dict(mean_of(files), strict=False)

    def _keep_state(self, step: int) -> None:
        if self.trainer.args.should_save:
            self.states.mkdir(parents=True, exist_ok=True)
            named = self.trainer._unwrapped.named_parameters()
            file = self.states / f"{step}.safetensors"
            save_file({name: weight.detach().contiguous() for name, weight in named}, file)
            sync(file)
        self.trainer.accelerator.wait_for_everyone()

    def _save(self) -> None:
        trainer = self.trainer
        if trainer.args.should_save:
            with whole_folder(self.folder) as folder:
                trainer.save_model(str(folder))
                (folder / "training_args.bin").unlink(missing_ok=True)
                if not trainer.engine.is_deepspeed:
                    save_file(_named_state(trainer), folder / STATE_NAME)
        else:
            # Writes nothing, but takes part in gathering sharded weights.
            trainer.save_model(str(self.folder))
        trainer.accelerator.wait_for_everyone()


def _named_state(trainer: StageTrainer) -> dict[str, torch.Tensor]:
    """AdamW's state of the stock model's weights, as `<weight>:<entry>`."""
    kept: Mapping[Any, Mapping[str, Any]] = trainer.optimizer.state
    return {
        f"{name}:{entry}": torch.as_tensor(kept[weight][entry]).detach().contiguous()
        for name, weight in trainer._unwrapped.named_parameters()
        if weight in kept and not trainer._is_beside(name)
        for entry in (*MOMENTS, "step")
        if entry in kept[weight]
    }


def is_trunk(folder: Path) -> bool:
    """Whether a folder holds a trunk with the state of its optimizer."""
    return (folder / STATE_NAME).is_file()


def read_state(trunk: Path) -> dict[str, Any] | None:
    """AdamW's state in the folder of a trunk, as `grow` takes it; `None` where its engine kept it to itself.

    Args:
        trunk (`Path`): the folder.
    """
    if not is_trunk(trunk):
        return None
    held: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in load_file(trunk / STATE_NAME).items():
        name, _, entry = key.rpartition(":")
        held.setdefault(name, {})[entry] = value
    return {"state": held, "param_groups": [{"params": list(held)}]}


def mean_of(files: list[Path]) -> dict[str, torch.Tensor]:
    """The mean of weights in safetensors files, added up in float64.

    Args:
        files (`list[Path]`): of the same names and shapes.

    Raises:
        HfChainError: when one is not there.
    """
    total: dict[str, torch.Tensor] = {}
    for file in files:
        if not file.is_file():
            raise HfChainError(f"{file} is missing, which is to be merged: remove the checkpoints to train again")
        for name, weight in load_file(file).items():
            total[name] = total[name] + weight.double() if name in total else weight.double()
    return {name: weight / len(files) for name, weight in total.items()}
