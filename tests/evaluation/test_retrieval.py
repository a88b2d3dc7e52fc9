"""Retrieval counts several and repeated captions as documented, in one piece or in chunks."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.functional import normalize

from hf_chain.evaluation import CaptionIndex, retrieval_metrics
from hf_chain.evaluation.retrieval import hits_at


def test_any_caption_of_the_image_counts_and_each_caption_is_a_query():
    index = CaptionIndex([["a", "b"], ["c", "d"]])
    images = torch.eye(2)
    # "b" lies with the other image: image 0 is still found through "a".
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 0.9], [0.2, 0.8]])
    metrics = retrieval_metrics(images, texts, index.pairs)
    assert metrics["image_to_text_r1"] == 0.5  # image 1 finds "b" first
    assert metrics["image_to_text_r5"] == 1.0
    assert metrics["text_to_image_r1"] == 0.75
    assert metrics["text_to_image_r5"] == metrics["text_to_image_r10"] == 1.0


def test_a_caption_shared_by_images_is_correct_for_each_of_them():
    index = CaptionIndex([["same"], ["same"], ["other"]])
    assert index.texts == ["same", "other"]
    assert index.pairs.tolist() == [[0, 0], [1, 0], [2, 1]]
    images = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    metrics = retrieval_metrics(images, torch.eye(2), index.pairs)
    assert metrics["image_to_text_r1"] == metrics["text_to_image_r1"] == 1.0


def test_an_image_without_captions_is_a_distractor_but_no_query():
    index = CaptionIndex([[], ["a"]])
    images = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    metrics = retrieval_metrics(images, torch.tensor([[1.0, 0.0]]), index.pairs)
    assert metrics["image_to_text_r1"] == 1.0
    assert metrics["text_to_image_r1"] == 0.0
    assert metrics["text_to_image_r5"] == 1.0


def test_recalls_equal_the_ranks_of_the_best_match():
    texts = normalize(torch.randn(60, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    images = normalize(torch.randn(20, 16, generator=torch.Generator().manual_seed(2)), dim=-1)
    index = CaptionIndex([[f"{image}.{k}" for k in range(3)] for image in range(20)])
    metrics = retrieval_metrics(images, texts, index.pairs)
    similarity = images @ texts.T
    for k in (1, 5, 10):
        to_text, to_image = 0, 0
        for image in range(20):
            own = similarity[image, 3 * image : 3 * image + 3].max()
            to_text += int((similarity[image] > own).sum() < k)
            for text in range(3 * image, 3 * image + 3):
                to_image += int((similarity[:, text] > similarity[image, text]).sum() < k)
        assert metrics[f"image_to_text_r{k}"] == pytest.approx(to_text / 20)
        assert metrics[f"text_to_image_r{k}"] == pytest.approx(to_image / 60)


def test_ties_count_as_chance_would_have_them():
    """Averaged over all orders in which equal entries can stand."""
    similarities = torch.tensor([[0.9, 0.5, 0.5, 0.5, 0.1]])
    correct = torch.tensor([[False, True, True, False, True]])
    orders = list(itertools.permutations(range(1, 4)))
    expected = [0.0]
    for k in (2, 3, 4):
        expected.append(sum(any(entry in (1, 2) for entry in order[: k - 1]) for order in orders) / len(orders))
    assert hits_at(similarities, correct, 4)[0].tolist() == pytest.approx(expected)


def test_equal_embeddings_are_at_the_level_of_chance():
    index = CaptionIndex([[str(image)] for image in range(40)])
    same = normalize(torch.ones(40, 8), dim=-1) + 1e-8 * torch.randn(40, 8)
    metrics = retrieval_metrics(same, same, index.pairs)
    for way in ("image_to_text", "text_to_image"):
        assert [metrics[f"{way}_r{k}"] for k in (1, 5, 10)] == pytest.approx([1 / 40, 5 / 40, 10 / 40])


@pytest.mark.parametrize("chunk_size", [1, 7, 60])
def test_chunks_change_nothing(chunk_size):
    generator = torch.Generator().manual_seed(3)
    index = CaptionIndex([[f"text {(image * 5 + k) % 37}" for k in range(4)] for image in range(50)])
    images = normalize(torch.randn(50, 8, generator=generator), dim=-1)
    texts = normalize(torch.randn(len(index.texts), 8, generator=generator), dim=-1)
    whole = retrieval_metrics(images, texts, index.pairs, chunk_size=1000)
    assert retrieval_metrics(images, texts, index.pairs, chunk_size=chunk_size) == whole
    assert 0 < whole["image_to_text_r1"] < whole["image_to_text_r10"] < 1
