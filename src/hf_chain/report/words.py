"""How numbers and names are written for people."""

from __future__ import annotations

from hf_chain.evaluation.metrics import metric_of

UNKNOWN = "–"
"""Stands where a number is not known (yet)."""


def metric_name(metric: str) -> str:
    """`zero_shot_top1` as `zero-shot top-1`, `text_to_image_r5` as `text → image R@5`."""
    return metric_of(metric).title


def figure(metric: str, value: float | None) -> str:
    """A value of a metric: a share as `31.2 %`, any other as `3.214`."""
    if value is None or metric_of(metric).is_share:
        return percent(value)
    return f"{value:.3f}"


def cell(metric: str, value: float | None) -> str:
    """The same in a table that says its unit elsewhere: a share as `31.2`."""
    return UNKNOWN if value is None else f"{100 * value:.1f}" if metric_of(metric).is_share else f"{value:.3f}"


def change(metric: str, value: float | None) -> str:
    """A difference: of shares as `+2.1`, in percentage points, of any other metric as `-0.123`."""
    return points(value) if value is None or metric_of(metric).is_share else f"{value:+.3f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as `31.2 %`."""
    return UNKNOWN if value is None else f"{100 * value:.{digits}f} %"


def points(value: float | None) -> str:
    """A difference of shares as `+2.1`, in percentage points."""
    return UNKNOWN if value is None else f"{100 * value:+.1f}"


def cheaper(ratio: float) -> str:
    """How an acceleration ratio reads: `4.2× cheaper`, or `1.4× dearer` when the chain costs more."""
    return f"{ratio:.1f}× cheaper" if ratio >= 1 else f"{1 / ratio:.1f}× dearer"


def duration(seconds: float) -> str:
    """Seconds as `1 h 23 min`, `12 min` or, below ten minutes, `137 s`."""
    if not seconds:
        return UNKNOWN
    if seconds < 600:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def error(value: float | None) -> str:
    """A relative error in scientific notation; `0` when it is exactly zero."""
    return UNKNOWN if value is None else f"{value:.1e}" if value else "0"
