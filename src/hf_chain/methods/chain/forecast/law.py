"""A law of loss against size and samples, fitted to the ledgers of pilot runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np

from hf_chain.errors import HfChainError

EXPONENTS = np.arange(0.05, 1.51, 0.1)
"""What is tried first; then, twice, finer ones around the best."""
USUAL_SIZE_EXPONENT = 0.34
"""Of Hoffmann et al. (arXiv 2203.15556), equation 10: taken where fewer sizes are known than it takes to fit one."""
SIZES_TO_FIT = 3
EFFICIENCIES = np.round(np.geomspace(0.05, 20, 241), 4)
"""How many samples of a training alone one of a grown member may be worth."""


@dataclass(frozen=True)
class Handed:
    """What a member grows from.

    Args:
        size (`float`): forward MACs of a sample of its predecessor.
        loss (`float`): that its predecessor was delivered with.
        decay (`float`): share of its predecessor's samples that only delivered it, which its trunk has not seen.
    """

    size: float
    loss: float
    decay: float = 0.0


@dataclass(frozen=True)
class Point:
    """What a training reached.

    Args:
        size (`float`): forward MACs of a sample.
        samples (`float`): that it was trained on; of a grown member those since it has grown.
        loss (`float`): reached on held-out data, the lower the better.
        handed (`Handed`, *optional*): what it began with, where it has grown.
        curve (`str`): which training it belongs to.
    """

    size: float
    samples: float
    loss: float
    handed: Handed | None = None
    curve: str = ""


@dataclass(frozen=True)
class Law:
    """Loss of a model of `size` after `samples`: E + A · size^−α + B · samples^−β.

    Source: Hoffmann et al. (arXiv 2203.15556), equation 10, with forward MACs of a sample for the parameters. Growth
    is ours: a member goes on as its twin would from the loss that its predecessor's trunk stands for, each sample
    worth `efficiency` of the twin's.

    Args:
        floor (`float`): E, which neither size nor samples get below.
        size_factor (`float`): A.
        size_exponent (`float`): α.
        samples_factor (`float`): B.
        samples_exponent (`float`): β.
        efficiency (`float`): samples of a training from scratch that one of a grown member is worth.
        grown (`int`): grown members that `efficiency` was fitted to; with none it is 1.
        sizes (`int`): sizes that it was fitted to.
        error (`float`): root mean square of what it says of the last point of each training without having seen it,
            less what was measured there; NaN where no training has points enough.
    """

    floor: float
    size_factor: float
    size_exponent: float
    samples_factor: float
    samples_exponent: float
    efficiency: float = 1.0
    grown: int = 0
    sizes: int = 0
    error: float = float("nan")

    def loss(self, size: float, samples: float | np.ndarray) -> np.ndarray:
        """The loss from scratch, of the shape of `samples`."""
        found: np.ndarray = self.least(size) + self.samples_factor * np.power(samples, -self.samples_exponent)
        return found

    def least(self, size: float) -> float:
        """What a size comes to with samples without end."""
        return float(self.floor + self.size_factor * size**-self.size_exponent)

    def samples(self, size: float, loss: float | np.ndarray) -> np.ndarray:
        """The samples from scratch that a loss takes; infinite where the size never gets there."""
        above = np.asarray(loss, dtype=float) - self.least(size)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.power(above / self.samples_factor, -1 / self.samples_exponent)
        return np.where(above > 0, found, np.inf)

    def trunk_loss(self, size: float, loss: float | np.ndarray, decay: float) -> np.ndarray:
        """What a member that is delivered with a loss would be delivered with after the samples of its trunk alone."""
        return self.loss(size, self.samples(size, loss) * (1 - decay))

    def grown_loss(self, size: float, handed: float, samples: float | np.ndarray) -> np.ndarray:
        """The loss of a member that began at `handed`, after `samples` of its own."""
        return self.loss(size, self.samples(size, handed) + self.efficiency * np.asarray(samples))

    def grown_samples(self, size: float, handed: np.ndarray | float, loss: np.ndarray | float) -> np.ndarray:
        """The samples that a member needs from `handed` to `loss`; infinite where it never gets there."""
        missing = self.samples(size, loss) - np.minimum(self.samples(size, handed), self.samples(size, loss))
        return np.where(np.isfinite(self.samples(size, loss)), missing / self.efficiency, np.inf)


def fit_law(points: Iterable[Point]) -> Law:
    """Fits the law to trainings from scratch, and its efficiency to members that have grown.

    Args:
        points (`Iterable[Point]`): of any number of sizes.

    Raises:
        HfChainError: when there are fewer than three points of trainings from scratch.
    """
    known = list(points)
    alone, grown = [p for p in known if p.handed is None], [p for p in known if p.handed is not None]
    if len(alone) < 3:
        raise HfChainError(
            f"{len(alone)} points of trainings from scratch are too few for a law: give runs of pilots that hold "
            "three or more, such as one size at three lengths"
        )
    law = _fit(alone)
    return replace(_with_efficiency(law, grown), error=_error_on_unseen(alone))


def _fit(points: Sequence[Point]) -> Law:
    """Least squares: linear in E, A and B once the exponents are chosen, which all of a grid are."""
    sizes = len({point.size for point in points})
    alphas = EXPONENTS if sizes >= SIZES_TO_FIT else np.array([USUAL_SIZE_EXPONENT])
    betas, best = EXPONENTS, (np.inf, 0.0, float(EXPONENTS[0]), (0.0, 0.0, 0.0))
    for step in (0.1, 0.02, 0.004):
        best = min((best, *_tried(points, alphas, betas)), key=lambda tried: tried[0])
        around = step * np.arange(-0.8, 0.81, 0.2)
        alphas = np.clip(best[1] + around, 0.01, None) if sizes >= SIZES_TO_FIT else alphas
        betas = np.clip(best[2] + around, 0.01, None)
    residual, alpha, beta, (floor, of_size, of_samples) = best
    if not np.isfinite(residual):
        raise HfChainError("the loss of no pilot falls with more samples, so no law can be fitted: train them longer")
    return Law(floor, of_size, float(alpha), of_samples, float(beta), sizes=sizes)


def _tried(
    points: Sequence[Point], alphas: np.ndarray, betas: np.ndarray
) -> Iterator[tuple[float, float, float, tuple[float, float, float]]]:
    """Squared misfit, both exponents, and E, A and B, for exponents with which the loss falls with samples."""
    size, samples, loss = (np.array([getattr(p, name) for p in points]) for name in ("size", "samples", "loss"))
    for alpha, beta in product(alphas, betas):
        # Scaled, so that no column is tiny beside the others.
        columns = [np.ones_like(loss), (size / size.min()) ** -alpha, (samples / samples.min()) ** -beta]
        # Of one size alone the second column is the first.
        used = columns if len(set(size)) > 1 else columns[::2]
        found, misfit = _not_negative(used, loss)
        floor, of_size, of_samples = found if len(found) == 3 else (found[0], 0.0, found[1])
        if of_samples > 0:
            factors = float(of_size * size.min() ** alpha), float(of_samples * samples.min() ** beta)
            yield misfit, float(alpha), float(beta), (float(floor), *factors)


def _not_negative(columns: list[np.ndarray], values: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares with coefficients of at least 0, of which there are three at most: every choice is tried."""
    best, found = np.inf, np.zeros(len(columns))
    for count in range(1, len(columns) + 1):
        for chosen in combinations(range(len(columns)), count):
            matrix = np.stack([columns[place] for place in chosen], axis=1)
            solution = np.linalg.lstsq(matrix, values, rcond=None)[0]
            if (solution < 0).any():
                continue
            residual = float(np.square(matrix @ solution - values).sum())
            if residual < best:
                best, found = residual, np.zeros(len(columns))
                found[list(chosen)] = solution
    return found, best


def _with_efficiency(law: Law, grown: Sequence[Point]) -> Law:
    """The efficiency that says best what grown members have come to."""
    begun = [(one, float(law.trunk_loss(**vars(one.handed)))) for one in grown if one.handed is not None]
    usable = [(point, start) for point, start in begun if np.isfinite(law.samples(point.size, start))]
    if not usable:
        return law

    def misfit(efficiency: float) -> float:
        tried = replace(law, efficiency=float(efficiency))
        said = [tried.grown_loss(point.size, start, point.samples) for point, start in usable]
        return float(sum((one - point.loss) ** 2 for one, (point, _) in zip(said, usable, strict=True)))

    return replace(law, efficiency=float(min(EFFICIENCIES, key=misfit)), grown=len(usable))


def _error_on_unseen(points: Sequence[Point]) -> float:
    """How far the law is off at the last point of each training, fitted without the last points."""
    last = {}
    for point in sorted(points, key=lambda point: point.samples):
        last[point.curve] = point
    unseen = [point for point in last.values() if sum(other.curve == point.curve for other in points) > 1]
    rest = [point for point in points if point not in unseen]
    if not unseen or len(rest) < 3:
        return float("nan")
    law = _fit(rest)
    return float(np.sqrt(np.mean([(law.loss(point.size, point.samples) - point.loss) ** 2 for point in unseen])))
