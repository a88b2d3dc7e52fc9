"""Free answers are judged by what they are worth: the loss of the reference, and CIDEr-D where that is long."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy

from hf_chain.data.chat import ChatEncoder
from hf_chain.data.chat.rows import FEATURES
from hf_chain.evaluation.captioning import CAPTION_TOKENS, cider_d
from hf_chain.evaluation.free_answers import evaluate_free_answers, response_loss
from hf_chain.evaluation.generate import generate_answers
from hf_chain.methods.graft.evaluation import ask, asked_lengths
from hf_chain.methods.graft.lengths import measure_lengths
from hf_chain.methods.graft.recipe import AnswerSettings
from support.chat_models import chat_tokenizer, learn_by_heart, talk, tiny_language_model, tiny_vlm
from support.grafted_parts import photos

LONG = [
    "the picture shows a red circle above two blue squares",
    "there is a green star on the left and nothing else",
    "three yellow triangles stand in a row on white",
]
SHORT = ["red", "a star", "three"]


def rows_with(responses: list[str], kind: str = "", turns: bool = False) -> Dataset:
    rows = []
    for number, response in enumerate(responses):
        row: dict[str, Any] = talk(f"what is number {number}?", response)
        if turns:
            row["messages"] = [*talk("hello?", "yes, what is it?")["messages"], *row["messages"]]
        rows.append({**row, "kind": kind, "answers": [], "negatives": ""})
    return Dataset.from_list(rows, features=FEATURES)


@pytest.mark.parametrize("turns", [False, True])
def test_the_loss_is_that_of_the_last_response_token_by_token(turns: bool) -> None:
    model, tokenizer, rows = tiny_language_model(), chat_tokenizer(), rows_with(LONG, turns=turns)
    total, tokens = 0.0, 0
    for row, response in zip(rows, LONG, strict=True):
        ids = ChatEncoder(tokenizer).encode(row["messages"]).input_ids
        prompt = len(ChatEncoder(tokenizer).encode_prompt(row["messages"][:-1]))
        said = tokenizer(response, add_special_tokens=False)["input_ids"]
        assert ids[prompt : prompt + len(said)] == said
        end = prompt + len(said) + 1
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[: end - 1]])).logits[0, prompt - 1 :]
        total += float(cross_entropy(logits, torch.tensor(ids[prompt:end]), reduction="sum"))
        tokens += end - prompt
    for batch_size in (1, 2, 16):
        found = response_loss(model, tokenizer, rows, batch_size=batch_size)
        assert found.tokens == tokens and found.nats == pytest.approx(total / tokens, rel=1e-4)


def test_the_loss_looks_at_the_picture() -> None:
    model, processor = tiny_vlm()
    rows = rows_with(LONG[:1])
    row = rows[0] | {"messages": talk("<image>\nwhat is it?", LONG[0])["messages"]}
    red, blue = (Dataset.from_list([row | {"images": [image]}], features=FEATURES) for image in photos(2))
    losses = [response_loss(model, processor, one) for one in (red, blue)]
    assert losses[0].nats != losses[1].nats and losses[0].macs > response_loss(model, processor, rows).macs


def test_long_answers_get_cider_and_are_not_called_wrong() -> None:
    model, tokenizer, rows = tiny_language_model(), chat_tokenizer(), rows_with(LONG)
    found = evaluate_free_answers(model, tokenizer, rows, max_new_tokens=12)
    given = generate_answers(model, tokenizer, rows, max_new_tokens=12)
    assert [one.answer for one in found.answers] == given.texts
    assert found.metrics["response_cider_d"] == pytest.approx(sum(cider_d(given.texts, [[one] for one in LONG])) / 3)
    assert found.metrics["response_loss"] == response_loss(model, tokenizer, rows).nats
    assert found.metrics["exact_match"] == 0 and all(one.correct is None for one in found.answers)
    assert found.macs == given.macs + response_loss(model, tokenizer, rows).macs


def test_short_answers_are_right_or_wrong_and_have_a_loss_too() -> None:
    found = evaluate_free_answers(tiny_language_model(), chat_tokenizer(), rows_with(SHORT), max_new_tokens=4)
    assert found.metrics.keys() == {"exact_match", "response_loss"}
    assert all(one.correct is False for one in found.answers)


def test_a_recipe_asks_rows_without_a_kind_as_free_answers() -> None:
    model, tokenizer = tiny_language_model(), chat_tokenizer()
    rows = Dataset.from_list([*rows_with(["red"], "colour"), *rows_with(LONG)], features=FEATURES)
    (found,) = ask(model, tokenizer, {"validation": rows}, AnswerSettings(max_new_tokens=2)).values()
    assert found.metrics.keys() == {"exact_match", "exact_match_colour", "response_loss", "response_cider_d"}
    free = evaluate_free_answers(model, tokenizer, rows.select([1, 2, 3]), max_new_tokens=CAPTION_TOKENS)
    assert found.answers[1:] == free.answers and found.metrics["response_loss"] == free.metrics["response_loss"]
    assert [one.correct for one in found.answers] == [False, None, None, None]


@pytest.mark.parametrize("batch_size", [2, 64])
def test_free_answers_cost_what_is_planned(batch_size: int) -> None:
    model, tokenizer, rows = tiny_language_model(), chat_tokenizer(), rows_with(LONG)
    learn_by_heart(model, tokenizer, rows)
    settings = AnswerSettings(batch_size=batch_size)
    (found,) = ask(model, tokenizer, {"validation": rows}, settings).values()
    # It knows them by heart, so they are as long as the references.
    assert found.metrics["exact_match"] == 1 and found.metrics["response_loss"] < 0.1
    assert all(one.correct for one in found.answers)
    measure = partial(measure_lengths, tokenizer=tokenizer, name="validation", image_positions=5)
    (planned,) = asked_lengths(rows, settings, measure)
    assert planned.way == "free" and planned.macs(model, settings) == pytest.approx(found.macs, rel=0.1)


def test_a_row_without_a_response_is_left_out_of_the_loss(caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer, rows = tiny_language_model(), chat_tokenizer(), rows_with(LONG)
    unanswered = rows[0] | {"messages": rows[0]["messages"][:1]}
    mixed = Dataset.from_list([unanswered, *rows], features=FEATURES)
    assert response_loss(model, tokenizer, mixed).nats == pytest.approx(response_loss(model, tokenizer, rows).nats)
    assert "row 0: there is no response; remove that row; it is left out of the loss" in caplog.text
    assert response_loss(model, tokenizer, mixed.select([0])).tokens == 0
