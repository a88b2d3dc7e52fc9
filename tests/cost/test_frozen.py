"""Frozen parts cost what their passes cost."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hf_chain.cost.steps import Segment, training_macs


def test_a_model_trained_as_a_whole_costs_three_forwards():
    assert training_macs([Segment("a", 10, 1.0), Segment("b", 5, 1.0)]) == 45


def test_nothing_trained_costs_the_forward():
    assert training_macs([Segment("a", 10), Segment("b", 5)]) == 15


def test_below_the_first_trained_segment_there_is_no_backward_pass():
    assert training_macs([Segment("frozen", 10), Segment("trained", 4, 1.0), Segment("frozen", 7)]) == 10 + 12 + 14


def test_the_rule_is_what_torch_counts_for_a_frozen_decoder():
    sizes = [8, 16, 32, 4]
    layers = [nn.Linear(a, b, bias=False) for a, b in zip(sizes, sizes[1:], strict=False)]
    layers[0].requires_grad_(False)
    layers[2].requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        nn.Sequential(*layers)(torch.randn(1, 8)).sum().backward()
    weights = [layer.weight for layer in layers]
    segments = [Segment("layer", weight.numel(), float(weight.requires_grad)) for weight in weights]
    # The first trained matrix needs no gradient of its input; inside a whole layer all but the first one do.
    assert counter.get_total_flops() == 2 * (training_macs(segments) - weights[1].numel())
