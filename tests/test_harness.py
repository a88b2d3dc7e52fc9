"""The language-model harness of another group runs on our models with the command that the documentation shows."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from support.chat_models import chat_tokenizer, tiny_language_model
from support.recipes import environment

ROOT = Path(__file__).resolve().parents[1]


def documented(program: str) -> list[str]:
    """The words of the command of `program` in the documentation of the evaluation, without the program itself."""
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    (found,) = [line for line in lines if line.startswith(f"{program} ")]
    return shlex.split(found)[1:]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_lm_eval_asks_a_stock_model_the_documented_way(tmp_path: Path, checkout: Path) -> None:
    pytest.importorskip("lm_eval")
    tokenizer = chat_tokenizer()
    tiny_language_model(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    model = "pretrained=runs/graft-scenes/02-surrogate"
    words = documented("lm_eval")
    assert model in words
    words[words.index(model)] = f"pretrained={tmp_path / 'model'}"
    finished = subprocess.run(
        [sys.executable, "-m", "lm_eval", *words, "--output_path", str(tmp_path / "out"), "--log_samples"],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert re.search(r"\|scenes_text\|.*\|exact_match\|", finished.stdout)
    (results,) = tmp_path.glob("out/*/results_*.json")
    assert 0 <= json.loads(results.read_text())["results"]["scenes_text"]["exact_match,none"] <= 1
    (samples,) = tmp_path.glob("out/*/samples_*.jsonl")
    asked = [json.loads(line) for line in samples.read_text().splitlines()]
    rows = (ROOT / "examples" / "harness" / "scenes.jsonl").read_text().splitlines()
    assert [sample["doc"] for sample in asked] == [json.loads(row) for row in rows]
    for sample in asked:
        turn = [{"role": "user", "content": f"{sample['doc']['description']}\n{sample['doc']['question']}"}]
        prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        assert sample["arguments"]["gen_args_0"]["arg_0"] == prompt
