"""Tiny vision-language models, conversations and trainers for the tests of the graft's stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from hf_chain.models.grafted_vlm import GraftedVLMConfig, GraftedVLMForConditionalGeneration
from hf_chain.trainer.graft_config import GraftConfig
from hf_chain.trainer.graft_trainer import GraftTrainer

VOCABULARY, IMAGE_TOKEN, PAD = 40, 39, 0
IMAGE, POSITIONS = 16, 7
"""An image of 2 × 2 patches takes seven positions: class token, patches, start and end."""
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": IMAGE,
    "patch_size": 8,
    "initializer_range": 0.1,
}
TEXT = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
SURROGATE = {
    "target": "target",
    "revision": None,
    "target_layers": 5,
    "replaced": [[1, 3]],
    "kept_layers": [0, 1, 4],
    "translator_layers": [1],
    "translators": 1,
    "translator_method": "inherit",
}


class Chats(Dataset):
    """Random conversations of different lengths; every third one is text alone, or all but `images` of them.

    Args:
        rows (`int`): how many.
        images (`set[int]`, *optional*): rows with an image.
    """

    def __init__(self, rows: int = 16, images: set[int] | None = None) -> None:
        self.rows, self.images = rows, {row for row in range(rows) if row % 3} if images is None else images

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(row)
        prompt, response = 2 + row % 3, 3 + 2 * row % 7
        words = torch.randint(1, IMAGE_TOKEN, (prompt + response,), generator=generator).tolist()
        labels = [-100] * prompt + words[prompt:]
        sample: dict[str, Any] = {"input_ids": words, "labels": labels, "weight": 1.0 + row % 2}
        if row in self.images:
            sample["input_ids"], sample["labels"] = [IMAGE_TOKEN] * POSITIONS + words, [-100] * POSITIONS + labels
            sample["pixels"] = torch.randn(3, IMAGE, IMAGE, generator=generator)
        return sample


def collate(samples: list[dict[str, Any]], weighted: bool = False) -> dict[str, torch.Tensor]:
    """Pads conversations into the batch that `ChatCollator` makes."""
    width = max(len(sample["input_ids"]) for sample in samples)

    def padded(key: str, value: int) -> torch.Tensor:
        return torch.tensor([sample[key] + [value] * (width - len(sample[key])) for sample in samples])

    ids = padded("input_ids", -1)
    batch = {"input_ids": ids.clamp(min=PAD), "attention_mask": (ids >= 0).long(), "labels": padded("labels", -100)}
    if weighted:
        batch["loss_weights"] = torch.tensor([[sample["weight"]] * width for sample in samples])
    return batch | _pixels(samples)


def collate_weighted(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Likewise, with a weight for every conversation's tokens."""
    return collate(samples, weighted=True)


def collate_packed(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Lays conversations in one row, as `ChatCollator(packing=True)` does."""
    lengths = [len(sample["input_ids"]) for sample in samples]
    batch: dict[str, Any] = {
        key: torch.tensor([[token for sample in samples for token in sample[key]]]) for key in ("input_ids", "labels")
    }
    batch["position_ids"] = torch.cat([torch.arange(length) for length in lengths])[None]
    return batch | _pixels(samples)


def _pixels(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    images = [sample["pixels"] for sample in samples if "pixels" in sample]
    return {"pixel_values": torch.stack(images)} if images else {}


def tiny_vlm(seed: int = 0, text: dict[str, Any] | None = None) -> PreTrainedModel:
    """A CLIP tower of three layers, an adapter and a Llama of three layers that says it is a surrogate."""
    fields = TEXT | {"hf_chain_surrogate": SURROGATE} | (text or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GraftedVLMForConditionalGeneration(
            GraftedVLMConfig(vision_config=dict(VISION), text_config=fields, image_token_id=IMAGE_TOKEN)
        )


def tiny_vlm_on_a_target() -> PreTrainedModel:
    """`tiny_vlm` with a decoder that is no surrogate, and may be trained whole."""
    return tiny_vlm(text={"hf_chain_surrogate": None})


def tiny_decoder(seed: int = 0, **fields: Any) -> PreTrainedModel:
    """The Llama of `tiny_vlm` on its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**(TEXT | {"hf_chain_surrogate": SURROGATE} | fields)))


OWN = ("train_dataset", "eval_dataset", "data_collator", "callbacks", "optimizers")
"""Arguments of the trainer itself."""


def tiny_graft_trainer(folder: Path, model: PreTrainedModel | None = None, **settings: Any) -> GraftTrainer:
    """A trainer of `model` on `Chats`: batches of 4 in float32, on the CPU."""
    values = {"parts": ["adapter"], "per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 1e-2}
    values |= {"logging_steps": 1, "seed": 0, "bf16": False, "warmup_steps": 0, "lr_scheduler_type": "constant"}
    values |= {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
    own = {name: settings.pop(name) for name in OWN if name in settings}
    given = {"train_dataset": Chats(), "data_collator": collate} | own
    return GraftTrainer(model or tiny_vlm(), GraftConfig(output_dir=str(folder), **(values | settings)), **given)


def losses(trainer: GraftTrainer) -> list[float]:
    """The logged losses."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the parameters."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
