"""Tokenizers are tried before they are believed: the tower is to be read at the end of every caption."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from hf_chain.data import build_processor, load_tokenizer, train_tokenizer
from hf_chain.data.tokenizer import check_readings, check_tokenizer
from hf_chain.errors import HfChainError

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def tokenizer_of(marks=("<pad>", "<s>", "<unk>", "</s>"), template="<s> $A </s>", end="</s>", last=False, **options):
    """A byte-level tokenizer with its marks before all other tokens, or behind them."""
    entries = [*BYTES, *marks] if last else [*marks, *BYTES]
    vocabulary = Tokenizer(models.BPE(vocab={entry: number for number, entry in enumerate(entries)}, merges=[]))
    vocabulary.pre_tokenizer = pre_tokenizers.ByteLevel()
    if template:
        special = [(mark, entries.index(mark)) for mark in marks]
        vocabulary.post_processor = TemplateProcessing(single=template, special_tokens=special)
    values = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": end, "model_max_length": 12} | options
    return PreTrainedTokenizerFast(tokenizer_object=vocabulary, **values)


GOOD = {
    "end mark last": {"last": True},
    "end mark third": {"marks": ("<pad>", "<s>", "<unk>", "</s>")},
    "no begin": {"template": "$A </s>", "bos_token": None},
    "the end pads": {"pad_token": "</s>"},
    "a context of its own": {"model_max_length": int(1e30)},
}
BAD = {
    "no end": ({"eos_token": None}, "has no end-of-text token"),
    "no padding": ({"pad_token": None}, "has no padding token"),
    "no end written": ({"template": "<s> $A"}, "does not end 'a cat' with its end mark '</s>' within 12 tokens"),
    "nothing written": ({"template": None}, "does not end 'a cat'"),
    "begins with its end": (
        {"template": "<s> $A <s>", "end": "<s>"},
        "writes its end mark '<s>' at place 0 of the .* before the caption ends",
    ),
    "end before the text": ({"template": "<s> </s> $A"}, "at place 1 of the .* before the caption ends"),
    "end with id 2": (
        {"marks": ("<pad>", "<s>", "</s>")},
        "an end mark with id 2, for which CLIP .* highest id",
    ),
    "padding on the left": ({"padding_side": "left"}, "pads on the left; set its padding_side"),
    "too short a context": ({"model_max_length": 1}, "writes 'a cat' in 8 tokens, not in 1"),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_tokenizer_that_ends_every_caption_is_taken(case, tmp_path):
    tokenizer = tokenizer_of(**GOOD[case])
    check_tokenizer(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    assert build_processor(load_tokenizer(tmp_path), 32).tokenizer.eos_token == "</s>"


@pytest.mark.parametrize("case", BAD)
def test_a_tokenizer_that_clip_would_read_elsewhere_is_refused(case):
    options, words = BAD[case]
    for use in (check_tokenizer, lambda tokenizer: build_processor(tokenizer, 32)):
        with pytest.raises(HfChainError, match=words) as caught:
            use(tokenizer_of(**options))
        assert "\n" not in str(caught.value) and "use a CLIP tokenizer" in str(caught.value)


def test_what_is_refused_would_give_two_captions_one_embedding():
    """The check follows the rule by which transformers reads the tower."""
    torch.manual_seed(0)
    captions = ["a cat", "a dog"]
    for case, same in (("begins with its end", True), ("no end written", True), ("end mark third", False)):
        tokenizer = tokenizer_of(**(BAD[case][0] if case in BAD else GOOD[case]))
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=1,
            max_position_embeddings=12,
            eos_token_id=tokenizer.eos_token_id,
        )
        ids = tokenizer(captions, padding="max_length", max_length=12, return_tensors="pt")["input_ids"]
        one, two = CLIPTextModel(config).eval()(input_ids=ids).pooler_output
        assert torch.equal(one, two) is same, case


def test_padding_and_cutting_go_to_the_right_where_a_tokenizer_is_loaded(tmp_path):
    tokenizer_of(padding_side="left", truncation_side="left").save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path, 9)
    assert loaded.padding_side == loaded.truncation_side == "right"


def test_the_context_of_the_recipe_is_what_is_tried(tmp_path):
    tokenizer_of().save_pretrained(tmp_path)
    with pytest.raises(HfChainError, match=f"tokenizer {tmp_path} writes .* not in 1;"):
        load_tokenizer(tmp_path, 1)


def test_a_tokenizer_that_is_trained_is_tried_too():
    tokenizer = train_tokenizer(["a red circle", "two blue stars"], 520, max_length=3)
    assert build_processor(tokenizer, 32).tokenizer is tokenizer


def test_captions_that_a_tokenizer_reads_as_one_are_refused_and_many_are_warned_about(caplog):
    tokenizer = tokenizer_of(model_max_length=6)
    with pytest.raises(HfChainError, match="20 different captions are 1 to the tokenizer at 6 tokens; raise"):
        check_readings([f"a photo of {number}" for number in range(20)], tokenizer)
    check_readings([f"a photo of {number}" for number in range(19)] + ["cat"], tokenizer)
    assert "20 different captions are 2 to the tokenizer at 6 tokens: raise model.max_text_tokens" in caplog.text
    caplog.clear()
    check_readings([f"{number} cats" for number in range(20)], tokenizer)
    check_readings(["a cat"] * 20, tokenizer)
    assert not caplog.text
    check_readings(["a cat</s> and a dog", "1 dog"], tokenizer)
    assert "1 of 2 captions hold the end mark '</s>': what follows it is lost" in caplog.text
