"""What one step of training, and half precision, do to an exported Llava, beside the model that it was made of.

    python benchmarks/export_training.py runs/graft-scenes/05-decoder

Everything is measured on questions about rendered scenes, which that model knows. Results go to
docs/benchmarks/export_training.{md,json}.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SEED, BATCH, QUESTIONS = 0, 16, 400
RATE, LORA_RATE = 2e-5, 2e-4
MODELS = {"native": None, "llava": False, "llava-serving": True}
"""Name of a model, and whether it is an export for serving."""
CASES = ("as it is", "one step, all weights", "one step, LoRA", "float16", "bfloat16")


def main() -> None:
    """Measures every model in every case and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a grafted model")
    parser.add_argument(
        "--model", default="of `graft_scenes.yaml`, its stage `decoder`", help="what it is, for the page"
    )
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for case in CASES:
            for name in MODELS:
                results.append({"case": case, "model": name} | _measure(arguments.folder, name, case, Path(scratch)))
                print(results[-1], flush=True)
    _write_page(arguments.model, results)


def _measure(folder: str, name: str, case: str, scratch: Path) -> dict[str, float]:
    import torch

    from hf_chain.methods.graft.headline import load_grafted

    native, processor = load_grafted(folder)
    model, edges = native, (native.config.image_token_id,) * 2
    if name != "native":
        model, edges = _export(native, processor, scratch / name, MODELS[name])
    train, validation = _batches(processor, edges)
    pixels = validation[0]["pixel_values"]
    exact = _image_embeddings(native, pixels)
    if case.startswith("one step"):
        model = _step(model, train, LORA_RATE if case.endswith("LoRA") else RATE, case.endswith("LoRA"))
    elif case != "as it is":
        model = model.to(getattr(torch, case))
    moved = (_image_embeddings(model, pixels) - exact).norm() / exact.norm()
    loss, right = _answers(model, validation)
    return {"moved": float(moved), "loss": loss, "right": right}


def _export(native: Any, processor: Any, folder: Path, serving: bool | None) -> tuple[Any, tuple[int, int]]:
    """The export, and its tokens for image start and image end."""
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    from hf_chain.grafting.export_llava import IMAGE_END, IMAGE_START, export_llava

    if not folder.exists():
        export_llava(native, processor, folder, serving=bool(serving))
    start, end = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids([IMAGE_START, IMAGE_END])
    return LlavaForConditionalGeneration.from_pretrained(folder).eval(), (start, end)


def _batches(processor: Any, edges: tuple[int, int]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One batch to train on and those to judge by, with image start and image end written as `edges`."""
    from hf_chain.data import ScenesSettings
    from hf_chain.data.chat import ChatCollator, ChatDataSettings, load_chat

    sizes = ScenesSettings(train=BATCH, validation=QUESTIONS, test=8, compositional=8)
    splits = load_chat(ChatDataSettings(source="scenes", scenes=sizes, turns=1), seed=SEED)
    collate = ChatCollator(processor)

    def batch(rows: list[Any]) -> dict[str, Any]:
        made = collate(rows)
        places = made["input_ids"] == processor.image_token_id
        # A row has one image, whose placeholders lie side by side.
        begins, ends = places.int().argmax(1), places.size(1) - 1 - places.flip(1).int().argmax(1)
        for row, (first, last) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
            made["input_ids"][row, first], made["input_ids"][row, last] = edges
        return made

    rows = [splits["validation"][index] for index in range(QUESTIONS)]
    return (
        batch([splits["train"][index] for index in range(BATCH)]),
        [batch(rows[first : first + BATCH]) for first in range(0, QUESTIONS, BATCH)],
    )


def _image_embeddings(model: Any, pixels: Any) -> Any:
    """Of class tokens and patches, float32 [N, T, D]."""
    import torch

    with torch.no_grad():
        model = model.get_base_model() if hasattr(model, "peft_config") else model
        found = torch.stack(list(model.eval().get_image_features(pixels.to(model.dtype)).pooler_output)).float()
    return found[:, 1:-1] if hasattr(model, "image_start") else found


def _step(model: Any, batch: dict[str, Any], rate: float, lora: bool) -> Any:
    """One step of AdamW on all weights, or on LoRA of rank 8 on all linear layers."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(SEED)
    model.requires_grad_(True)
    if lora:
        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=rate)
    model.train()(**batch).loss.backward()
    optimizer.step()
    return model.eval()


def _answers(model: Any, batches: list[dict[str, Any]]) -> tuple[float, float]:
    """Mean loss of the answers' tokens, and the share of questions whose answer is the likeliest, token by token."""
    import torch
    from torch.nn import functional

    losses, right = [], []
    for batch in batches:
        given = {name: value for name, value in batch.items() if name != "labels"}
        given["pixel_values"] = given["pixel_values"].to(next(model.parameters()).dtype)
        labels = batch["labels"][:, 1:]
        with torch.no_grad():
            logits = model(**given).logits[:, :-1].float()
        losses.append(
            functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")[labels.flatten() >= 0]
        )
        right.append(((logits.argmax(-1) == labels) | (labels < 0)).all(1))
    return float(torch.cat(losses).mean()), float(torch.cat(right).float().mean())


def _write_page(model: str, results: list[dict[str, Any]]) -> None:
    from families import machine_line
    from hf_chain.cost.table import markdown_table
    from hf_chain.files import write_json, write_text
    from hf_chain.runs.environment import describe_environment

    environment = describe_environment()
    rows = [
        [found["case"], found["model"], f"{found['moved']:.1e}", f"{found['loss']:.4f}", f"{found['right']:.1%}"]
        for found in results
    ]
    lines = [
        "# Training and casting an exported graft",
        "",
        f"A grafted model ({model}), the Llava that `hf-chain export` makes of it, and the one for serving engines: as"
        f" they are, after one step of AdamW on the same {BATCH}"
        f" questions (learning rate {RATE:g} for all weights, {LORA_RATE:g} for LoRA of rank 8 on all linear layers),"
        " and cast. *Moved* is how far the embeddings of images are from those of the native model as it is, beside"
        f" their size. *Loss* and *right* are over {QUESTIONS} questions about validation scenes, read off one"
        f" forward; seed {SEED}. Made by `python benchmarks/export_training.py runs/graft-scenes/05-decoder`.",
        "",
        markdown_table(["", "model", "moved", "loss", "right"], rows),
        "",
        "The exports have three tokens more, which take a little of every loss. `llava-serving` is for inference in"
        " float32 and bfloat16 alone, as [Grafted models](../grafted_vlm.md#export)"
        " says and the export warns.",
        "",
        machine_line(environment),
        "",
    ]
    folder = ROOT / "docs/benchmarks"
    write_text(folder / "export_training.md", "\n".join(lines))
    write_json(
        folder / "export_training.json", {"environment": environment, "model": model, "seed": SEED, "results": results}
    )


if __name__ == "__main__":
    from hf_chain.cli import exit_cleanly

    exit_cleanly(main)
