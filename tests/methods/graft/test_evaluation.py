"""Questions and pictures to describe in one split: each scored its own way, in the order of the rows."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from hf_chain.data.chat import ChatDataSettings, load_chat
from hf_chain.data.chat.question_makers import CAPTION_KIND
from hf_chain.data.chat.rows import FEATURES
from hf_chain.evaluation.captioning import CAPTION_TOKENS, cider_d
from hf_chain.evaluation.question_answering import evaluate_answers
from hf_chain.methods.graft.evaluation import ask, asked_lengths, caption_tokens
from hf_chain.methods.graft.lengths import measure_lengths
from hf_chain.methods.graft.recipe import AnswerSettings
from support.chat_models import chat_tokenizer, learn_by_heart, talk, tiny_language_model, tiny_vlm

CAPTIONS = [
    ["a red circle", "there is one circle"],
    ["two small blue squares on a plain white background", "squares"],
    ["the largest shape is a green star", "a star"],
]
QUESTIONS = [("what colour is the circle?", "red"), ("is there a green star?", "no")]


def mixed_rows() -> Dataset:
    """Captions and questions in turns, without pictures."""
    rows: list[dict[str, Any]] = [
        {**talk(f"{captions[-1]}?\nDescribe the picture.", captions[0]), "kind": CAPTION_KIND, "answers": captions[1:]}
        for captions in CAPTIONS
    ]
    asked = [{**talk(*question), "kind": "colour", "answers": []} for question in QUESTIONS]
    order = [rows[0], asked[0], rows[1], asked[1], rows[2]]
    return Dataset.from_list([{**row, "negatives": ""} for row in order], features=FEATURES)


def test_a_split_may_have_both() -> None:
    model, tokenizer = tiny_language_model(), chat_tokenizer()
    rows, settings = mixed_rows(), AnswerSettings(batch_size=2, max_new_tokens=3)
    (found,) = ask(model, tokenizer, {"validation": rows}, settings).values()
    alone = evaluate_answers(model, tokenizer, rows.select([1, 3]), batch_size=2, max_new_tokens=3)
    assert [one.expected[0] for one in found.answers] == [row["messages"][-1]["content"] for row in rows]
    assert [found.answers[number] for number in (1, 3)] == alone.answers
    assert {name: found.metrics[name] for name in alone.metrics} == alone.metrics
    described = [one for one in found.answers if one.kind == CAPTION_KIND]
    assert [one.expected for one in described] == [tuple(captions) for captions in CAPTIONS]
    assert all(one.correct is None for one in described)
    scores = cider_d([one.answer for one in described], CAPTIONS)
    assert found.metrics["cider_d"] == pytest.approx(sum(scores) / 3)
    assert found.metrics.keys() - alone.metrics.keys() == {"cider_d", "caption_words"} and found.macs > alone.macs


def test_questions_alone_are_asked_as_ever() -> None:
    model, tokenizer = tiny_language_model(), chat_tokenizer()
    rows, settings = mixed_rows().select([1, 3]), AnswerSettings(max_new_tokens=3, max_samples=1)
    (found,) = ask(model, tokenizer, {"validation": rows}, settings).values()
    alone = evaluate_answers(model, tokenizer, rows, batch_size=64, max_new_tokens=3, max_samples=1)
    assert (found.metrics, found.answers, found.macs) == (alone.metrics, alone.answers, alone.macs)


def test_photographs_are_described(shared: Path) -> None:
    images = {"source": str(shared / "data" / "flickr-captions"), "caption_column": "captions"}
    rows = load_chat(ChatDataSettings.model_validate({"source": "captions", "images": images}))["validation"]
    (found,) = ask(*tiny_vlm(), {"photographs": rows}, AnswerSettings(max_samples=4)).values()
    assert found.metrics.keys() == {"cider_d", "caption_words"} and len(found.answers) == 4
    assert all(len(one.expected) == 5 for one in found.answers)


def test_captions_may_be_longer_than_answers() -> None:
    assert caption_tokens(AnswerSettings(max_new_tokens=4)) == CAPTION_TOKENS
    assert caption_tokens(AnswerSettings(max_new_tokens=100)) == 100


@pytest.mark.parametrize("batch_size", [2, 64])
def test_what_a_model_says_that_knows_the_captions_costs_what_is_planned(batch_size: int) -> None:
    model, tokenizer, rows = tiny_language_model(), chat_tokenizer(), mixed_rows().select([0, 2, 4])
    learn_by_heart(model, tokenizer, rows)
    settings = AnswerSettings(batch_size=batch_size)
    (found,) = ask(model, tokenizer, {"captions": rows}, settings).values()
    assert [one.answer for one in found.answers] == [captions[0] for captions in CAPTIONS]
    measure = partial(measure_lengths, tokenizer=tokenizer, name="captions", image_positions=5)
    (planned,) = asked_lengths(rows, settings, measure)
    assert planned.way == "caption" and planned.macs(model, settings) == pytest.approx(found.macs, rel=0.1)


def test_both_kinds_are_planned_in_the_shares_they_have() -> None:
    measure = partial(measure_lengths, tokenizer=chat_tokenizer(), name="both", image_positions=5)
    planned = list(asked_lengths(mixed_rows(), AnswerSettings(), measure))
    assert [(part.asked, part.way) for part in planned] == [(3, "caption"), (2, "question")]
