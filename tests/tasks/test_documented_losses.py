"""The losses that `docs/method.md` gives for the other tasks are those that they train with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from hf_chain.losses import sigmoid_loss
from hf_chain.tasks import find_task
from hf_chain.trainer import ChainConfig
from support.classifiers import masked_model
from support.method_page import formulas, quotes

N, K, D, L, C = 5, 2, 4, 6, 7


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def task_of(name: str, folder: Path) -> Any:
    return find_task(name)(ChainConfig(str(folder), task=name, use_cpu=True))


def kl(q: Any, p: Any) -> float:
    """KL(q ‖ p) of two distributions."""
    return sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(q, p, strict=True))


def test_sigmoid() -> None:
    u, v, s, b = normalize(normal(N, D), dim=-1), normalize(normal(N, K, D), dim=-1), 3.0, -1.5
    c = torch.tensor([[0, 1], [2, 2], [0, 3], [4, 4], [5, 1]])
    quotes(r"\mathcal{L}_\text{task} = - \frac{1}{KN} \sum_{k,i,j} \log \frac{1}{1 + \exp\left( - z_{ij}^k"
           r"\left( s\, u_i \cdot v_j^k + b \right) \right)}")  # fmt: skip
    terms = [
        math.log(1 / (1 + math.exp(-(1 if c[i, k] == c[j, k] else -1) * (s * float(u[i] @ v[j, k]) + b))))
        for k in range(K)
        for i in range(N)
        for j in range(N)
    ]
    found = sigmoid_loss(u, v, torch.tensor([s], dtype=u.dtype), torch.tensor([b], dtype=u.dtype), c)
    assert found.item() == pytest.approx(-sum(terms) / (K * N), rel=1e-9)


def test_language_models(tmp_path: Path) -> None:
    task, logits, taught, x = (
        task_of("causal_lm", tmp_path),
        normal(N, L, C),
        normal(N, L, C),
        torch.randint(C, (N, L)),
    )
    p, q = logits.softmax(-1), taught.softmax(-1)
    quotes(r"\mathcal{L}_\text{task} = - \frac{1}{N (L - 1)} \sum_{i} \sum_{t < L} \log p(x^i_{t+1} \mid x^i_{\le t})")
    terms = [math.log(p[i, t, x[i, t + 1]]) for i in range(N) for t in range(L - 1)]
    assert task.loss({"logits": logits}, {"input_ids": x}).item() == pytest.approx(-sum(terms) / (N * (L - 1)))
    quotes(r"\mathcal{L}_\text{feature} = \frac{1}{N L} \sum_{i,t} \operatorname{KL}"
           r"\left( q(\cdot \mid x^i_{\le t}) \,\Vert\, p(\cdot \mid x^i_{\le t}) \right)")  # fmt: skip
    expected = sum(kl(q[i, t], p[i, t]) for i in range(N) for t in range(L)) / (N * L)
    assert task.feature_loss((logits,), (taught,)).item() == pytest.approx(expected, rel=1e-5)


def test_classification(tmp_path: Path) -> None:
    task, logits, taught, y = task_of("classification", tmp_path), normal(N, C), normal(N, C), torch.randint(C, (N,))
    p, q = logits.softmax(-1), taught.softmax(-1)
    quotes(r"\mathcal{L}_\text{task} = - \frac{1}{N} \sum_{i} \log p(y_i \mid x_i)")
    expected = -sum(math.log(p[i, y[i]]) for i in range(N)) / N
    assert task.loss({"logits": logits}, {"labels": y}).item() == pytest.approx(expected, rel=1e-5)
    quotes(r"\mathcal{L}_\text{feature} = \frac{1}{N} \sum_{i} \operatorname{KL}"
           r"\left( q(\cdot \mid x_i) \,\Vert\, p(\cdot \mid x_i) \right)")  # fmt: skip
    expected = sum(kl(q[i], p[i]) for i in range(N)) / N
    assert task.feature_loss((logits,), (taught,)).item() == pytest.approx(expected, rel=1e-5)


def test_several_classes_an_image(tmp_path: Path) -> None:
    task, logits, taught = task_of("multi_label", tmp_path), normal(N, C), normal(N, C)
    p, q, y = logits.sigmoid(), taught.sigmoid(), torch.randint(2, (N, C))
    quotes(r"\mathcal{L}_\text{task} = - \frac{1}{N C} \sum_{i,c} \left( y_{ic} \log p_c(x_i) + (1 - y_{ic}) \log"
           r"\left( 1 - p_c(x_i) \right) \right)")  # fmt: skip
    terms = [math.log(p[i, c] if y[i, c] else 1 - p[i, c]) for i in range(N) for c in range(C)]
    found = task.loss({"logits": logits}, {"labels": y.double()})
    assert found.item() == pytest.approx(-sum(terms) / (N * C), rel=1e-5)
    quotes(r"\mathcal{L}_\text{feature} = \frac{1}{N C} \sum_{i,c} \operatorname{KL}"
           r"\left( q_c(x_i) \,\Vert\, p_c(x_i) \right)")  # fmt: skip
    pairs = [(q[i, c], p[i, c]) for i in range(N) for c in range(C)]
    expected = sum(kl((a, 1 - a), (b, 1 - b)) for a, b in pairs) / (N * C)
    assert task.feature_loss((logits,), (taught,)).item() == pytest.approx(expected, rel=1e-5)


def test_masked_images(tmp_path: Path) -> None:
    model = masked_model().double()
    side = model.config.image_size
    images = normal(N, 3, side, side)
    with torch.no_grad():
        output, x = model(pixel_values=images), model.patchify(images)
    P = x.shape[-1]
    quotes(r"\mathcal{L}_\text{task} = \frac{1}{N |M|} \sum_{i} \sum_{m \in M} \frac{1}{P}"
           r"\lVert \hat{x}^i_m - x^i_m \rVert^2")  # fmt: skip
    hidden = [(i, m) for i in range(N) for m in range(x.shape[1]) if output.mask[i, m]]
    expected = sum(float((output.logits[i, m] - x[i, m]).norm() ** 2) / P for i, m in hidden) / len(hidden)
    task = task_of("masked_image", tmp_path)
    assert task.loss({"loss": output.loss}, {}).item() == pytest.approx(expected, rel=1e-5)
    f, g = (normalize(normal(N, 3, D), dim=-1) for _ in range(2))
    quotes(r"\mathcal{L}_\text{feature} = \frac{1}{N V} \sum_{i,v} \lVert f^i_v - g^i_v \rVert^2")
    expected = sum(float((f[i, v] - g[i, v]).norm() ** 2) for i in range(N) for v in range(3)) / (N * 3)
    assert task.feature_loss((f,), (g,)).item() == pytest.approx(expected)


def test_no_formula_is_left_out() -> None:
    assert formulas("(other-tasks)=", "(cost-model)=") == 5
