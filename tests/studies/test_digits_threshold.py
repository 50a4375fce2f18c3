"""What studies of coloured digits measure and predict, against plain NumPy."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest
import xarray as xr
from scipy import special

from causal_sgd import run
from causal_sgd.studies.supervised import _digits as digits
from causal_sgd.studies.supervised import _digits_prediction as prediction
from causal_sgd.supervised import losses, measurements, models, worlds
from causal_sgd.training import samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Snapshot

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RANDOM = np.random.default_rng(2)
IMAGES = RANDOM.uniform(size=(30, 3)), RANDOM.integers(0, 10, 30)


def measured(colour: float) -> dict[str, np.ndarray]:
    """The last frame of some steps, with the weights and the images of the test."""

    def weights(snapshot: Snapshot) -> jax.Array:
        return snapshot.estimate

    def images(snapshot: Snapshot) -> jax.Array:
        return snapshot.world.test_images

    def bits(snapshot: Snapshot) -> jax.Array:
        return snapshot.world.test_bits

    algorithm = sgd(
        world=worlds.coloured_digits(images=IMAGES, colour=colour, test_share=0.5),
        sampler=samplers.hetero(batch_size=8),
        measurement=measurements.examples(fresh=8, loss=losses.logistic),
        model=models.linear(dim=4, init_scale=2.0),
        optimizer=optax.sgd(0.1),
    )
    watched = [weights, images, bits, digits.gap, digits.accuracies, digits.residuals]
    metrics = {each.__name__: each for each in watched}
    trace = run(jax.random.key(0), algorithm=algorithm, metrics=metrics, num_steps=3)
    return {name: np.asarray(value[-1], float) for name, value in trace.metrics.items()}


def test_the_gap_and_the_accuracies_are_those_of_all_images_labels_and_colours() -> None:
    found = measured(0.7)
    *image, colour = found["weights"]
    assert found["gap"] == pytest.approx(2 * 0.7 * colour, rel=1e-4)
    logits = found["images"] @ image
    agreements, flips = (*digits.AGREEMENTS, 0.5), (*(digits.ALPHA,) * 3, 0.0)
    for right, agreement, flip in zip(found["accuracies"], agreements, flips, strict=True):
        shares = []
        for logit, bit in zip(logits, found["bits"], strict=True):
            for label, chance in ((bit, 1 - flip), (-bit, flip)):
                for sign, other in ((label, agreement), (-label, 1 - agreement)):
                    shares.append(chance * other * (label * (logit + 0.7 * sign * colour) > 0))
        assert right == pytest.approx(sum(shares) / len(logits), abs=1e-5)


def test_the_residuals_are_those_without_colour() -> None:
    found = measured(0.0)
    chances = special.expit(found["images"] @ found["weights"][:3])
    ones = np.where(found["bits"] > 0, 1 - digits.ALPHA, digits.ALPHA)  # chance of the label 1
    for power, moment in zip((1, 2), found["residuals"], strict=True):
        mean = np.mean(ones * (1 - chances) ** power + (1 - ones) * chances**power)
        assert moment == pytest.approx(mean, rel=1e-4)


def test_the_exponent_is_that_of_drawn_batches() -> None:
    draws, rate, agreements = 40_000, 0.8, np.array([0.95, 0.25])
    sizes = RANDOM.uniform(0.2, 0.7, (draws, digits.BATCH))
    logarithms = []
    for agreement in agreements:
        signs = np.where(RANDOM.random(sizes.shape) < agreement, 1, -1)
        logarithms.append(np.log(abs(1 + 2 * rate * (signs * sizes).mean(1))))
    moments = np.array([0.45, 0.45**2 + 0.5**2 / 12])
    found = digits.exponent(rate, agreements, moments)
    error = np.sqrt(sum(np.var(each) for each in logarithms) / 4 / draws)
    # the third moment of a mean of 128, which the formula leaves out, is below 1e-4
    assert found == pytest.approx(np.mean(logarithms), abs=4 * error + 1e-4)


def pilot(sizes: np.ndarray, failing: tuple[int, ...] = ()) -> xr.Dataset:
    """Models without colour with given moments [rates, 2], of which some diverged."""
    count = len(prediction.RATES)
    values = np.repeat(sizes[:, None, None], 2, 1)  # [rates, seeds, step, 2]
    diverged = np.full((count, 2), -1)
    diverged[list(failing), 0] = 1
    axes = ("learning_rate", "seed")
    return xr.Dataset(
        {"residuals": ((*axes, "step", "moment"), values), "diverged_at": (axes, diverged)},
        coords={"learning_rate": prediction.RATES, "seed": [0, 1], "step": [10]},
    )


def test_the_predicted_step_size_is_the_root_for_the_residuals_there() -> None:
    slopes = 0.4 + 0.03 * prediction.RATES
    sizes = np.stack([slopes, slopes**2 + 0.02], -1)
    found = prediction.critical(pilot(sizes), (0.95, 0.25))
    first = 0.4 + 0.03 * found
    there = np.array([first, np.interp(found, prediction.RATES, sizes[:, 1])])
    agreements = np.array([0.95, 0.25])
    assert 0.8 < found < 1.5
    assert digits.exponent(found, agreements, there) == pytest.approx(0, abs=2e-5)
    assert digits.exponent(0.98 * found, agreements, there) > 1e-3


def test_step_sizes_at_which_a_run_diverged_predict_nothing() -> None:
    sizes = np.tile([0.4, 0.18], (len(prediction.RATES), 1))
    broken = sizes.copy()
    broken[3:] = 0.9
    failing = tuple(range(3, len(sizes)))
    expected = prediction.critical(pilot(sizes), (0.95, 0.25))
    assert prediction.critical(pilot(broken, failing), (0.95, 0.25)) == pytest.approx(expected)
    assert prediction.critical(pilot(broken, tuple(range(len(sizes)))), (0.95, 0.25)) == 1


def test_a_colour_of_one_sign_has_no_step_size_within_reach() -> None:
    sizes = np.tile([0.4, 0.18], (len(prediction.RATES), 1))
    assert prediction.critical(pilot(sizes), digits.SAME_SIGN) == prediction.GRID[-1]
