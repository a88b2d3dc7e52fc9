"""Training of one stage of a graft, and what it took."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_chain.data.chat.collator import PackedRows
from hf_chain.data.chat.sources import ChatStream
from hf_chain.data.streams import EndlessStream
from hf_chain.engine import build_whole_again
from hf_chain.methods.graft.lengths import rows_of_steps
from hf_chain.runs.environment import check_engine
from hf_chain.runs.training_run import TRAINING_DEFAULTS, TrackedTraining, train_or_resume
from hf_chain.trainer.graft_config import GraftConfig
from hf_chain.trainer.graft_trainer import GraftTrainer
from hf_chain.trainer.lora import FOLDER as LORA_FOLDER
from hf_chain.trainer.lora import MERGED_FOLDER, has_lora, is_lora, load_lora, merge_lora
from hf_chain.trainer.part_aliases import decoder_of


def train_parts(
    model: PreTrainedModel,
    parts: dict[str, float | None],
    rows: Any,
    collator: Any,
    processor: Any,
    *,
    epochs: float,
    tracked: TrackedTraining,
    seed: int,
    checkpoints: Path,
    main_process: bool,
    stream_length: int | None = None,
) -> GraftTrainer:
    """Trains parts of a model, or what is left of that after a kill.

    Args:
        model (`PreTrainedModel`): a grafted vision-language model, or a decoder.
        parts (`dict`): trained parts and their learning rates.
        rows (`Dataset` or `ChatStream`): checked chat rows.
        collator (`ChatCollator`): makes the batches.
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`): saved with the model.
        epochs (`float`): passes over the rows.
        tracked (`TrackedTraining`): name of the stage, and further `GraftConfig` fields.
        seed (`int`): seed of data order and dropout.
        checkpoints (`Path`): folder of the checkpoints.
        main_process (`bool`): whether this process writes.
        stream_length (`int`, *optional*): rows of an epoch, for a stream, which does not know them.

    Returns:
        `GraftTrainer`: after training.
    """
    args = GraftConfig(
        output_dir=str(checkpoints),
        parts=parts,
        stage=tracked.name,
        num_train_epochs=epochs,
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
        **TRAINING_DEFAULTS | tracked.fields,
    )
    if isinstance(rows, ChatStream):
        rows = EndlessStream(rows)
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        args.max_steps = max(1, math.ceil(epochs * (stream_length or 0) / batch))
    with tracked.told():
        trainer = GraftTrainer(model, args, train_dataset=rows, data_collator=collator, processing_class=processor)
        check_engine(args.world_size, args.n_gpu, trainer.engine.is_deepspeed)
        train_or_resume(trainer, main_process)
    return trainer


def finished_model(trainer: GraftTrainer, folder: Path) -> PreTrainedModel:
    """The trained model, whole and with LoRA in its weights, as its folder holds it afterwards too.

    Args:
        trainer (`GraftTrainer`): after training.
        folder (`Path`): where the main process has saved it.
    """
    model = trainer.model
    if trainer.engine.is_deepspeed:
        # Its parameters may be in pieces on all processes.
        build_whole_again()
        model = type(model).from_pretrained(folder, dtype="auto").to(trainer.args.device)
        if (folder / LORA_FOLDER).is_dir():
            load_lora(decoder_of(model), folder / LORA_FOLDER)
    if has_lora(decoder_of(model)):
        merge_lora(decoder_of(model))
        model.save_pretrained(folder)
        # Under its own name, whoever loads both would apply it twice.
        (folder / LORA_FOLDER).rename(folder / MERGED_FOLDER)
    return model


def training_figures(trainer: GraftTrainer) -> dict[str, Any]:
    """Samples, MACs and seconds of the whole training, attempts before a restart included."""
    seconds, macs_before = 0.0, 0.0
    for entry in trainer.state.log_history:
        if speed := entry.get("tflops_per_second"):
            seconds += 2 * (entry["macs"] - macs_before) / speed / 1e12
            macs_before = entry["macs"]
    macs = trainer.state.total_flos / 2
    if macs_before:
        # The steps after the last log entry went at the same speed.
        seconds *= macs / macs_before
    else:
        seconds = next(e["train_runtime"] for e in reversed(trainer.state.log_history) if "train_runtime" in e)
    steps, args, data = trainer.state.global_step, trainer.args, trainer.train_dataset
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    samples = steps * batch if isinstance(data, EndlessStream) else rows_of_steps(steps, len(data), batch)
    if isinstance(data, PackedRows):
        samples = round(samples * len(data.rows) / len(data))
    decoder = {id(parameter) for parameter in decoder_of(trainer.model).parameters()}
    trained = (item for part in trainer.parts for item in part.parameters.items())
    return {
        "samples": samples,
        # LoRA may be merged by now.
        "trains_decoder": any(is_lora(name) or id(parameter) in decoder for name, parameter in trained),
        "training_macs": {"total": int(macs)},
        "seconds": round(seconds, 1),
    }
