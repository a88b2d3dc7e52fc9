"""Tiny image classifiers and ViT-MAEs, rows and trainers for the tests of tasks on images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, PreTrainedModel, ViTMAEForPreTraining

from hf_chain.tasks.classification.values import SEVERAL
from hf_chain.trainer import ChainConfig, ChainTrainer
from support.families import ROWS

CLASSES = 3
KINDS = ("vit", "deit", "swin", "swinv2", "convnext", "dinov2")


def classifier(kind: str = "vit", seed: int = 0, **sizes: Any) -> PreTrainedModel:
    """A random classifier of three classes."""
    config = ROWS[kind].config()
    for name, value in {"num_labels": CLASSES, "initializer_range": 0.2, **sizes}.items():
        setattr(config, name, value)
    found = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return (found[0] if isinstance(found, tuple) else found)(config)


def rows(model: PreTrainedModel, count: int = 32) -> list[dict[str, Any]]:
    """Random images of the model's size, as the collator would make them one by one: of one class, or up to three."""
    generator, side = torch.Generator().manual_seed(0), model.config.image_size
    pixels = torch.randn(count, 3, side, side, generator=generator)
    several = getattr(model.config, "problem_type", None) == SEVERAL
    labels = [[float(row >> c & 1) for c in range(CLASSES)] if several else row % CLASSES for row in range(count)]
    return [{"pixel_values": pixels[row], "labels": labels[row], "image_ids": row} for row in range(count)]


def multi_label_classifier(seed: int = 0, **sizes: Any) -> PreTrainedModel:
    """A random ViT of three classes that do not exclude each other."""
    return classifier(seed=seed, problem_type=SEVERAL, **sizes)


def masked_model(seed: int = 0, **sizes: Any) -> ViTMAEForPreTraining:
    """A random ViT-MAE; a decoder of its own size whatever the encoder's."""
    config = ROWS["vit_mae"].config()
    for name, value in sizes.items():
        setattr(config, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ViTMAEForPreTraining(config)


def trainer(folder: Path, model: Any = None, teacher: Any = None, **settings: Any) -> ChainTrainer:
    """A trainer on those: batches of 8, on the CPU."""
    model = model or classifier()
    task = "multi_label" if model.config.problem_type == SEVERAL else "classification"
    task = "masked_image" if isinstance(model, ViTMAEForPreTraining) else task
    values = {"task": task, "per_device_train_batch_size": 8, "max_steps": 4, "learning_rate": 1e-2}
    values |= {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1} | settings
    args = ChainConfig(str(folder), **values)
    return ChainTrainer(model, args, teacher, train_dataset=rows(model), eval_dataset=rows(model, 8))


def logs(trained: ChainTrainer, name: str) -> list[float]:
    """What was logged under a name, step by step."""
    return [entry[name] for entry in trained.state.log_history if name in entry]
