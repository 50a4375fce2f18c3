"""Least-norm and maximal-margin classifiers of Gaussian groups with as many inputs as examples.

The signed inputs y x of an example in group g, whose share is p_g, are s_g + noise: k signals s_g
with deviations sigma_k, and psi n further inputs of pure noise of deviation gamma. With n large, a
classifier has deterministic weights w [k] of the signals and a deterministic norm q of the others.
They follow by the comparison of Gaussian minimax problems of Gordon (after Montanari et al. 2019
and Deng et al. 2022, who treat one signal), where the n margins become s_g'w + S(w, q) G with one
normal number G each, S^2 = sum_k sigma_k^2 w_k^2 + gamma^2 q^2, and may be shifted by any vector of
length q gamma sqrt(psi n).
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
from scipy import optimize
from scipy.special import ndtr

__all__ = ["Law", "Weights"]


class Weights(NamedTuple):
    """The weights [k] of the signals and the norm of those of the noise."""

    signals: np.ndarray
    noise: float


class Law(NamedTuple):
    """Groups of examples, and the noise of their inputs."""

    signals: np.ndarray  # [G, k] s_g
    shares: np.ndarray  # [G] p_g
    deviations: np.ndarray  # [k] sigma_k
    noise: float = 1.0  # gamma

    def threshold(self) -> float:
        """The ratio psi beyond which the examples are separable: the least of
        E(s'w + S(w, 1) G)_-^2 / gamma^2; 1/2 without signals (Cover 1965).
        """

        def excess(w: np.ndarray) -> float:
            return self._shortfall(w, 0.0) / self.noise**2

        return float(optimize.minimize(excess, np.zeros(len(self.deviations))).fun)

    def least_norm(self, ratio: float, targets: np.ndarray | float = 1.0) -> Weights:
        """Least squares with the targets [G] of signed predictions, or for psi > 1 the weights of
        least norm that meet them.
        """
        goals = np.broadcast_to(np.asarray(targets, float), self.shares.shape)
        ridge = self.deviations**2 + self.noise**2 * max(ratio - 1, 0)
        second = (self.signals.T * self.shares) @ self.signals + np.diag(ridge)
        w = np.linalg.solve(second, self.signals.T @ (self.shares * goals))
        missed = self.shares @ (goals - self.signals @ w) ** 2 + np.sum((self.deviations * w) ** 2)
        excess = ratio - 1 if ratio > 1 else (1 - ratio) / ratio
        return Weights(w, float(np.sqrt(missed / excess)) / self.noise)

    def margin(self, ratio: float) -> Weights:
        """The weights of maximal margin 1, for psi above the threshold."""
        bound = ratio * self.noise**2

        def reach(w: np.ndarray) -> float:
            """The margin for q = 1, up to the norm."""

            def missing(goal: float) -> float:
                return self._shortfall(w, goal) - bound

            high = 1.0
            while missing(high) < 0:
                high *= 2
            low = -1.0
            while missing(low) > 0:
                low *= 2
            return cast("float", optimize.brentq(missing, low, high))

        start = self.least_norm(max(ratio, 1.1))
        found = optimize.minimize(
            lambda w: -reach(w) / np.sqrt(1 + w @ w),
            start.signals / start.noise,
            method="Nelder-Mead",
            options={"xatol": 1e-6, "fatol": 1e-10},
        )
        goal = reach(found.x)
        return Weights(found.x / goal, 1 / goal)

    def after(self, ratio: float, steps: float, factors: np.ndarray) -> Weights:
        """Weights after so many unit steps on exponential losses, of all examples on the margin.

        Margins are log(steps c_g / a_g), where c_g are the factors of the groups' losses and
        a_g / n = (1 - s_g'w) / (psi n gamma^2) the dual variables of least norm (Soudry et al.
        2018), so that factors matter by log c_g over log(steps).
        """
        limit = self.least_norm(ratio)
        duals = (1 - self.signals @ limit.signals) / (ratio * self.noise**2)
        return self.least_norm(ratio, np.log(steps * factors / duals))

    def error(self, weights: Weights, signals: np.ndarray, *, noisy: bool = True) -> float:
        """The error rate at signals [k], with or without the inputs of noise."""
        w, q = weights
        spread = np.sum((self.deviations * w) ** 2) + (self.noise * q) ** 2 * noisy
        return float(ndtr(-(signals @ w) / np.sqrt(spread)))

    def _shortfall(self, w: np.ndarray, goal: float) -> float:
        """E(goal - s'w - S(w, 1) G)_+^2."""
        spread = np.sqrt(np.sum((self.deviations * w) ** 2) + self.noise**2)
        ratio = (goal - self.signals @ w) / spread
        density = np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi)
        terms = (ratio**2 + 1) * ndtr(ratio) + ratio * density
        return float(spread**2 * (self.shares @ terms))
