"""Accumulation: the big batch's loss and gradients in the memory of a small one.

Where the loss is a mean over samples, those of micro-batches are added up. Where samples look at each other, features
are cached: all micro-batches are embedded without a graph; the loss of the whole batch gives the gradient of every
embedding; each micro-batch is embedded again, with the same random numbers, and takes its part.
Source: GradCache (arXiv 2101.06983).
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import nn

from hf_chain.engine import Engine
from hf_chain.tasks.task import Batch, Features


def backward_through_features(
    model: nn.Module,
    batch: Batch,
    micro_batch_size: int,
    loss_of: Callable[[Features], torch.Tensor],
    engine: Engine,
    unbatched: Collection[str] = (),
) -> torch.Tensor:
    """Adds the gradient of the whole batch's loss to the parameters, one micro-batch at a time.

    Args:
        model (`nn.Module`): the wrapped model; maps a micro-batch to features with a leading batch axis, and to those
            of `unbatched`.
        batch (`dict`): tensors with a leading axis of `B` samples.
        micro_batch_size (`int`): samples that go through the model at once; divides `B`.
        loss_of (`Callable`): maps the features of the whole batch to the scalar loss.
        engine (`Engine`): runs the backward passes; only the last one is synchronised over processes.
        unbatched (`Collection[str]`): features without a batch axis, the same for every micro-batch.

    Returns:
        `torch.Tensor`: the detached loss.
    """
    parts = _split(batch, micro_batch_size)
    random_states, embedded = [], []
    with torch.no_grad():
        for part in parts:
            random_states.append(_random_state())
            embedded.append(dict(model(**part)))

    leaves = {
        name: _joined([part[name] for part in embedded], name in unbatched).requires_grad_() for name in embedded[0]
    }
    with torch.enable_grad():
        loss = loss_of(leaves)
        gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True))

    after = _random_state()
    for index, part in enumerate(parts):
        _restore_random_state(random_states[index])
        rows = slice(index * micro_batch_size, (index + 1) * micro_batch_size)
        with engine.synchronised(model, last=index == len(parts) - 1):
            pseudo_loss = torch.zeros((), device=loss.device)
            for name, feature in model(**part).items():
                gradient = gradients[name]
                if gradient is None:
                    # Keeps every parameter in the graph, which distributed engines insist on.
                    pseudo_loss = pseudo_loss + 0.0 * feature.sum()
                elif name in unbatched:
                    pseudo_loss = pseudo_loss + (feature * gradient).sum() / len(parts)
                else:
                    pseudo_loss = pseudo_loss + (feature * gradient[rows]).sum()
            engine.backward(pseudo_loss)
    _restore_random_state(after)
    return loss.detach()


def backward_added_up(
    batch: Batch, micro_batch_size: int, loss_of: Callable[[Batch], torch.Tensor], model: nn.Module, engine: Engine
) -> torch.Tensor:
    """Adds the gradient of the whole batch's loss, a mean over samples, to the parameters, one micro-batch at a time.

    Args:
        batch (`dict`): tensors with a leading axis of `B` samples.
        micro_batch_size (`int`): samples that go through the model at once.
        loss_of (`Callable`): maps a micro-batch to the scalar mean loss of its samples.
        model (`nn.Module`): the wrapped model.
        engine (`Engine`): runs the backward passes; only the last one is synchronised over processes.

    Returns:
        `torch.Tensor`: the detached loss.
    """
    parts, rows = _split(batch, micro_batch_size), len(next(iter(batch.values())))
    total = torch.zeros(())
    for index, part in enumerate(parts):
        with engine.synchronised(model, last=index == len(parts) - 1):
            loss = loss_of(part) * (len(next(iter(part.values()))) / rows)
            engine.backward(loss)
        total = total.to(loss.device) + loss.detach()
    return total


def _split(batch: Batch, size: int) -> list[Batch]:
    names = list(batch)
    return [dict(zip(names, part, strict=True)) for part in zip(*(batch[n].split(size) for n in names), strict=True)]


def _joined(parts: list[torch.Tensor], same: bool) -> torch.Tensor:
    return parts[0].clone() if same else torch.cat(parts)


def _random_state() -> list[torch.Tensor]:
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])


def _restore_random_state(states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])
