"""Fine-tuning: all weights of a vision tower and a new head, which reads what a linear probe reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_chain.cost import training_steps
from hf_chain.cost.steps import BACKWARD_FORWARDS
from hf_chain.data import ImageCollator, ImageDataset
from hf_chain.errors import HfChainError
from hf_chain.evaluation import Evaluation
from hf_chain.evaluation.evaluate import class_numbers, spread
from hf_chain.evaluation.image_features import ImageTower, embed_images, image_tower
from hf_chain.evaluation.linear_probe import transfer_evaluation
from hf_chain.files import write_manifest
from hf_chain.runs.training_run import TRAINING_DEFAULTS, remove_checkpoints, train_or_resume
from hf_chain.transfer.rows import LoadedSet

HEAD_STD = 0.02


class TowerClassifier(nn.Module):
    """A vision tower and a linear head on its pooled features.

    Args:
        tower (`ImageTower`): The tower, whose weights are trained; what its features do not depend on is frozen.
        classes (`int`): Number of classes C.
        seed (`int`): Seed of the head.
    """

    def __init__(self, tower: ImageTower, classes: int, seed: int = 0) -> None:
        super().__init__()
        self.tower, self._pooled = tower.model, tower.pooled
        size, channels = tower.model.config.image_size, tower.model.config.num_channels
        height, width = (size, size) if isinstance(size, int) else size
        blank = torch.zeros(1, channels, height, width, device=self.tower.device)
        self.tower.requires_grad_(True)
        with torch.enable_grad():
            features = tower.pooled(pixel_values=blank)
            weights = dict(self.tower.named_parameters())
            gradients = torch.autograd.grad(features.sum(), list(weights.values()), allow_unused=True)
        for weight, gradient in zip(weights.values(), gradients, strict=True):
            weight.requires_grad_(gradient is not None)
        generator = torch.Generator().manual_seed(seed)
        self.head = nn.Linear(features.shape[1], classes, device="cpu")
        with torch.no_grad():
            self.head.weight.normal_(std=HEAD_STD, generator=generator)
            self.head.bias.zero_()
        self.head.to(self.tower.device)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """`logits` `[B, C]`, and with labels `[B]` their mean cross-entropy as `loss`."""
        logits = self.head(self._pooled(pixel_values=pixel_values))
        return (
            {"logits": logits} if labels is None else {"loss": cross_entropy(logits.float(), labels), "logits": logits}
        )


class _Bar(ProgressCallback):
    """A progress bar alone: what is logged would be printed among the results."""

    def on_log(self, *_: Any, **__: Any) -> None:
        return


class _FineTuner(Trainer):
    """Writes checkpoints with a manifest, so that what a kill has cut short is not taken for whole."""

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        write_manifest(Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")


def evaluate_fine_tuned(
    model: PreTrainedModel,
    processor: Any,
    data: LoadedSet,
    output_dir: str | Path,
    *,
    batch_size: int = 256,
    seed: int = 0,
    bf16: bool = False,
    training: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Fine-tunes the vision tower of a model on a data set, and measures it.

    Killed anywhere, the same call goes on from the last checkpoint; when it is done these are removed.

    Args:
        model (`PreTrainedModel`): The model; its tower is trained in place, so give one that is not needed any more.
        processor (`BaseImageProcessor` or `ProcessorMixin`): What was saved with it.
        data (`LoadedSet`): The data set, whose settings say how it is trained.
        output_dir (`str` or `Path`): Where checkpoints of this data set and these weights are.
        batch_size (`int`): Images in a forward of the evaluation.
        seed (`int`): Seed of head and data order.
        bf16 (`bool`): Train and evaluate under bfloat16 autocast.
        training (`Mapping`, *optional*): Further fields of `TrainingArguments`.

    Returns:
        `Evaluation`: `fine_tune_top1` and `fine_tune_top5`, top-1 by class, and the cost of training and evaluation.

    Raises:
        HfChainError: when the model has no vision tower, there are fewer images than a batch, a row cannot be read, or
            the training diverges.
    """
    if data.train is None:
        raise HfChainError(f"{data.settings.name} was loaded without its training split: give kind fine_tune")
    tower, wanted, classes = image_tower(model), data.settings.fine_tune, len(data.class_names)
    images = getattr(processor, "image_processor", processor)
    test_rows = spread(len(data.test), data.settings.max_samples)
    labels = class_numbers(data.test.with_format(None), data.label_column, test_rows, classes)
    train = data.train.select(spread(len(data.train), data.settings.max_train_samples))
    class_numbers(train.with_format(None), data.label_column, range(len(train)), classes)
    # The numbers have been looked at, and names may be fewer than those of the column.
    columns = ImageDataset(train.with_format(None), data.data, seed=seed)
    classifier = TowerClassifier(tower, classes, seed)
    identity = {"fine_tune": wanted.model_dump(), "rows": len(train), "seed": seed, "weights": _digest(tower.model)}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    folder = Path(output_dir) / f"{data.settings.name}-{key}"
    batch = min(wanted.batch_size, len(train))
    args = TrainingArguments(
        str(folder),
        num_train_epochs=wanted.epochs,
        per_device_train_batch_size=batch,
        learning_rate=wanted.learning_rate,
        weight_decay=wanted.weight_decay,
        warmup_steps=wanted.warmup_share,
        lr_scheduler_type="cosine",
        seed=seed,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        dataloader_drop_last=True,
        report_to="none",
        **TRAINING_DEFAULTS | {"save_total_limit": 1} | dict(training or {}),
    )
    if args.n_gpu > 1:
        # Without a launcher the Trainer would deal larger batches to all of them.
        args._n_gpu = 1
    trainer = _FineTuner(
        classifier, args, train_dataset=columns, data_collator=lambda samples: _batch(ImageCollator(images), samples)
    )
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
    trainer.add_callback(_Bar)
    train_or_resume(trainer, main_process=True)
    scores = embed_images(
        tower,
        images,
        data.test,
        test_rows,
        image_column=data.image_column,
        batch_size=batch_size,
        device=args.device,
        bf16=bf16,
        head=classifier.head,
    )
    remove_checkpoints(folder, folder / "logs")
    steps = training_steps(wanted.epochs, len(train), batch)
    forward = tower.macs + classifier.head.weight.numel()
    macs = steps * batch * (1 + BACKWARD_FORWARDS) * forward + len(test_rows) * forward
    return transfer_evaluation("fine_tune", scores, labels, data.class_names, macs)


def _batch(collator: ImageCollator, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """What the classifier takes."""
    found = collator(samples)
    return {name: found[name] for name in ("pixel_values", "labels")}


def _digest(model: nn.Module) -> str:
    """SHA-256 over all weights."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
