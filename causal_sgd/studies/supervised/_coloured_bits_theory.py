"""Two bits under logistic loss: where penalties are least, and BIRM's penalty, from the masses.

The margin of a prediction w1 x1 + w2 x2 is +-w1 +- w2, with the signs by which the bits agree with
the label. Losses R_e = E log(1 + e^-t) and their derivatives D_e = -E t/(1 + e^t) in the scale of
the prediction are sums over the four margins t, and linear in beta_e.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "ALPHA",
    "BIT",
    "COLOUR",
    "SPLIT",
    "birm",
    "irmv1",
    "irmv1_switch",
    "vrex",
    "vrex_switch",
]

ALPHA, BETAS = 0.25, np.array([0.2, 0.1])
MEAN = float(BETAS.mean())
BIT, COLOUR = (float(np.log((1 - flip) / flip)) for flip in (ALPHA, MEAN))
"""The log-odds of the bit, and those of the colour in all data together: ERM's weights."""
SPLIT = float((BETAS[0] + 1 - BETAS[1]) / 2)
"""The agreement of the environments with whether the colour agrees with the label."""
SIGNS = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)])
MASS = np.where(SIGNS[:, 0] > 0, 1 - ALPHA, ALPHA) * np.where(
    SIGNS[:, 1] > 0, 1 - BETAS[:, None], BETAS[:, None]
)  # [E, 4]


def vrex(weights: np.ndarray) -> np.ndarray:
    """The minimum (w1, w2) of V-REx for weights of the penalty [n]; [n, 2].

    Its gradient is that of the mean loss with another mean of beta_e, so that w1 is the log-odds of
    the bit at every weight. The mean is b + 2 weight Var(beta_e) dR_e/dbeta_e, and w2 its log-odds.
    """
    from scipy import optimize

    def excess(second: float, weight: float) -> float:
        mean = MEAN + 2 * weight * BETAS.var() * _slope(BIT, second)
        return mean - 1 / (1 + np.exp(second))

    roots = [optimize.brentq(excess, 0, COLOUR, args=(weight,)) for weight in weights]
    return np.array([(BIT, root) for root in roots])


def vrex_switch() -> float:
    """The weight of the penalty at which w1 = w2 in V-REx: there the other mean is alpha."""
    return float((ALPHA - MEAN) / (2 * BETAS.var() * _slope(BIT, BIT)))


def irmv1(weights: np.ndarray) -> np.ndarray:
    """The minimum (w1, w2) of IRMv1 for rising weights of the penalty [n], from ERM on; [n, 2]."""
    from scipy import optimize

    points = [np.array([BIT, COLOUR])]
    for weight in weights:
        found = optimize.root(_irmv1_gradient, points[-1], args=(weight,), tol=1e-12)
        points.append(found.x)
    return np.array(points[1:])


def irmv1_switch() -> float:
    """The weight of the penalty at which w1 = w2 in IRMv1."""
    from scipy import optimize

    def gradient(numbers: np.ndarray) -> np.ndarray:
        both, logarithm = numbers
        return _irmv1_gradient(np.array([both, both]), np.exp(logarithm))

    return float(np.exp(optimize.root(gradient, np.array([1.4, np.log(40)]), tol=1e-12).x[1]))


def birm(weights: np.ndarray, deviation: float, loss: str) -> float:
    """E_v D_e(v)^2 at scales v ~ N(1, deviation^2), averaged over the environments.

    For the squared loss of the package, a quarter of the square, it is D_e^2 plus
    (deviation E f^2 / 2)^2. Under logistic loss it is an integral over v.
    """
    margins = SIGNS @ weights
    if loss == "squared":
        slopes = MASS @ ((margins - 1) * margins) / 2
        curvatures = MASS @ margins**2 / 2
        return float(np.mean(slopes**2 + (deviation * curvatures) ** 2))
    normal = np.linspace(-9, 9, 2001)
    density = np.exp(-(normal**2) / 2)
    scaled = (1 + deviation * normal[:, None]) * margins[None]
    slopes = MASS @ (-margins[:, None] / (1 + np.exp(scaled.T)))  # [E, 2001]
    return float(np.mean(slopes**2 @ density / density.sum()))


def _slope(first: float, second: float) -> float:
    """The derivative of R_e in beta_e."""
    both, apart = np.log1p(np.exp(-np.array([first + second, first - second])))
    return float((1 - 2 * ALPHA) * (apart - both) + 2 * ALPHA * second)


def _irmv1_gradient(weights: np.ndarray, weight: float) -> np.ndarray:
    """The gradient of the mean loss and the mean of D_e^2, over 1 + weight."""
    margins = SIGNS @ weights
    miss = 1 / (1 + np.exp(margins))
    slopes = MASS @ (-margins * miss)  # D_e
    of_losses = -(MASS * miss) @ SIGNS
    of_slopes = (MASS * (margins * miss * (1 - miss) - miss)) @ SIGNS
    total = of_losses + 2 * weight * slopes[:, None] * of_slopes
    return total.mean(0) / (1 + weight)
