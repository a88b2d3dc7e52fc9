"""Images a second of ChainTrainer against a plain PyTorch loop on the same model and data, in one process.

    python benchmarks/throughput.py

The arms take turns in short blocks, so that whatever else the machine does hits all of them alike; ratios are medians
over rounds of blocks. Results go to docs/benchmarks/throughput.{md,json}.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from transformers import CLIPModel, TrainerCallback, set_seed

from families import ROOT, machine_line
from hf_chain.cli import exit_cleanly
from hf_chain.distillation.cache import cached_teacher
from hf_chain.files import write_json, write_text
from hf_chain.methods.chain.family_data import FamilyData, load_family_data
from hf_chain.methods.chain.recipe import Recipe, load_recipe
from hf_chain.runs.environment import describe_environment
from hf_chain.trainer import ChainConfig, ChainTrainer

SETTINGS = ["data.scenes.train=4096", "data.scenes.validation=8", "data.scenes.test=8", "data.scenes.compositional=8"]
TEACHER = "vision: {hidden_size: 48, num_hidden_layers: 3}, text: {hidden_size: 48, num_hidden_layers: 2}"
STUDENT = "vision: {hidden_size: 96, num_hidden_layers: 3}, text: {hidden_size: 96, num_hidden_layers: 2}"
SETTINGS += [f"members=[{{name: tiny, epochs: 5, {TEACHER}}}, {{name: small, epochs: 1.5, {STUDENT}}}]"]


def main() -> None:
    """Measures all arms and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=6, help="steps of a block")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = [*SETTINGS, "data.keep_decoded=true", f"output_dir={folder}"]
        recipe = load_recipe(ROOT / "examples/recipes/scenes_encoder_short.yaml", settings)
        data = load_family_data(recipe, main_process=True)
        for row in range(len(data.train)):
            data.train[row]
        blocks = _arms(recipe, data, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in blocks}
        for number in range(arguments.rounds + 1):
            for name, block in blocks.items():
                taken = block(arguments.steps)
                if number:
                    seconds[name].append(taken)
    _write(recipe, seconds, arguments.steps)


def _arms(recipe: Recipe, data: FamilyData, folder: Path) -> dict[str, Callable[[int], float]]:
    """Name to a function that trains some steps and returns the seconds a step took."""
    teacher, student = _model(recipe, data, 0), _model(recipe, data, 1)
    batch = recipe.training["per_device_train_batch_size"]
    cache = cached_teacher(teacher, data.train, data.collator, folder / "cache", batch, bf16=True)
    return {
        "plain loop": _plain_loop(student, data, recipe),
        "ChainTrainer": _trainer_block(student, data, recipe, folder, None),
        "ChainTrainer, live teacher": _trainer_block(student, data, recipe, folder, teacher),
        "ChainTrainer, cached teacher": _trainer_block(student, data, recipe, folder, cache),
        "the teacher's forward alone": _teacher_forward(teacher, data, batch),
    }


def _model(recipe: Recipe, data: FamilyData, index: int) -> CLIPModel:
    member, tokenizer = recipe.members[index], data.processor.tokenizer
    shapes = (member.vision, member.text, member.projection_dim)
    tokens = (len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    set_seed(index)
    return CLIPModel(recipe.model.clip_config(*shapes, *tokens))


def _batches(data: FamilyData, size: int) -> Iterator[dict[str, torch.Tensor]]:
    while True:
        yield from DataLoader(data.train, batch_size=size, shuffle=True, collate_fn=data.collator, drop_last=True)


def _plain_loop(model: CLIPModel, data: FamilyData, recipe: Recipe) -> Callable[[int], float]:
    """The loop anybody would write: stock CLIPModel, its own loss, autocast, AdamW, clipping, cosine schedule."""
    set_seed(0)
    model = type(model)(model.config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10_000)
    batches = _batches(data, recipe.training["per_device_train_batch_size"])

    def block(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            batch = next(batches)
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(
                    input_ids=batch["input_ids"].squeeze(1),
                    attention_mask=batch["attention_mask"].squeeze(1),
                    pixel_values=batch["pixel_values"],
                    return_loss=True,
                ).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            loss.item()
        return (time.perf_counter() - start) / steps

    return block


def _teacher_forward(teacher: CLIPModel, data: FamilyData, size: int) -> Callable[[int], float]:
    batches = [next(batch) for batch in [_batches(data, size)] for _ in range(4)]

    def block(steps: int) -> float:
        start = time.perf_counter()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for step in range(steps):
                batch = batches[step % len(batches)]
                ids, mask = batch["input_ids"].squeeze(1), batch["attention_mask"].squeeze(1)
                teacher.get_image_features(batch["pixel_values"])
                teacher.get_text_features(ids, attention_mask=mask)
        return (time.perf_counter() - start) / steps

    return block


class _Clock(TrainerCallback):
    """Seconds between the ends of the first and the last step, without the Trainer's start and finish."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        self.ends.append(time.perf_counter())


def _trainer_block(
    model: CLIPModel, data: FamilyData, recipe: Recipe, folder: Path, teacher: object
) -> Callable[[int], float]:
    def block(steps: int) -> float:
        clock = _Clock()
        args = ChainConfig(
            output_dir=str(folder),
            max_steps=steps + 1,
            disable_tqdm=True,
            save_strategy="no",
            use_cpu=True,
            logging_steps=1,
            **{key: value for key, value in recipe.training.items() if key not in ("logging_steps", "save_steps")},
        )
        trainer = ChainTrainer(
            type(model)(model.config),
            args,
            teacher,  # type: ignore[arg-type]
            train_dataset=data.train,
            data_collator=data.collator,
            callbacks=[clock],
        )
        trainer.train()
        return (clock.ends[-1] - clock.ends[0]) / steps

    return block


def _write(recipe: Recipe, seconds: dict[str, list[float]], steps: int) -> None:
    size = recipe.training["per_device_train_batch_size"]
    median = {name: statistics.median(values) for name, values in seconds.items()}

    def ratio(arm: str, *parts: str) -> float:
        """Median over rounds of the arm's time over the sum of the parts' times in the same round."""
        rounds = zip(seconds[arm], *(seconds[part] for part in parts), strict=True)
        return statistics.median(own / sum(others) for own, *others in rounds)

    trainer, live, cached = "ChainTrainer", "ChainTrainer, live teacher", "ChainTrainer, cached teacher"
    ratios = {
        "ChainTrainer / plain loop": (ratio(trainer, "plain loop"), 1.05),
        "live teacher / (ChainTrainer + teacher's forward)": (
            ratio(live, trainer, "the teacher's forward alone"),
            1.05,
        ),
        "cached teacher / ChainTrainer": (ratio(cached, trainer), 1.03),
    }
    environment = describe_environment()
    lines = [
        "# Throughput of ChainTrainer",
        "",
        f"A CLIP of 96 × 3 and 96 × 2, the teacher one of 48, on rendered scenes, batch {size}, bf16, images already "
        f"decoded; medians of {len(next(iter(seconds.values())))} rounds of {steps} steps in which the arms take "
        "turns. Made by `python benchmarks/throughput.py`.",
        "",
        "| arm | ms a step | images/s |",
        "|---|---:|---:|",
        *(f"| {name} | {1e3 * value:.1f} | {size / value:.0f} |" for name, value in median.items()),
        "",
        "| time ratio | measured | aim |",
        "|---|---:|---:|",
        *(f"| {name} | {value:.3f} | ≤ {aim:.2f} |" for name, (value, aim) in ratios.items()),
        "",
        machine_line(environment),
        "",
    ]
    target = ROOT / "docs/benchmarks"
    target.mkdir(parents=True, exist_ok=True)
    write_text(target / "throughput.md", "\n".join(lines))
    write_json(
        target / "throughput.json",
        {
            "environment": environment,
            "seed": 0,
            "batch": size,
            "seconds_per_step": seconds,
            "ratios": {name: value for name, (value, _) in ratios.items()},
        },
    )


if __name__ == "__main__":
    exit_cleanly(main)
