"""Whether a surrogate drafts for its target: tokens a second with and without it, and how many drafts are right.

    python benchmarks/assisted.py

Trains a small vision-language model on rendered scenes, deepens it by layers that begin as the identity, trains it a
little more as a whole, and cuts surrogates of several depths out of it, as is done of a large language model. Then the
model answers alone and with each of them as `assistant_model`. About 6 minutes on two cores. Results go to
docs/benchmarks/assisted.{md,json}.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import mean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[1]
SEED, BATCH, STEPS, MORE_STEPS = 0, 8, 90, 12
TRUNK, LAYERS, IMAGE = 6, 24, 32
SIZE = {"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8}
TOWER = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 3}
CUTS = {"6 of 24 layers": "3-21", "12 of 24 layers": "6-18", "17 of 24 layers": "10-17"}
"""Surrogate -> layers of the target that one layer stands in for."""
STRENGTHS = (4.0, 16.0)
"""Factors on what the inserted layers write."""
QUESTIONS, TOKENS, DRAFTS = 5, 48, 5
QUESTION = "<image>\ndescribe the picture"


def main() -> None:
    """Trains, measures and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS, help="of training, before the model is deepened")
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    arguments = parser.parse_args()
    import torch

    torch.manual_seed(SEED)
    target, processor, losses = _trained_target(arguments.steps)
    torch.set_num_threads(1)
    prompts = _prompts(processor, arguments.questions)
    depths = _measure(target, prompts, _assistants(target))
    strengths = []
    for strength in STRENGTHS:
        model = _with_strength(target, strength)
        strengths += [row | {"strength": strength} for row in _measure(model, prompts, _deepest(model))]
    _write_page(arguments, losses, depths, strengths)


def _row(random: Random) -> dict[str, Any]:
    from hf_chain.data.scenes.renderer import render
    from hf_chain.data.scenes.scene import TRAINED_PAIRS, sample_scene, scene_captions, scene_questions

    scene = sample_scene(random)
    asked = scene_questions(scene, random, TRAINED_PAIRS)
    told = [*scene_captions(scene, random)[:2], *(f"{one['question']} {one['answer']}" for one in asked[:3])]
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ". ".join(told)}]
    return {"messages": messages, "images": [render(scene, IMAGE)]}


def _trained_target(steps: int) -> tuple[Any, Any, list[float]]:
    """A model of few layers, trained; then with many, trained a little more."""
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel, LlamaForCausalLM

    from hf_chain.data.chat import ChatCollator, train_chat_tokenizer
    from hf_chain.models import from_parts

    random = Random(SEED)
    tokenizer = train_chat_tokenizer((_row(random) for _ in range(200)), vocab_size=600)
    trunk = LlamaForCausalLM(_config(len(tokenizer), TRUNK))
    encoder = CLIPVisionModel(CLIPVisionConfig(image_size=IMAGE, patch_size=8, **TOWER))
    pixels = CLIPImageProcessorPil(size={"shortest_edge": IMAGE}, crop_size={"height": IMAGE, "width": IMAGE})
    model, processor = from_parts(encoder, trunk, tokenizer, pixels)
    collate = ChatCollator(processor)
    first = _train(model, lambda: collate([_row(random) for _ in range(BATCH)]), steps, 1e-3)
    deep = _with_decoder(model, _deepened(model.language_model, LAYERS))
    second = _train(deep, lambda: collate([_row(random) for _ in range(BATCH)]), MORE_STEPS, 2e-4)
    return deep.eval(), processor, [first, second]


def _config(words: int, layers: int) -> Any:
    from transformers import LlamaConfig

    marks = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return LlamaConfig(vocab_size=words, num_hidden_layers=layers, max_position_embeddings=512, **SIZE, **marks)


def _train(model: Any, batch: Callable[[], dict[str, torch.Tensor]], steps: int, rate: float) -> float:
    """Trains all weights; returns the mean loss of the last ten steps."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    losses = []
    model.train()
    for _ in range(steps):
        loss = model(**batch()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
    return mean(losses[-10:])


def _deepened(trunk: Any, layers: int) -> Any:
    """The same function with more layers: those in the middle write nothing yet."""
    import torch

    deep = type(trunk)(_config(trunk.config.vocab_size, layers))
    head = TRUNK // 2
    state = deep.state_dict()
    for name, weight in trunk.state_dict().items():
        if name.startswith("model.layers."):
            number = int(name.split(".")[2])
            place = number if number < head else number + layers - TRUNK
            name = name.replace(f"layers.{number}.", f"layers.{place}.")
        state[name] = weight
    deep.load_state_dict(state)
    with torch.no_grad():
        for layer in _inserted(deep):
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return deep


def _inserted(language_model: Any) -> Any:
    head = TRUNK // 2
    return language_model.model.layers[head : head + LAYERS - TRUNK]


def _with_decoder(model: Any, language_model: Any) -> Any:
    from hf_chain.models.grafted_vlm.assembly import with_image_half
    from hf_chain.models.grafted_vlm.configuration_grafted_vlm import GraftedVLMConfig

    given = model.config.to_dict() | {"text_config": language_model.config}
    given.pop("model_type")
    return with_image_half(GraftedVLMConfig(**given), model, language_model)


def _assistants(target: Any) -> dict[str, Any]:
    """Name -> what helps; a surrogate sees the picture through the target's own image half, as after a graft."""
    from hf_chain import build_surrogate

    found: dict[str, Any] = {}
    for name, replaced in CUTS.items():
        surrogate = build_surrogate(target.language_model, replaced=replaced)
        found[f"surrogate, {name}"] = _with_decoder(target, surrogate)
    found["the first without pictures"] = build_surrogate(target.language_model, replaced=CUTS["6 of 24 layers"])
    return found


def _deepest(target: Any) -> dict[str, Any]:
    name, helper = next(iter(_assistants(target).items()))
    return {name: helper}


def _with_strength(target: Any, strength: float) -> Any:
    """The target whose inserted layers write more than they were trained to."""
    import torch

    model = copy.deepcopy(target)
    with torch.no_grad():
        for layer in _inserted(model.language_model):
            layer.self_attn.o_proj.weight.mul_(strength)
            layer.mlp.down_proj.weight.mul_(strength)
    return model


def _prompts(processor: Any, questions: int) -> list[dict[str, torch.Tensor]]:
    random = Random(SEED + 1)
    prompts = []
    for _ in range(questions):
        row = _row(random)
        content = [{"type": "image", "image": row["images"][0]}, {"type": "text", "text": "describe the picture"}]
        chat = [{"role": "user", "content": content}]
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        prompts.append(dict(processor.apply_chat_template(chat, **options)))
    return prompts


def _measure(target: Any, prompts: list[dict[str, torch.Tensor]], helpers: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each way, all of them in turn for each prompt, in CPU seconds of one thread."""
    ways: dict[str, dict[str, Any]] = {"alone": {}, "words of the prompt": {"prompt_lookup_num_tokens": 3}}
    for name, helper in helpers.items():
        settings = {"num_assistant_tokens": DRAFTS, "num_assistant_tokens_schedule": "constant"}
        helper.generation_config.update(**settings, assistant_confidence_threshold=0.0)
        ways[name] = {"assistant_model": helper}
    facts = {way: {"seconds": 0.0, "tokens": 0, "steps": 0, "drafted": 0, "same": 0} for way in ways}
    answered(target, prompts[0], {})  # warms up
    for prompt in prompts:
        expected = None
        for way, options in ways.items():
            found, told = answered(target, prompt, options)
            expected = found if expected is None else expected
            told["same"] = int(found.tolist() == expected.tolist())
            for key, value in told.items():
                facts[way][key] += value
    alone = facts["alone"]["tokens"] / facts["alone"]["seconds"]
    return [
        {
            "way": way,
            "tokens_per_second": told["tokens"] / told["seconds"],
            "speed_up": told["tokens"] / told["seconds"] / alone,
            "tokens_per_step": told["tokens"] / told["steps"],
            "drafts_right": (told["tokens"] - told["steps"]) / told["drafted"] if told["drafted"] else None,
            "same_answers": told["same"],
        }
        for way, told in facts.items()
    ]


def answered(target: Any, prompt: dict[str, torch.Tensor], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """An answer and what it took: CPU seconds, tokens, steps of the target and of its assistant."""
    steps, drafted = [], []
    hooks = [target.language_model.register_forward_hook(lambda *_: steps.append(1))]
    if (helper := options.get("assistant_model")) is not None:
        part = getattr(helper, "language_model", helper)
        hooks.append(part.register_forward_hook(lambda *_: drafted.append(1)))
    begun = time.process_time()
    found = target.generate(**prompt, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False, **options)
    seconds = time.process_time() - begun
    for hook in hooks:
        hook.remove()
    tokens = found.shape[1] - prompt["input_ids"].shape[1]
    return found, {"seconds": seconds, "tokens": tokens, "steps": len(steps), "drafted": len(drafted)}


def _table(rows: list[dict[str, Any]], questions: int, first: str = "way") -> str:
    from hf_chain.cost.table import markdown_table

    header = ["", "tokens/s", "against alone", "tokens a step", "drafts right", "same answers"]
    cells = [
        [
            str(row[first]),
            f"{row['tokens_per_second']:.1f}",
            f"{row['speed_up']:.2f} ×",
            f"{row['tokens_per_step']:.2f}",
            "–" if row["drafts_right"] is None else f"{row['drafts_right']:.0%}",
            f"{row['same_answers']} of {questions}",
        ]
        for row in rows
    ]
    return markdown_table(header, cells)


def _write_page(
    arguments: argparse.Namespace, losses: list[float], depths: list[dict[str, Any]], strengths: list[dict[str, Any]]
) -> None:
    from hf_chain.files import write_json, write_text
    from hf_chain.runs.environment import describe_environment

    environment = describe_environment()
    versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
    told = [row | {"way": f"{row['strength']:g} times: {row['way']}"} for row in strengths]
    best = max((row for row in depths if "surrogate" in row["way"]), key=lambda row: row["speed_up"])
    lines = [
        "# A surrogate drafts for its target",
        "",
        f"A grafted model of {LAYERS} layers of width {SIZE['hidden_size']} describes scenes greedily, {TOKENS} tokens"
        f" each, alone and with an `assistant_model`. It was trained for {arguments.steps} steps with {TRUNK} layers"
        f" (loss {losses[0]:.2f}), deepened by {LAYERS - TRUNK} layers in the middle that began as the identity, and"
        f" trained for {MORE_STEPS} more as a whole (loss {losses[1]:.2f}); batches of {BATCH}, seed {SEED}. The"
        " surrogates are `build_surrogate`'s, one layer standing in for those replaced, and see the picture through"
        " the target's image half. Nothing was trained on them. *Words of the prompt* is `prompt_lookup_num_tokens=3`."
        f" Drafts of {DRAFTS} tokens. Float32, CPU time of one thread, all ways in turn on the same prompts. *Tokens a"
        " step* are those that one forward of the target yields. Made by"
        " `python benchmarks/assisted.py`.",
        "",
        _table(depths, arguments.questions),
        "",
        f"The best is the {best['way']}: {best['speed_up']:.2f} ×. A draft must be cheap as well as right: where"
        f" it costs the share c of a target's step, {DRAFTS} drafts that are all right give {DRAFTS + 1} tokens for"
        f" 1 + {DRAFTS} c steps, before what transformers spends on each round. The published cuts keep 19 of 32 and"
        f" 42 of 80 layers: at c = 0.6 that is {(DRAFTS + 1) / (1 + DRAFTS * 0.6):.2f} × at the very most. **Cut a"
        " surrogate for drafting deeper than one for training.**",
        "",
        "## Where the layers that are cut do more",
        "",
        "The same target, with what its inserted layers write multiplied. Its answers get worse and are not the point:"
        " the surrogate agrees less, and pays less. A draft that is mostly wrong makes the target slower, as the blind"
        " one above does, which is the first surrogate's language model alone.",
        "",
        _table(told, arguments.questions),
        "",
        f"Hardware: {environment['hardware']}. {versions}.",
        "",
    ]
    folder = ROOT / "docs/benchmarks"
    write_text(folder / "assisted.md", "\n".join(lines))
    facts = {"seed": SEED, "steps": [arguments.steps, MORE_STEPS], "losses": losses, "environment": environment}
    write_json(folder / "assisted.json", facts | {"depths": depths, "strengths": strengths})


if __name__ == "__main__":
    from hf_chain.cli import exit_cleanly

    exit_cleanly(main)
