"""Where half of the runs succeed."""

from __future__ import annotations

import numpy as np

__all__ = ["half"]


def half(counts: np.ndarray, shares: np.ndarray, runs: int) -> float:
    """The number of examples at which half of the runs succeed: a logistic curve, most likely.

    Args:
        counts: examples [n].
        shares: of runs that succeed, [n].
        runs: at each number.
    """
    centres = np.linspace(counts.min(), counts.max(), 400)[:, None, None]
    widths = np.geomspace(0.005, 0.3, 40)[None, :, None] * counts.mean()
    logits = np.clip((counts - centres) / widths, -30, 30)
    likelihood = runs * np.sum(shares * logits - np.logaddexp(0, logits), -1)
    # The mean of the centres over the likelihood of all, which separated shares leave flat.
    weights = np.exp(likelihood - likelihood.max())
    return float(np.sum(weights * centres[:, :, 0]) / weights.sum())
