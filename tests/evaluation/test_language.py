"""Nats a token and bits a byte are those of the text, whatever batches and tokenizers make of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer

from hf_chain.data import PackedTextDataset, TextSettings, train_text_tokenizer
from hf_chain.data.chat.template import train_chat_tokenizer
from hf_chain.data.text_tokenizer import token_bytes
from hf_chain.errors import HfChainError
from hf_chain.evaluation import EVALUATORS, METRICS, evaluate_language, find_evaluator, metric_of
from support.language_models import tiny_language_model

TEXTS = [f"{number} žluťoučkých koní 🙂 went north, and {number % 7} came back." for number in range(60)]
TOKENIZER = train_text_tokenizer(TEXTS, 300)


@pytest.fixture(scope="module")
def rows() -> PackedTextDataset:
    return PackedTextDataset(Dataset.from_dict({"text": TEXTS}), TextSettings(source="x", row_tokens=12), TOKENIZER)


def test_what_is_measured_is_the_loss_over_the_text_it_is_of(rows: PackedTextDataset) -> None:
    model = tiny_language_model(vocab_size=300).train()
    found = evaluate_language(model, TOKENIZER, rows, batch_size=7)
    ids = torch.stack([row["input_ids"] for row in rows])
    with torch.no_grad():
        nats = model.eval()(input_ids=ids, labels=ids).loss.item()
    model.train()
    text = sum(len(TOKENIZER.decode(row[1:], skip_special_tokens=True).replace("\ufffd", "").encode()) for row in ids)
    tokens = ids[:, 1:].numel()
    assert found.metrics["nats_per_token"] == pytest.approx(nats, rel=1e-6)
    # Characters that are cut at an end of a row have bytes here, and are no text there.
    assert found.metrics["bits_per_byte"] == pytest.approx(nats * tokens / text / math.log(2), rel=0.03)
    assert found.trials == {"nats_per_token": tokens, "bits_per_byte": tokens}
    assert found.chance["nats_per_token"] == pytest.approx(math.log(300))
    assert found.chance["bits_per_byte"] / found.metrics["bits_per_byte"] == pytest.approx(math.log(300) / nats)
    assert all(module.training for module in model.modules())
    assert evaluate_language(model, TOKENIZER, rows, batch_size=7) == found
    other = evaluate_language(model, TOKENIZER, rows, batch_size=64)
    assert other.metrics == pytest.approx(found.metrics, rel=1e-6) and other.macs == found.macs


def test_the_cost_is_what_torch_counts(rows: PackedTextDataset) -> None:
    model = tiny_language_model("gpt2", vocab_size=300, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        found = evaluate_language(model, TOKENIZER, rows, max_samples=9)
    assert found.trials["nats_per_token"] == 9 * 11
    assert 2 * found.macs == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_bfloat16_measures_nearly_the_same(rows: PackedTextDataset) -> None:
    model = tiny_language_model(vocab_size=300)
    exact, rough = (evaluate_language(model, TOKENIZER, rows, max_samples=8, bf16=bf16) for bf16 in (False, True))
    assert exact.metrics != rough.metrics and rough.metrics == pytest.approx(exact.metrics, rel=0.01)


@pytest.mark.parametrize("kind", ["ours", "chat", "loaded"])
def test_bytes_of_tokens_add_up_to_the_text(kind: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZER
    if kind == "chat":
        tokenizer = train_chat_tokenizer([{"messages": [{"content": text}]} for text in TEXTS], 300)
    elif kind == "loaded":
        TOKENIZER.save_pretrained(tmp_path)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    sizes = token_bytes(tokenizer)
    space = int(kind == "chat")
    for text in (*TEXTS[:4], "猫 and 🙂\n\n", "  a\tb"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert sizes[ids].sum() == len(text.encode()) + (space and not text.startswith(" "))
    assert sizes[tokenizer.eos_token_id] == 0


def test_what_cannot_be_measured_is_refused(rows: PackedTextDataset) -> None:
    model = tiny_language_model(vocab_size=300)
    with pytest.raises(HfChainError, match="^The evaluation data has no rows"):
        evaluate_language(model, TOKENIZER, [])
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(math.nan)
    with pytest.raises(HfChainError, match="^the model's predictions are not finite"):
        evaluate_language(model, TOKENIZER, rows, max_samples=1)


def test_metrics_say_how_they_are_read() -> None:
    assert find_evaluator("language") is evaluate_language and EVALUATORS["language"] == "evaluate_language"
    assert metric_of("zero_shot_top1").is_share and not metric_of("zero_shot_top1").lower_is_better
    assert metric_of("text_to_image_r5").title == "text → image R@5"
    for name in ("nats_per_token", "bits_per_byte", "reconstruction"):
        assert METRICS[name].lower_is_better and not METRICS[name].is_share
    assert metric_of("exact_match").title == "exact match" and metric_of("exact_match").is_share
