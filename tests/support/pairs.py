"""Tiny image–text pairs, models and trainers for the tests of training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import CLIPConfig, CLIPModel

from hf_chain.data.collator import caption_id
from hf_chain.trainer import ChainConfig, ChainTrainer

VOCABULARY, CONTEXT, IMAGE, EOS = 40, 8, 16, 39


class RandomPairs(Dataset):
    """Deterministic random pairs, already collated into tensors; captions repeat after `distinct` rows."""

    def __init__(self, rows: int = 32, captions: int = 2, distinct: int | None = None) -> None:
        self.captions_per_image = captions
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randn(rows, 3, IMAGE, IMAGE, generator=generator)
        tokens = torch.randint(2, EOS, (distinct or rows, captions, CONTEXT), generator=generator)
        tokens[..., 0], tokens[..., -1] = 1, EOS
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixels": self.pixels[index], "tokens": self.tokens[index % len(self.tokens)], "row": index}


class StreamedPairs(IterableDataset):
    """The rows of `RandomPairs` one after the other, in another order in every pass."""

    def __init__(self, rows: int) -> None:
        self.pairs, self.captions_per_image, self.epoch = RandomPairs(max(1, rows)), 2, 0
        self.rows = rows

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(self.epoch))
        return (self.pairs[row] for row in order.tolist())


def collate(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Stacks `RandomPairs` rows into the batch that `ImageTextCollator` makes."""
    tokens = torch.stack([sample["tokens"] for sample in samples])
    ids = [[caption_id(row) for row in rows] for rows in tokens.tolist()]
    return {
        "pixel_values": torch.stack([sample["pixels"] for sample in samples]),
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "caption_ids": torch.tensor(ids),
        "image_ids": torch.tensor([sample["row"] for sample in samples]),
        "views": torch.zeros(len(samples), dtype=torch.int64),
    }


def tiny_clip(width: int = 16, layers: int = 2, embedding: int = 12, seed: int = 0, **overrides: Any) -> CLIPModel:
    """A random CLIP model with heads of 8 channels."""
    tower = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    tower |= {"num_attention_heads": width // 8, "hidden_act": "gelu"} | overrides
    text = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "bos_token_id": 1, "eos_token_id": EOS}
    config = CLIPConfig(
        text_config=tower | text | {"pad_token_id": EOS},
        vision_config=tower | {"image_size": IMAGE, "patch_size": 8},
        projection_dim=embedding,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CLIPModel(config)


def tiny_trainer(folder: Path, teacher: Any = None, model: CLIPModel | None = None, **settings: Any) -> ChainTrainer:
    """A trainer of `model` on `RandomPairs`: batches of 8, on the CPU."""
    dataset = settings.pop("train_dataset", None) or RandomPairs()
    callbacks = settings.pop("callbacks", None)
    values = {"per_device_train_batch_size": 8, "max_steps": 4, "learning_rate": 1e-2, "logging_steps": 1, "seed": 0}
    values |= {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no"} | settings
    return ChainTrainer(
        model or tiny_clip(),
        ChainConfig(output_dir=str(folder), **values),
        teacher,
        train_dataset=dataset,
        data_collator=collate,
        callbacks=callbacks,
    )
