"""Whether a serving engine answers as transformers does: an exported Llava behind a server of the OpenAI kind.

    hf-chain export runs/graft-scenes/05-decoder llava --format llava-serving
    vllm serve llava --dtype float32 --limit-mm-per-prompt '{"image": 2}'
    python benchmarks/serving.py llava --engine "vLLM 0.32.0 in float32"

Asks both about rendered scenes, with one picture, with two and with none. Results go to
docs/benchmarks/serving.{md,json}.
"""

from __future__ import annotations

import argparse
import base64
import io
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS, TOKENS, SEED = 200, 24, 0
PICTURES = (1, 1, 1, 2, 0)
"""Pictures of one question after the other."""


def main() -> None:
    """Asks transformers and the server, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="what `hf-chain export` wrote, under the name that the server knows it by")
    parser.add_argument("--server", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--engine", required=True, help="the engine, its version and precision, for the page")
    arguments = parser.parse_args()
    questions = _questions(Random(SEED))
    ours = _ask_transformers(arguments.folder, questions)
    theirs = _ask_server(arguments.server, arguments.folder, questions)
    _write_page(arguments.engine, _compare(questions, ours, theirs))


def _questions(random: Random) -> list[dict[str, Any]]:
    from hf_chain.data.scenes.renderer import render
    from hf_chain.data.scenes.scene import TRAINED_PAIRS, sample_scene, scene_questions

    rows = []
    for number in range(QUESTIONS):
        scenes = [sample_scene(random) for _ in range(max(PICTURES))]
        question = random.choice(scene_questions(scenes[0], random, TRAINED_PAIRS))["question"]
        count = PICTURES[number % len(PICTURES)]
        text = question if count else f"{scenes[0].description}. {question}"
        rows.append({"text": text, "pictures": [render(scene, 64) for scene in scenes[:count]]})
    return rows


def _ask_transformers(folder: str, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    answers = []
    for question in questions:
        content = [{"type": "image", "image": picture} for picture in question["pictures"]]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": [*content, {"type": "text", "text": question["text"]}]}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"add_special_tokens": False},
        )
        found = model.generate(
            **inputs, max_new_tokens=TOKENS, do_sample=False, return_dict_in_generate=True, output_scores=True
        )
        prompt = inputs["input_ids"].shape[1]
        tokens = found.sequences[0, prompt:]
        logprobs = [score[0].log_softmax(-1)[token].item() for score, token in zip(found.scores, tokens, strict=True)]
        text = processor.tokenizer.decode(tokens, skip_special_tokens=True)
        answers.append({"text": text.strip(), "prompt": prompt, "logprobs": logprobs})
    return answers


def _ask_server(server: str, model: str, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from huggingface_hub import InferenceClient

    client = InferenceClient(base_url=server, api_key="none")
    answers = []
    for question in questions:
        content = [{"type": "image_url", "image_url": {"url": _inline(picture)}} for picture in question["pictures"]]
        found = client.chat_completion(
            [{"role": "user", "content": [*content, {"type": "text", "text": question["text"]}]}],
            model=model,
            temperature=0,
            max_tokens=TOKENS,
            logprobs=True,
        )
        choice = found.choices[0]
        logprobs = [token.logprob for token in choice.logprobs.content]
        text = choice.message.content.strip()
        answers.append({"text": text, "prompt": found.usage.prompt_tokens, "logprobs": logprobs})
    return answers


def _inline(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _compare(
    questions: list[dict[str, Any]], ours: list[dict[str, Any]], theirs: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    results = []
    for pictures in sorted(set(PICTURES)):
        asked = [
            (our, their)
            for question, our, their in zip(questions, ours, theirs, strict=True)
            if len(question["pictures"]) == pictures
        ]
        same = [(our, their) for our, their in asked if _same(our, their)]
        tokens = [pair for our, their in same for pair in zip(our["logprobs"], their["logprobs"], strict=True)]
        results.append(
            {
                "pictures": pictures,
                "questions": len(asked),
                "same_prompt_length": sum(our["prompt"] == their["prompt"] for our, their in asked),
                "same_answer": len(same),
                "distinct_answers": len({our["text"] for our, _ in asked}),
                "largest_difference": max((abs(one - other) for one, other in tokens), default=None),
            }
        )
    return results


def _same(our: dict[str, Any], their: dict[str, Any]) -> bool:
    return our["text"] == their["text"] and len(our["logprobs"]) == len(their["logprobs"])


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}" if isinstance(value, float) else str(value)


def _write_page(engine: str, results: list[dict[str, Any]]) -> None:
    from families import machine_line
    from hf_chain.cost.table import markdown_table
    from hf_chain.files import write_json, write_text
    from hf_chain.runs.environment import describe_environment

    environment = describe_environment()
    header = ["pictures", "questions", "same prompt length", "same answer", "distinct answers", "largest difference"]
    rows = [[_cell(value) for value in row.values()] for row in results]
    lines = [
        "# Serving an exported graft",
        "",
        f"{engine}, and transformers in float32, answer the same questions about rendered scenes greedily, seed"
        f" {SEED}. *Distinct answers* says how much there was to get wrong. The largest difference is that of the"
        " log-probabilities of the tokens of equal answers. Made by `python benchmarks/serving.py llava`; the page of"
        " this repository is of the model of `make demo-graft`.",
        "",
        markdown_table(header, rows),
        "",
        machine_line(environment),
        "",
    ]
    folder = ROOT / "docs/benchmarks"
    write_text(folder / "serving.md", "\n".join(lines))
    write_json(folder / "serving.json", {"engine": engine, "environment": environment, "results": results})


if __name__ == "__main__":
    from hf_chain.cli import exit_cleanly

    exit_cleanly(main)
