"""What gradient flow on a linear network of one output conserves, and what follows from it.

For layers W_1 [p, h], ..., W_L [h, 1] of x' W_1 ... W_L the matrices C_l = W_l' W_l - W_(l+1)
W_(l+1)' are conserved. A step of gradient descent changes them by at most eta^2 |gradient|^2, which
adds up to 2 eta times the first loss while steps decrease the loss. From the top, W_L being of rank
one,

    |W_l|_2^2 >= |W_(l+1)|_2^2 + lambda_min(C_l),  |W_l|_F^2 = |W_(l+1)|_F^2 + tr C_l,

so that |W_l|_F^2 - |W_l|_2^2 <= sum_{m >= l} tr C_m - lambda_min(C_m). With the leading right
singular vector u of W_l and the left one v of W_(l+1),

    |W_l|_2^2 = u'(W_(l+1) W_(l+1)' + C_l) u

bounds (1 - (u'v)^2) times the difference of the two largest eigenvalues of W_(l+1) W_(l+1)' by
lambda_max(C_l) - lambda_min(C_l). (After Ji and Telgarsky, ICLR 2019; derived here.)

Balanced layers, C_l = 0, move the product by

    w' = |w|^(2 - 2/L) (g + (L - 1) (g'w) w/|w|^2),

g the negative gradient with respect to w (Arora, Cohen and Hazan 2018). Its paths do not depend on
the first factor. Where w grows along w^, with a part w_1 across it, w_1 is constant iff g has the
part -(L - 1) (g'w) w_1/|w|^2 across w^: it tends to that of a linear model, for which this part is
0, like 1/|w|.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Logistic", "balanced_across", "logistic_numbers"]


class Logistic(NamedTuple):
    """Numbers of runs over frames, [seed, step] each; of several layers the largest."""

    change: np.ndarray  # of the conserved matrices since the start, over its bound
    rank: np.ndarray  # 1 - |W|_2^2/|W|_F^2
    rank_excess: np.ndarray  # |W|_F^2 - |W|_2^2 over its bound
    sine: np.ndarray  # squared, between adjacent singular vectors
    sine_excess: np.ndarray  # over its bound
    across: np.ndarray  # distance of the direction of w from the first axis, times |w|
    size: np.ndarray  # |w|


def logistic_numbers(layers: Sequence[np.ndarray], slack: np.ndarray) -> Logistic:
    """The bounds along runs whose margin's direction is the first axis.

    Args:
        layers: W_l [seed, step, n, m], the first one first.
        slack: the bound of what gradient descent adds to a conserved matrix, [seed].
    """
    conserved = [
        np.swapaxes(lower, -1, -2) @ lower - upper @ np.swapaxes(upper, -1, -2)
        for lower, upper in itertools.pairwise(layers)
    ]
    change = np.max([np.linalg.norm(c - c[:, :1], axis=(-1, -2)) for c in conserved], 0)
    parts = [np.linalg.svd(layer, full_matrices=False) for layer in layers]
    squares = [singular**2 for _, singular, _ in parts]
    ranks, rank_excesses, sines, sine_excesses = [], [], [], []
    bound = np.zeros_like(slack)
    for index in reversed(range(len(conserved))):
        eigenvalues = np.linalg.eigvalsh(conserved[index][:, 0])
        # The slack of a trace is at most sqrt(h) times that of the norm.
        spare = (1 + eigenvalues.shape[-1] ** 0.5) * slack
        bound = bound + eigenvalues.sum(-1) - eigenvalues[:, 0] + spare
        rest = squares[index][..., 1:].sum(-1)
        ranks.append(rest / squares[index].sum(-1))
        rank_excesses.append(rest / bound[:, None])
        right, left = parts[index][2][..., 0, :], parts[index + 1][0][..., :, 0]
        sine = 1 - np.sum(right * left, -1) ** 2
        upper = squares[index + 1]
        gap = upper[..., 0] - (upper[..., 1] if upper.shape[-1] > 1 else 0)
        sines.append(sine)
        width = eigenvalues[:, -1] - eigenvalues[:, 0] + 2 * slack
        sine_excesses.append(sine * gap / width[:, None])
    weights = layers[0]
    for layer in layers[1:]:
        weights = weights @ layer
    weights = weights[..., 0]
    size = np.linalg.norm(weights, axis=-1)
    axis = np.eye(weights.shape[-1])[0]
    distance = np.linalg.norm(weights / size[..., None] - axis, axis=-1)
    return Logistic(
        change / slack[:, None],
        np.max(ranks, 0),
        np.max(rank_excesses, 0),
        np.max(sines, 0),
        np.max(sine_excesses, 0),
        distance * size,
        size,
    )


def balanced_across(points: np.ndarray, depth: int, sizes: np.ndarray) -> np.ndarray:
    """The distance from the first axis times |w| of balanced layers, where |w| has given sizes [n].

    The path of w from zero, on equally likely points and with the logistic loss, by small steps of
    one length.

    Args:
        points: y x [n, p].
        depth: L.
        sizes: |w|.
    """
    length, last = 0.004, float(np.max(sizes))
    gradient = points.mean(0)
    w = length * gradient / np.linalg.norm(gradient)
    known, values = [], []
    size = length
    while size < last + length:
        unit = w / size
        known.append(size)
        values.append(size * np.linalg.norm(unit - np.eye(len(w))[0]))
        gradient = points.T @ (1 / (1 + np.exp(points @ w)))
        move = gradient + (depth - 1) * (gradient @ unit) * unit
        w = w + length * move / np.linalg.norm(move)
        size = float(np.linalg.norm(w))
    return np.interp(sizes, known, values)
