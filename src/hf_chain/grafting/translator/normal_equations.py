"""Ridge regression from sums that are added up batch by batch, so that no batch has to be kept."""

from __future__ import annotations

import torch


class NormalEquations:
    """The sums of a weighted least-squares problem, in float64.

    For tokens i with features a_i, residuals r_i and weights w_i, the solution X minimises

        Σ_i w_i ‖r_i − a_i X‖² + ρ · mean(diag(G)) · ‖X‖²,    G = Σ_i w_i a_iᵀ a_i,

    where an intercept, the last row of X, has no penalty.

    Args:
        features (`int`): size F of a feature vector.
        outputs (`int`): size D of a residual.
        intercept (`bool`): whether X gets a row for a constant feature.
        device (`torch.device`, *optional*): where the sums are; the CPU by default.
    """

    def __init__(
        self, features: int, outputs: int, intercept: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        size = features + intercept
        self.features, self.intercept = features, intercept
        self.gram = torch.zeros(size, size, dtype=torch.float64, device=device)
        self.cross = torch.zeros(size, outputs, dtype=torch.float64, device=device)
        self.residual = torch.zeros((), dtype=torch.float64, device=device)
        self.tokens = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of adding the tokens up."""
        size, outputs = self.cross.shape
        return self.tokens * size * (size + outputs)

    def solution_macs(self, ridges: int) -> int:
        """And of its solutions at so many ridge strengths: a Cholesky factorisation, two triangular systems and the
        error each.

        Args:
            ridges (`int`): how many strengths.

        Returns:
            `int`: multiply-accumulate operations.
        """
        size, outputs = self.cross.shape
        return ridges * (size**3 // 6 + 2 * size**2 * outputs)

    def add(self, features: torch.Tensor, residuals: torch.Tensor, weights: torch.Tensor) -> None:
        """Adds N tokens.

        Args:
            features (`torch.Tensor` of shape `[N, F]`): a.
            residuals (`torch.Tensor` of shape `[N, D]`): r.
            weights (`torch.Tensor` of shape `[N]`): w, not negative.
        """
        a, r, w = (value.to(self.gram.device, torch.float64) for value in (features, residuals, weights))
        if self.intercept:
            a = torch.cat([a, torch.ones_like(a[:, :1])], dim=1)
        weighted = a * w[:, None]
        self.gram.addmm_(weighted.T, a)
        self.cross.addmm_(weighted.T, r)
        self.residual += (w * r.square().sum(1)).sum()
        self.tokens += len(a)

    def solve(self, ridge: float) -> torch.Tensor | None:
        """The solution X at one ridge strength.

        Args:
            ridge (`float`): ρ, relative to the mean diagonal of G.

        Returns:
            `torch.Tensor` of shape `[F, D]`, or `[F + 1, D]` with the intercept; `None` where this ridge is too weak
            for float64 to tell the features apart.
        """
        penalised = self.gram.clone()
        diagonal = penalised.diagonal()[: self.features]
        diagonal += ridge * diagonal.mean()
        factor, failed = torch.linalg.cholesky_ex(penalised)
        return None if failed else torch.cholesky_solve(self.cross, factor)

    def error(self, solution: torch.Tensor) -> float:
        """Σ_i w_i ‖r_i − a_i X‖² of a solution, from the sums alone."""
        fitted = (solution * (self.gram @ solution - 2 * self.cross)).sum()
        return (self.residual + fitted).item()


class GainedEquations(NormalEquations):
    """The same where every channel c of what is fitted is multiplied by a gain g_c before it counts.

    For tokens i with features a_i, residuals r_i and weights w_i, the solution X minimises

        Σ_i w_i Σ_c (r_ic − g_c a_i X_c)² + ρ · mean(g²) · mean(diag(G)) · ‖X‖²,    G = Σ_i w_i a_iᵀ a_i.

    That is (g_c² G + λ) X_c = g_c Σ_i w_i a_iᵀ r_ic for every channel, with one λ: a channel that the gain all but
    switches off counts as little as it does in the model. The eigenvectors of G serve all channels and all ρ.

    Args:
        features (`int`): size F of a feature vector.
        gains (`torch.Tensor` of shape `[D]`): g.
    """

    def __init__(self, features: int, gains: torch.Tensor) -> None:
        super().__init__(features, len(gains), device=gains.device)
        self.gains = gains.detach().double()
        self._eigen: tuple[torch.Tensor, torch.Tensor] | None = None

    def solution_macs(self, ridges: int) -> int:
        """Of a symmetric eigenproblem, and two products and the error for each ridge strength.

        Args:
            ridges (`int`): how many strengths.

        Returns:
            `int`: multiply-accumulate operations.
        """
        size, outputs = self.cross.shape
        return 9 * size**3 // 2 + (1 + 2 * ridges) * size**2 * outputs

    def add(self, features: torch.Tensor, residuals: torch.Tensor, weights: torch.Tensor) -> None:
        """Adds N tokens, as `NormalEquations.add` does."""
        super().add(features, residuals, weights)
        self._eigen = None

    def solve(self, ridge: float) -> torch.Tensor:
        """The solution X, `[F, D]`, at one ridge strength, relative to the mean of g² and the mean diagonal of G.

        Args:
            ridge (`float`): ρ.

        Returns:
            `torch.Tensor` of shape `[F, D]`: X.
        """
        if self._eigen is None:
            values, vectors = torch.linalg.eigh(self.gram)
            self._eigen = values.clamp_min(0), vectors
        values, vectors = self._eigen
        squares = self.gains.square()
        penalised = values[:, None] * squares + ridge * squares.mean() * self.gram.diagonal().mean()
        # Where there is nothing to fit, neither side is more than 0.
        penalised = penalised.clamp_min(torch.finfo(torch.float64).tiny)
        return vectors @ ((vectors.T @ self.cross) * self.gains / penalised)

    def error(self, solution: torch.Tensor) -> float:
        """Σ_i w_i Σ_c (r_ic − g_c a_i X_c)² of a solution, from the sums alone."""
        return super().error(solution * self.gains)


class ChannelEquations:
    """The same for a solution that maps every channel to itself: F = D, and X is diagonal, `[D]`.

    Args:
        channels (`int`): D.
        device (`torch.device`, *optional*): where the sums are; the CPU by default.
    """

    def __init__(self, channels: int, device: torch.device | str = "cpu") -> None:
        self.gram = torch.zeros(channels, dtype=torch.float64, device=device)
        self.cross = torch.zeros(channels, dtype=torch.float64, device=device)
        self.residual = torch.zeros((), dtype=torch.float64, device=device)
        self.tokens = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of adding the tokens up."""
        return 2 * self.tokens * len(self.gram)

    def solution_macs(self, ridges: int) -> int:
        """And of its solutions at so many ridge strengths."""
        return ridges * len(self.gram)

    def add(self, features: torch.Tensor, residuals: torch.Tensor, weights: torch.Tensor) -> None:
        """Adds N tokens, as `NormalEquations.add` does."""
        a, r, w = (value.to(self.gram.device, torch.float64) for value in (features, residuals, weights))
        self.gram += w @ a.square()
        self.cross += w @ (a * r)
        self.residual += (w * r.square().sum(1)).sum()
        self.tokens += len(a)

    def solve(self, ridge: float) -> torch.Tensor:
        """The diagonal of X, `[D]`, at one ridge strength, relative to the mean diagonal of G."""
        return self.cross / (self.gram + ridge * self.gram.mean()).clamp_min(torch.finfo(torch.float64).tiny)

    def error(self, solution: torch.Tensor) -> float:
        """Σ_i w_i ‖r_i − a_i X‖² of a solution, from the sums alone."""
        return (self.residual + (solution * (self.gram * solution - 2 * self.cross)).sum()).item()
