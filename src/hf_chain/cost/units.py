"""Units: large counts for people to read, and operations turned into hours."""

from __future__ import annotations

import math

from hf_chain.errors import HfChainError

PREFIXES = ("", "K", "M", "G", "T", "P", "E", "Z")


def human(number: float) -> str:
    """Writes `number` with three significant digits and a decimal prefix, e.g. `27.9M`.

    Args:
        number (`float`): A count.

    Returns:
        `str`: Such as `27.9M`.
    """
    for prefix in PREFIXES[:-1]:
        if abs(number) < 999.5:
            return f"{number:.3g}{prefix}"
        number /= 1000
    return f"{number:.3g}{PREFIXES[-1]}"


def hours(total_macs: float, tflops_per_second: float) -> float:
    """Hours that `total_macs` take at a sustained throughput: a multiply-accumulate is two floating-point operations.

    Args:
        total_macs (`float`): Multiply-accumulate operations.
        tflops_per_second (`float`): Throughput over all devices, in 10¹² floating-point operations a second.

    Returns:
        `float`: Time in hours.

    Raises:
        HfChainError: when the throughput is not positive, or no number.
    """
    if not 0 < tflops_per_second < math.inf:
        raise HfChainError(f"tflops_per_second is {tflops_per_second}: give the measured throughput, above 0")
    return 2 * total_macs / (tflops_per_second * 1e12) / 3600
