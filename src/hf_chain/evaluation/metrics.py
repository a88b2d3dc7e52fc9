"""What metrics are called, and how their values are to be read; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How the values of a metric are read.

    Args:
        title (`str`): what people call it.
        unit (`str`): what its values are counted in; none for a share.
        lower_is_better (`bool`): whether the lower of two values is the better one.
        is_share (`bool`): whether values are shares in [0, 1], such as of right answers.
    """

    title: str
    unit: str = ""
    lower_is_better: bool = False
    is_share: bool = True


METRICS = {
    "zero_shot_top1": Metric("zero-shot top-1"),
    "zero_shot_top5": Metric("zero-shot top-5"),
    **{f"image_to_text_r{k}": Metric(f"image → text R@{k}") for k in (1, 5, 10)},
    **{f"text_to_image_r{k}": Metric(f"text → image R@{k}") for k in (1, 5, 10)},
    "top1": Metric("top-1"),
    "top5": Metric("top-5"),
    "mean_average_precision": Metric("mAP"),
    "linear_probe_top1": Metric("linear-probe top-1"),
    "linear_probe_top5": Metric("linear-probe top-5"),
    "fine_tune_top1": Metric("fine-tuned top-1"),
    "fine_tune_top5": Metric("fine-tuned top-5"),
    "reconstruction": Metric("reconstruction error", lower_is_better=True, is_share=False),
    "nats_per_token": Metric("nats a token", "nats", lower_is_better=True, is_share=False),
    "bits_per_byte": Metric("bits a byte", "bits", lower_is_better=True, is_share=False),
}
"""Name of a metric -> how it is read."""


def metric_of(name: str) -> Metric:
    """How a metric is read; one that is not in `METRICS` is a share called by its name."""
    return METRICS.get(name) or Metric(name.replace("_", " "))
