"""CIDEr-D agrees with the script of its authors' evaluation server, and captions are generated and scored."""

from __future__ import annotations

import math

import pytest
from datasets import Dataset

from hf_chain.data.chat.rows import FEATURES
from hf_chain.errors import HfChainError
from hf_chain.evaluation.captioning import caption_words, cider_d, evaluate_captions
from support.chat_models import chat_tokenizer, tiny_language_model

CAPTIONS = [
    "a dog runs on the grass",
    "two men sit on a bench",
    "a red car",
    "a dog",
    "three boys playing soccer in a field",
]
REFERENCES = [
    ["a dog is running on grass .", "the brown dog runs"],
    ["two men are sitting on a bench", "men on a bench, talking"],
    ["a blue car parked on the street", "a car"],
    ["a cat on the sofa", "the cat sleeps on the sofa"],
    ["three boys playing soccer in a field", "boys play soccer ."],
]


def test_scores_equal_those_of_pycocoevalcap():
    # `pycocoevalcap` 1.2, CiderScorer on the same texts, lower case and without punctuation.
    expected = [2.10853191, 3.40127948, 1.22038141, 0.0, 5.47183904]
    assert cider_d(CAPTIONS, REFERENCES) == pytest.approx(expected, abs=1e-7)


def test_a_score_by_hand():
    """Two images, one reference each: unigrams weigh log 2 where one image has them and nothing where both do."""
    scores = cider_d(["red cat", "dog"], [["red cat"], ["a dog"]])
    assert scores[0] == pytest.approx(10 * (1 + 1 + 0 + 0) / 4)
    # `dog` of `a dog`: cosine 1/√2, one word too short, and no longer n-gram in common.
    assert scores[1] == pytest.approx(10 * math.exp(-1 / 72) / math.sqrt(2) / 4)


def test_repeating_a_word_earns_nothing():
    once, often = (cider_d([text, "x"], [["a red cat sleeps"], ["x"]])[0] for text in ("cat", "cat cat cat"))
    assert often < once


def test_words_are_lower_case_without_punctuation():
    assert caption_words("A dog's bone, on-the GRASS .") == ["a", "dog's", "bone", "on", "the", "grass"]


def test_captions_are_generated_and_scored():
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{text}\nDescribe the picture."},
                {"role": "assistant", "content": references[0]},
            ],
            "images": [],
            "kind": "caption",
            "answers": references[1:],
            "negatives": "",
        }
        for text, references in zip(CAPTIONS, REFERENCES, strict=True)
    ]
    data = Dataset.from_list(rows, features=FEATURES)
    result = evaluate_captions(tiny_language_model(), chat_tokenizer(), data, batch_size=2, max_new_tokens=5)
    assert len(result.captions) == 5 and result.macs > 0
    assert result.metrics["cider_d"] == pytest.approx(sum(cider_d(result.captions, REFERENCES)) / 5)
    with pytest.raises(HfChainError, match="no rows"):
        evaluate_captions(tiny_language_model(), chat_tokenizer(), data.select([]))
