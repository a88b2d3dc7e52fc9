"""Answers are generated, judged and summed up as the benchmarks do, and cost what is counted."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from datasets import Dataset
from PIL import Image
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from hf_chain.cost.macs import decoder_macs, encoder_macs
from hf_chain.data.chat import ChatCollator, ChatEncoder
from hf_chain.data.chat.rows import FEATURES
from hf_chain.errors import HfChainError
from hf_chain.evaluation.forced import _forced, forced_answers
from hf_chain.evaluation.generate import generate_answers, stop_tokens
from hf_chain.evaluation.question_answering import (
    Answered,
    answer_metrics,
    evaluate_answers,
    normalise_answer,
    parse_yes_no,
    spread,
    yes_no_metrics,
)
from support.chat_models import TEMPLATES, chat_tokenizer, talk, tiny_language_model, tiny_vlm

QUESTIONS = [
    ("what colour is the circle?", "red", "colour"),
    ("how many shapes are there?", "two", "count"),
    ("is there a green star in the picture, on the plain white background?", "no", "exists"),
    ("red?", "a large red circle", "what"),
    ("blue?", "yes", "exists"),
]


def rows_of(questions, picture=None):
    rows = []
    for question, answer, kind in questions:
        row = talk(("<image>\n" if picture else "") + question, answer)
        images = [{"path": str(picture), "bytes": None}] if picture else []
        rows.append({**row, "images": images, "kind": kind, "answers": [], "negatives": ""})
    return Dataset.from_list(rows, features=FEATURES)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (16, 16), "red").save(path)
    return path


@pytest.fixture(scope="module")
def taught():
    """A small language model that has learnt half of the answers by heart."""
    model, tokenizer = tiny_language_model(), chat_tokenizer()
    rows = rows_of(QUESTIONS[:3])
    batch = ChatCollator(tokenizer)([rows[n] for n in range(3)])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    model.train()
    for _ in range(35):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return model.eval(), tokenizer


def test_a_model_that_knows_answers_gets_them_right(taught):
    model, tokenizer = taught
    result = evaluate_answers(model, tokenizer, rows_of(QUESTIONS), batch_size=2, max_new_tokens=6)
    assert [one.correct for one in result.answers[:3]] == [True] * 3
    assert [one.answer for one in result.answers[:3]] == ["red", "two", "no"]
    assert result.metrics["exact_match"] >= 0.6 and result.metrics["exact_match_colour"] == 1
    assert result.metrics["exact_match"] == sum(one.correct for one in result.answers) / 5
    assert result.answers[0].question == QUESTIONS[0][0]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_answers_do_not_depend_on_the_batch(taught, batch_size):
    model, tokenizer = taught
    rows = rows_of(QUESTIONS)
    expected = []
    for row in rows:
        prompt = tokenizer.apply_chat_template(
            row["messages"][:1], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**prompt, max_new_tokens=6, do_sample=False, use_cache=False)
        new = output[0, prompt["input_ids"].shape[1] :]
        expected.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    assert generate_answers(model, tokenizer, rows, batch_size=batch_size, max_new_tokens=6).texts == expected


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_answers_without_generating_agree_with_generated_ones(taught, family):
    model = taught[0] if family == "llama" else tiny_language_model(family)
    tokenizer, rows = taught[1], rows_of(QUESTIONS)
    generated = generate_answers(model, tokenizer, rows, max_new_tokens=12).texts
    forced = forced_answers(model, tokenizer, rows, batch_size=2).texts
    for text, read, (_, answer, _) in zip(generated, forced, QUESTIONS, strict=True):
        assert (read == answer) == (text == answer)
        assert text.startswith(read.rstrip("�"))
    fast = evaluate_answers(model, tokenizer, rows, generate=False)
    assert fast.metrics == evaluate_answers(model, tokenizer, rows, max_new_tokens=12).metrics


SPACE_AT_THE_END = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


@pytest.mark.parametrize("name", [None, *TEMPLATES, "space at the end"])
@pytest.mark.parametrize("answer", ["yes", "a large red circle"])
def test_all_of_a_response_is_read_with_any_template(name, answer):
    tokenizer = chat_tokenizer(name if name in TEMPLATES else "chatml" if name else None)
    if name == "space at the end":
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.chat_template = SPACE_AT_THE_END
    encoder = ChatEncoder(tokenizer)
    read = _forced(0, talk("what colour?", answer), encoder)
    end = TEMPLATES[name][1] if name in TEMPLATES else "<|im_end|>" if name else "<|end|>"
    assert tokenizer.decode(read.ids[-read.response :]).strip() == f"{answer}{end}"
    with pytest.raises(HfChainError, match="row 3: it has .* tokens, and no response is left of it at max_length 2"):
        _forced(3, talk("what colour?", answer), ChatEncoder(tokenizer, max_length=2))


def test_end_marks_that_are_no_special_tokens_are_no_part_of_an_answer(taught):
    model, tokenizer = taught
    tokenizer, rows = copy.deepcopy(tokenizer), rows_of(QUESTIONS)
    expected = generate_answers(model, tokenizer, rows, max_new_tokens=6).texts
    plain = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in plain["added_tokens"]:
        token["special"] = token["content"] != "<|end|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(plain)),
        pad_token="<|pad|>",
        bos_token="<|begin|>",
        chat_template=tokenizer.chat_template.replace("eos_token", "'<|end|>'"),
    )
    assert "<|end|>" in tokenizer.decode([2], skip_special_tokens=True)
    assert generate_answers(model, tokenizer, rows, max_new_tokens=6).texts == expected
    known = forced_answers(model, tokenizer, rows).texts[:3]
    assert known == [answer for _, answer, _ in QUESTIONS[:3]]


def test_the_models_own_ways_of_generating_do_not_count(taught):
    model, tokenizer = taught
    rows, own = rows_of(QUESTIONS), model.generation_config
    expected = generate_answers(model, tokenizer, rows, max_new_tokens=12).texts
    changed = copy.deepcopy(own)
    changed.update(repetition_penalty=9.0, min_new_tokens=12, do_sample=True, temperature=9.0, max_length=3)
    model.generation_config = changed
    try:
        assert generate_answers(model, tokenizer, rows, max_new_tokens=12).texts == expected
        assert model.generation_config is changed
        never = tokenizer("red", add_special_tokens=False)["input_ids"][0]
        changed.suppress_tokens = [never]
        assert generate_answers(model, tokenizer, rows, max_new_tokens=12).texts != expected
    finally:
        model.generation_config = own


def test_images_are_looked_at(picture):
    model, processor = tiny_vlm()
    rows = rows_of(QUESTIONS, picture)
    result = generate_answers(model, processor, rows, batch_size=5, max_new_tokens=3)
    assert result.images == 5
    encoder = ChatEncoder(processor)
    lengths = [len(encoder.encode_prompt(row["messages"][:1], [Image.open(picture)])) for row in rows]
    assert result.prompt_tokens == sum(lengths)
    assert forced_answers(model, processor, rows).images == 5
    head = decoder_macs(model.config, 1) - decoder_macs(model.config, 1, head=False)
    adapter = 16 * 16 * 2 * model.config.tokens_per_image
    tokens = decoder_macs(model.config, max(lengths) + 3, head=False) + 3 * head
    assert result.macs == 5 * (tokens + encoder_macs(model.config) + adapter)


def test_text_and_image_rows_are_asked_together(picture):
    model, processor = tiny_vlm()
    both = Dataset.from_list([*rows_of(QUESTIONS), *rows_of(QUESTIONS, picture)], features=FEATURES)
    together = generate_answers(model, processor, both, batch_size=10, max_new_tokens=3)
    apart = [
        *generate_answers(model, processor, rows_of(QUESTIONS), max_new_tokens=3).texts,
        *generate_answers(model, processor, rows_of(QUESTIONS, picture), max_new_tokens=3).texts,
    ]
    assert together.texts == apart


def test_generation_ends_where_the_template_ends_a_turn():
    model, tokenizer = tiny_language_model(), chat_tokenizer("llama3")
    found = stop_tokens(model, ChatEncoder(tokenizer))
    assert tokenizer.convert_tokens_to_ids("<|eot_id|>") in found and tokenizer.eos_token_id in found
    assert model.generation_config.eos_token_id in found


def test_the_model_is_left_as_it_was(taught):
    model, tokenizer = taught
    model.train()
    evaluate_answers(model, tokenizer, rows_of(QUESTIONS[:1]), max_new_tokens=2)
    assert model.training
    model.eval()


def test_a_row_that_cannot_be_asked_is_named_in_one_line(taught):
    rows = rows_of(QUESTIONS).to_list()
    rows[3]["messages"][0]["content"] = "<image> what?"
    with pytest.raises(HfChainError, match="row 3: there are 0 images for 1 <image> placeholders; remove that row"):
        evaluate_answers(*taught, Dataset.from_list(rows, features=FEATURES))
    with pytest.raises(HfChainError, match="no rows"):
        evaluate_answers(*taught, rows_of(QUESTIONS).select([]))


def test_rows_are_spread_where_fewer_are_asked(taught):
    result = evaluate_answers(*taught, rows_of(QUESTIONS), max_samples=2, max_new_tokens=1)
    assert len(result.answers) == 2


def test_rows_of_every_kind_are_asked_where_kinds_take_turns():
    kinds = ["what", "choice", "choice", "exists", "exists", "exists", "exists"]
    rows = Dataset.from_dict({"number": list(range(700)), "kind": kinds * 100})
    asked = spread(rows, 100)
    assert asked["number"] == spread(rows, 100)["number"] == sorted(set(asked["number"]))
    assert all(7 * place <= number < 7 * place + 7 for place, number in enumerate(asked["number"]))
    assert set(asked["kind"]) == set(kinds) and asked["kind"].count("exists") > 40
    assert spread(rows, 700) is rows and spread(rows, None) is rows


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("A goldfish.", "goldfish"),
        ("the  Red, circle", "red circle"),
        ("Two", "2"),
        ("bow-tie", "bow-tie"),
        ("potter's wheel!", "potter's wheel"),
        ("A", "a"),
        ("the.", "the"),
        ("", ""),
    ],
)
def test_answers_are_compared_in_plain_form(said, meant):
    assert normalise_answer(said) == meant


def test_any_of_several_answers_is_right(taught):
    model, tokenizer = taught
    row = {**rows_of(QUESTIONS[:1])[0], "answers": ["red"]}
    row["messages"] = [row["messages"][0], {"role": "assistant", "content": "scarlet"}]
    rows = Dataset.from_list([row], features=FEATURES)
    assert evaluate_answers(model, tokenizer, rows, max_new_tokens=4).metrics["exact_match"] == 1


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Yes", True),
        ("yes, there is no doubt", True),
        ("No, there is not.", False),
        ("There is not a dog.", False),
        ("It is a nose. No", None),
        ("", None),
        ("goldfish", None),
    ],
)
def test_yes_and_no_are_read(text, meant):
    assert parse_yes_no(text) is meant


def test_yes_no_metrics_by_hand():
    expected = [True, True, True, False, False, False]
    given = [True, True, False, True, False, None]
    assert yes_no_metrics(expected, given) == pytest.approx(
        {"accuracy": 3 / 6, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "yes_share": 3 / 6}
    )
    assert yes_no_metrics([True], [None]) == {
        "accuracy": 0,
        "precision": 0,
        "recall": 0,
        "f1": 0,
        "yes_share": 0,
    }


def asked(answer, said, kind="exists", negatives=""):
    return Answered("?", (answer,), said, said == answer, kind, negatives)


def test_negatives_are_judged_with_the_questions_about_what_is_there():
    answers = [
        asked("yes", "yes"),
        asked("yes", "no"),
        asked("no", "no", negatives="random"),
        asked("no", "no", negatives="random"),
        asked("no", "yes", negatives="adversarial"),
        asked("no", "yes", negatives="adversarial"),
        asked("red", "red", kind="colour"),
        asked("yes", "yes", kind="relation"),
    ]
    metrics = answer_metrics(answers)
    assert metrics["exact_match"] == 5 / 8 and metrics["exact_match_exists"] == 3 / 6
    assert metrics["yes_no_random_accuracy"] == 3 / 4 and metrics["yes_no_adversarial_accuracy"] == 1 / 4
    assert metrics["yes_no_random_precision"] == 1 and metrics["yes_no_adversarial_precision"] == 1 / 3
    assert metrics["yes_no_random_yes_share"] == 1 / 4 and metrics["yes_no_adversarial_yes_share"] == 3 / 4
    assert metrics["yes_no_accuracy"] == 1 / 2
    assert metrics["yes_no_f1"] == pytest.approx((2 / 3 + 2 / 5) / 2)


def test_without_kinds_of_negatives_yes_and_no_are_judged_together():
    metrics = answer_metrics(
        [asked("yes", "yes"), asked("no", "yes", kind="relation"), asked("red", "blue", "colour")]
    )
    assert metrics["yes_no_accuracy"] == 1 / 2 and metrics["yes_no_yes_share"] == 1
    assert "yes_no_accuracy" not in answer_metrics([asked("red", "red", "colour")])
