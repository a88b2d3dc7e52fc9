"""The loss that `docs/method.md` gives is the one that `ChainTrainer` trains with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_chain.trainer import ChainTrainer
from support.method_page import formulas, quotes
from support.pairs import RandomPairs, collate, tiny_clip, tiny_trainer

STEPS, ALPHA, TAU = 10, 500.0, 0.6


def documented_task(u: torch.Tensor, v: torch.Tensor, s: float, c: list[list[Any]]) -> float:
    """The contrastive loss as the page has it: `u` `[N, D]`, `v` `[N, K, D]`, captions `c` `[N][K]`."""
    N, K = v.shape[:2]

    quotes(r"q_{ij}^k = \frac{[c_i^k = c_j^k]}{\sum_{j'} [c_i^k = c_{j'}^k]}")

    def q(i: int, j: int, k: int) -> float:
        return (c[i][k] == c[j][k]) / sum(c[i][k] == c[other][k] for other in range(N))

    quotes(r"p_{ij}^k = \frac{e^{s\, u_i \cdot v_j^k}} {e^{s\, u_i \cdot v_j^k} +"
           r"\sum_{n} [c_i^k \ne c_n^k]\, e^{s\, u_i \cdot v_n^k}}")  # fmt: skip

    def p(i: int, j: int, k: int) -> float:
        right = math.exp(s * u[i] @ v[j, k])
        return right / (right + sum(math.exp(s * u[i] @ v[n, k]) for n in range(N) if c[i][k] != c[n][k]))

    quotes(r"r_{ij}^k = \frac{e^{s\, v_i^k \cdot u_j}} {e^{s\, v_i^k \cdot u_j} +"
           r"\sum_{n} [c_i^k \ne c_n^k]\, e^{s\, v_i^k \cdot u_n}}")  # fmt: skip

    def r(i: int, j: int, k: int) -> float:
        right = math.exp(s * v[i, k] @ u[j])
        return right / (right + sum(math.exp(s * v[i, k] @ u[n]) for n in range(N) if c[i][k] != c[n][k]))

    quotes(r"\mathcal{L}_\text{task} = - \frac{1}{2KN} \sum_{k=1}^{K} \sum_{i=1}^{N} \sum_{j=1}^{N}"
           r"q_{ij}^k \left( \log p_{ij}^k + \log r_{ij}^k \right)")  # fmt: skip
    terms = [
        q(i, j, k) * (math.log(p(i, j, k)) + math.log(r(i, j, k)))
        for k in range(K)
        for i in range(N)
        for j in range(N)
    ]
    return -sum(terms) / (2 * K * N)


def documented_feature_loss(
    f: torch.Tensor, f_captions: torch.Tensor, g: torch.Tensor, g_captions: torch.Tensor
) -> float:
    """The feature loss as the page has it: images `[N, D]`, captions `[N, K, D]`."""
    (N, D), K = g.shape, g_captions.shape[1]
    quotes(r"\mathcal{L}_\text{feature} = \frac{D}{512} \left( \frac{1}{ND} \sum_i \lVert f_i - g_i \rVert^2 +"
           r"\frac{1}{NKD} \sum_{i,k} \lVert f_i^k - g_i^k \rVert^2 \right)")  # fmt: skip
    images, captions = (f - g).norm(dim=-1) ** 2, (f_captions - g_captions).norm(dim=-1) ** 2
    return float(D / 512 * (images.sum() / (N * D) + captions.sum() / (N * K * D)))


def documented_schedule(name: str, t: float) -> float:
    """The factor on the weight of the feature loss at the share `t` of the training, as the page has it."""
    quotes(r"w_\text{constant}(t) = 1, \qquad w_\text{linear}(t) = 1 - \frac{t}{\tau}, \qquad"
           r"w_\text{cosine}(t) = \frac{1 + \cos(\pi t / \tau)}{2} \qquad \text{for } t < \tau ,")  # fmt: skip
    if t >= TAU:
        return 0.0
    return {"constant": 1.0, "linear": 1 - t / TAU, "cosine": (1 + math.cos(math.pi * t / TAU)) / 2}[name]


def embedded(trainer: ChainTrainer, batch: dict[str, torch.Tensor]) -> tuple[Any, Any]:
    """What the trained model and its teacher make of a batch, in float64."""
    with torch.no_grad():
        features = trainer.model(**{name: batch[name] for name in ("pixel_values", "input_ids", "attention_mask")})
        target = trainer.teacher.features(batch) if trainer.teacher else None
    return features, target


def batch_of(equal_captions: bool) -> dict[str, torch.Tensor]:
    """Eight pairs with two captions each; with `equal_captions` only three different ones in each set."""
    pairs = RandomPairs(8, captions=2, distinct=3 if equal_captions else None)
    return collate([pairs[row] for row in range(8)])


@pytest.mark.parametrize("identical_captions_positive", [True, False])
@pytest.mark.parametrize("equal_captions", [True, False])
def test_the_contrastive_loss_is_the_one_of_the_page(
    tmp_path: Path, equal_captions: bool, identical_captions_positive: bool
) -> None:
    trainer = tiny_trainer(tmp_path, identical_captions_positive=identical_captions_positive)
    batch = batch_of(equal_captions)
    features, _ = embedded(trainer, batch)
    captions = batch["caption_ids"].tolist()
    if not identical_captions_positive:
        captions = [[row] * 2 for row in range(8)]
    u, v = features["image_embeds"].double(), features["text_embeds"].double()
    expected = documented_task(u, v, float(features["logit_scale"]), captions)
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("embedding", [12, 20])
def test_the_whole_loss_is_the_one_of_the_page(tmp_path: Path, embedding: int, schedule: str) -> None:
    trainer = tiny_trainer(
        tmp_path,
        tiny_clip(seed=1, embedding=12),
        tiny_clip(embedding=embedding),
        feature_loss_weight=ALPHA,
        feature_loss_schedule=schedule,
        feature_loss_until=TAU,
        max_steps=STEPS,
    )
    trainer.model.train()
    batch = batch_of(equal_captions=True)
    features, target = embedded(trainer, batch)
    task = documented_task(
        features["image_embeds"].double(),
        features["text_embeds"].double(),
        float(features["logit_scale"]),
        batch["caption_ids"].tolist(),
    )
    mapped = (features[f"{tower}_embeds_for_teacher"].double() for tower in ("image", "text"))
    feature = documented_feature_loss(*mapped, target.image.double(), target.text.double())
    assert target.image.shape[-1] == 12 and feature > 1e-3
    quotes(r"\mathcal{L} = \mathcal{L}_\text{task} + \alpha\, w(t)\, \mathcal{L}_\text{feature}")
    trainer.state.max_steps = STEPS
    for step in (0, 2, 5, 6, 9):
        trainer.state.global_step = step
        expected = task + ALPHA * documented_schedule(schedule, step / STEPS) * feature
        assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(expected, rel=1e-5), step


def test_no_formula_of_the_two_losses_is_left_out() -> None:
    """The page gives the five that are quoted above, and one about unit vectors that follows from them."""
    assert formulas("## The task", "(other-tasks)=") == 6
