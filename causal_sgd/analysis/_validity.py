"""Checks of an estimate on its own data. A doubtful one comes with a warning that says why."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np

__all__ = ["bent", "doubt"]

SIGNIFICANT = 2.5  # standard errors
MATERIAL = 0.01  # relative change of an estimate


def doubt(estimator: str, reason: str) -> None:
    """Warn the caller of an estimator that its value is doubtful."""
    warnings.warn(f"{estimator}: {reason}", RuntimeWarning, stacklevel=3)


def bent(
    abscissas: np.ndarray,
    heights: np.ndarray,
    estimate: float,
    target: Literal["root", "intercept"],
    exponent: float,
) -> str | None:
    """The reason to doubt an extrapolation by a line, or None.

    A parabola is fitted to the same points. The line is in doubt if the curvature is significant
    and the estimate of the parabola differs by more than one per cent.

    Args:
        abscissas: [n].
        heights: [1 + R, n], of the sample and of its bootstrap resamples, not all finite.
        estimate: by the line.
        target: what is estimated, the abscissa at height zero or the height at zero ...
        exponent: ... to the power of one over this exponent.
    """
    heights = heights[np.isfinite(heights).all(1)]
    if len(abscissas) < 3 or len(heights) < 3 or not np.isfinite(estimate):
        return None
    # Exact data have no spread; the floor keeps their weights finite.
    deviations = np.maximum(heights[1:].std(0), 1e-9 * abs(heights).mean() + 1e-300)
    scale = abs(abscissas).max()
    design = np.stack([(abscissas / scale) ** power for power in range(3)], 1)
    fits = (heights / deviations) @ np.linalg.pinv(design / deviations[:, None]).T
    rounding = 1e-6 * abs(fits[0]).max()
    if abs(fits[0, 2]) <= SIGNIFICANT * fits[1:, 2].std() + rounding:
        return None
    other = fits[0, 0]
    if target == "root":
        roots = np.roots(fits[0, ::-1]) * scale
        other = roots[np.argmin(abs(roots - estimate**exponent))]
    other = float(other.real) ** (1 / exponent) if other.real > 0 and not other.imag else np.nan
    if abs(other - estimate) <= MATERIAL * abs(estimate):
        return None
    instead = f"a parabola gives {other:.4g}" if np.isfinite(other) else "a parabola has none"
    return f"the points do not lie on a line: it gives {estimate:.4g}, {instead}"
