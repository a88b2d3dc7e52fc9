"""The `training` sections: values that no optimiser, schedule, sampler or engine takes, in any member."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cases import Case, chain_recipe, graft_recipe
from support.changes import GONE

NAN, INF = float("nan"), float("inf")

REFUSED: list[tuple[str, list[Any]]] = [
    ("adam_beta1", [1.0, 1.5, -0.1, True, "high"]),
    ("adam_beta2", [1.0, 2, NAN]),
    ("adam_epsilon", [-1e-8, NAN, INF]),
    ("weight_decay", [-0.1, INF, True]),
    ("max_grad_norm", [-1, NAN]),
    ("warmup_steps", [-3, "few", True]),
    ("learning_rate", [INF, True, "fast"]),
    ("logging_steps", [0, -1, True]),
    ("save_steps", [0, -5, NAN]),
    ("save_strategy", ["epochs", "best", 3]),
    ("logging_strategy", ["sometimes"]),
    ("save_total_limit", ["two", 1.5]),
    ("optim", ["adamwx", "adamw_bnb_8bit", "galore_adamw", 7]),
    ("lr_scheduler_type", ["reduce_lr_on_plateau", "cosine_with_min_lr", "warmup_stable_decay", "cosinus"]),
    ("lr_scheduler_kwargs", [{"num_cycle": 2}, [1], "num_cycles=2"]),
    ("label_smoothing_factor", [0.1]),
    ("neftune_noise_alpha", [-1, "some", NAN]),
    ("fp16", [True]),
    ("fsdp", ["full_shard", True]),
    ("use_liger_kernel", [True]),
    ("dataloader_num_workers", [-1, 1.5, "all"]),
    ("dataloader_prefetch_factor", [2, -1]),
    ("dataloader_persistent_workers", [True]),
    ("train_sampling_strategy", ["randm", 3]),
    ("report_to", ["nosuchtracker", ["tensorboard", "nosuchtracker"], 5]),
    ("accelerator_config", [{"nonsense": 1}, [1]]),
    ("per_device_train_batch_size", [2.5, True, "8"]),
    ("torch_empty_cache_steps", [0, -2]),
    ("ddp_backend", ["carrier pigeons"]),
    ("ddp_timeout", ["long", -1]),
    ("log_level", ["loud"]),
    ("disable_tqdm", ["perhaps"]),
    ("gradient_checkpointing", ["sometimes"]),
    ("deepspeed", ["nowhere.json"]),
]
"""Fields that chains and grafts share."""

CHAIN_REFUSED: list[tuple[str, list[Any]]] = [
    ("feature_loss_weight", [NAN, True, "500"]),
    ("feature_loss_until", [0, 1.5, NAN]),
    ("image_token_keep", [1.5, -0.5, True]),
    ("unmasked_tail", [2, -1]),
    ("micro_batch_size", [0, -2, True, 3]),
    ("train_sampling_strategy", ["group_by_length"]),
    ("neftune_noise_alpha", [5]),
    ("lora", [{"r": 4}]),
]

NAMED = {"lr_scheduler_kwargs": "lr_scheduler", "accelerator_config": "accelerator_config|nonsense"}
"""What else than the field's name a line may say."""

WARNED: list[tuple[str, dict[str, Any], str]] = [
    ("a rate of zero", {"learning_rate": 0.0}, "learning_rate|adapter"),
    ("a warm-up longer than the training", {"warmup_steps": 10_000}, "warm"),
]

RIGHT: list[tuple[str, dict[str, Any]]] = [
    ("Adafactor", {"optim": "adafactor", "adam_epsilon": GONE}),
    ("SGD", {"optim": "sgd", "adam_epsilon": GONE}),
    ("a polynomial schedule", {"lr_scheduler_type": "polynomial"}),
    ("a cosine with a floor", {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5}}),
    ("checkpoints by epoch", {"save_strategy": "epoch", "save_steps": GONE}),
    ("no checkpoints", {"save_strategy": "no", "save_steps": GONE}),
    ("no log", {"logging_strategy": "no", "logging_steps": GONE}),
    ("a warm-up of a share", {"warmup_steps": 0.5}),
    ("gradient checkpointing", {"gradient_checkpointing": True}),
    ("bfloat16 where there is", {"bf16": "auto"}),
    ("rows in their order", {"train_sampling_strategy": "sequential"}),
]


def cases() -> Iterator[Case]:
    """All of this table."""
    for number, (field, values) in enumerate([*REFUSED, *CHAIN_REFUSED]):
        for value in values:
            # A member that comes late is checked as early as the first.
            place = ("training", "members.1.training")[number % 2]
            change = {place: {field: value}} if place.startswith("members") else {f"training.{field}": value}
            name = f"{place}.{field} is {value!r}"
            words = NAMED.get(field, field)
            yield Case("training", name, "refused", words, write=chain_recipe(change))
    for field, values in REFUSED:
        if field not in ("dataloader_persistent_workers", "log_level", "disable_tqdm"):
            change = {f"training.{field}": values[0]}
            name, words = f"graft, {field} is {values[0]!r}", NAMED.get(field, field)
            yield Case("training", name, "refused", words, write=graft_recipe(change))
    for name, values, words in WARNED:
        given = {f"training.{field}": value for field, value in values.items()}
        yield Case("training", name, "warned", words, write=chain_recipe(given))
        # The parts of a stage have rates of their own.
        parts = {"stages.0.parts": {"adapter": 0.0}} if "learning_rate" in values else given
        yield Case("training", f"graft, {name}", "warned/refused", words, write=graft_recipe(parts))
    for name, values in RIGHT:
        given = {f"training.{field}": value for field, value in values.items()}
        yield Case("training", name, "right", write=chain_recipe(given))
