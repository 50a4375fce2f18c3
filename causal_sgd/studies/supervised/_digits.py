"""What studies of coloured digits measure: how the prediction depends on the colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from causal_sgd.types import Array, Snapshot

__all__ = [
    "AGREEMENTS",
    "ALPHA",
    "BATCH",
    "CONTRADICTION",
    "MEAN",
    "SAME_SIGN",
    "accuracies",
    "exponent",
    "flips",
    "gap",
]

ALPHA = 0.25  # share of flipped labels
CONTRADICTION = (0.95, 0.25)  # how often the colour agrees with the label in each environment
SAME_SIGN = (0.9, 0.8)
MEAN = 0.2  # of 2 p - 1 over contradicting environments
BATCH = 128
AGREEMENTS = (0.1, 0.5, 0.9)  # in the test


def flips(agreements: tuple[float, ...]) -> tuple[float, ...]:
    """How often the colour differs from the label."""
    return tuple(round(1 - agreement, 6) for agreement in agreements)


def gap(snapshot: Snapshot) -> Array:
    """The mean difference of the predictions for the two colours of an image of the test, []."""
    import jax.numpy as jnp

    one, other = snapshot.once(_both)
    return jnp.mean(one - other)


def accuracies(snapshot: Snapshot) -> Array:
    """The share of right signs by the agreement of colour and label, [3], and for clean labels, [].

    The expectation over labels and colours is exact: every image of the test is shown in both
    colours. The last one is of labels without flips and colours that tell nothing; [4].
    """
    import jax.numpy as jnp

    world, both = snapshot.world, jnp.stack(snapshot.once(_both))
    bits = world.test_bits
    right = {y: (1 + jnp.sign(y * both)) / 2 for y in (1, -1)}  # [colour, image]

    def share(agreement: float, flip: float) -> Array:
        values = jnp.zeros_like(bits)
        for y in (1, -1):
            like, unlike = (right[y][0], right[y][1]) if y > 0 else (right[y][1], right[y][0])
            chance = jnp.where(bits == y, 1 - flip, flip)
            values = values + chance * (agreement * like + (1 - agreement) * unlike)
        return jnp.mean(values)

    noisy = [share(agreement, ALPHA) for agreement in AGREEMENTS]
    return jnp.stack([*noisy, share(0.5, 0.0)])


def _both(snapshot: Snapshot) -> tuple[Array, Array]:
    """The predictions [n] for the images of the test in the colours 1 and -1."""
    from causal_sgd.supervised.models._model import predictions_of

    world, model, params = snapshot.world, snapshot.model, snapshot.params
    one, other = (
        predictions_of(model, params, world.shown(world.test_images, sign)) for sign in (1.0, -1.0)
    )
    return one, other


def exponent(learning_rate: float, agreements: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """E log|1 + 2 eta b| of a small weight of the colour, of batches of one environment.

    b is the mean over a batch of the colour times the residual y - sigma(f), which is its size |y -
    sigma(f)| times a sign that is 1 as often as the colour agrees with the label: its mean and
    variance follow from the first two moments of the size, and it is normal.

    Args:
        learning_rate: eta.
        agreements: of the environments [E], which are equally likely.
        residuals: E |y - sigma(f)| and its square's, [..., 2].

    Returns:
        [...].
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    signs = 2 * np.asarray(agreements) - 1
    first, second = residuals[..., 0, None], residuals[..., 1, None]
    means = signs * first
    deviations = np.sqrt((second - means**2) / BATCH)
    drawn = means[..., None] + deviations[..., None] * nodes
    with np.errstate(divide="ignore"):
        logarithms = np.log(np.abs(1 + 2 * learning_rate * drawn))
    return (logarithms @ weights / weights.sum()).mean(-1)
