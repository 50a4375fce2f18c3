"""What studies of coloured digits measure: how the prediction depends on the colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from causal_sgd.types import Array, Snapshot

__all__ = [
    "AGREEMENTS",
    "ALPHA",
    "BATCH",
    "CONTRADICTION",
    "MEAN",
    "SAME_SIGN",
    "accuracies",
    "expected",
    "exponent",
    "flips",
    "gap",
    "predictions",
    "residuals",
    "right",
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

    one, other = snapshot.once(predictions)
    return jnp.mean(one - other)


def accuracies(snapshot: Snapshot) -> Array:
    """The share of right signs by the agreement of colour and label, [3], and for clean labels, [].

    The expectation over labels and colours is exact: every image of the test is shown in both
    colours. The last one is of labels without flips and colours that tell nothing; [4].
    """
    import jax.numpy as jnp

    pairs = [(agreement, ALPHA) for agreement in AGREEMENTS] + [(0.5, 0.0)]
    both, bits = snapshot.once(predictions), snapshot.world.test_bits
    return jnp.stack([expected(right, both, bits, *pair) for pair in pairs])


def right(margins: Array) -> Array:
    """1 where the label times the prediction is positive, 1/2 where it is 0."""
    import jax.numpy as jnp

    return (1 + jnp.sign(margins)) / 2


def expected(
    function: Callable[[Array], Array],
    both: Array,
    bits: Array,
    agreement: float | Array,
    flip: float | Array = ALPHA,
) -> Array:
    """The mean of a function of the label times the prediction over images, labels and colours, [].

    Args:
        function: of the label times the prediction, such as `right`.
        both: predictions for images in the colours 1 and -1, [2, n].
        bits: of these images, [n].
        agreement: how often the colour agrees with the label, [].
        flip: how often the label differs from the bit.
    """
    import jax.numpy as jnp

    total = jnp.zeros_like(bits)
    for label in (1, -1):
        like, unlike = function(label * both)[::label]
        chance = jnp.where(bits == label, 1 - flip, flip)
        total = total + chance * (agreement * like + (1 - agreement) * unlike)
    return jnp.mean(total)


def predictions(snapshot: Snapshot) -> Array:
    """The predictions for the images of the test in the colours 1 and -1, [2, n]."""
    import jax.numpy as jnp

    from causal_sgd.supervised.models._model import predictions_of

    world, model, params = snapshot.world, snapshot.model, snapshot.params
    inputs = [world.shown(world.test_images, sign) for sign in (1.0, -1.0)]
    return predictions_of(model, params, jnp.stack(inputs))


def residuals(snapshot: Snapshot) -> Array:
    """E |y - sigma(f)| and E (y - sigma(f))^2 without colour, y being 0 or 1; [2].

    Over images of the test and labels, in a world whose colour has size 0.
    """
    import jax
    import jax.numpy as jnp

    wrong = jax.nn.sigmoid(-snapshot.world.test_bits * snapshot.once(predictions)[0])
    kept, flipped = 1 - ALPHA, ALPHA  # the label is the bit, or not
    return jnp.stack(
        [jnp.mean(kept * wrong**power + flipped * (1 - wrong) ** power) for power in (1, 2)]
    )


def exponent(
    learning_rate: float | np.ndarray, agreements: np.ndarray, residuals: np.ndarray
) -> np.ndarray:
    """E log|1 + 2 eta b| of a small weight of the colour, of batches of one environment.

    b is the mean over a batch of the colour times the residual y - sigma(f), which is its size |y -
    sigma(f)| times a sign that is 1 as often as the colour agrees with the label: its mean and
    variance follow from the first two moments of the size, and it is normal.

    Args:
        learning_rate: eta [...].
        agreements: of the environments [E], which are equally likely.
        residuals: E |y - sigma(f)| and its square's, [..., 2].

    Returns:
        [...].
    """
    from causal_sgd import theory

    first, second = residuals[..., 0, None], residuals[..., 1, None]
    means = (2 * np.asarray(agreements) - 1) * first
    deviations = np.sqrt(np.maximum(second - means**2, 0) / BATCH)
    rates = 2 * np.asarray(learning_rate, float)[..., None]
    return np.asarray(theory.lyapunov_gaussian(rates, means, deviations), float).mean(-1)
