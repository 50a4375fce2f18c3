"""A user's own data: what is read, what is refused, and the moments that follow."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from causal_sgd import run
from causal_sgd.supervised import estimators, losses, measurements, metrics, worlds
from causal_sgd.training import algorithms
from support.moment_scores import (
    MAX_Z,
    by_definition,
    drawn_by_definition,
    drawn_moments,
    drawn_once,
    entries,
    judge,
    scores,
)
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 3)) + np.array([1.0, 0, 2]), RNG.normal(size=40)
OWNERS = np.array(["north", "south", "east", "south"] * 10)
FRAME = pd.DataFrame(X, columns=["age", "dose", "height"]).assign(out=Y, region=OWNERS)
NAMED = xr.DataArray(X, dims=("row", "input"), coords={"input": ["age", "dose", "height"]})


def moments_by_hand(name: str) -> np.ndarray:
    rows = name == OWNERS
    return by_definition(X[rows][None], Y[rows][None])[0]


@pytest.mark.parametrize(
    "arguments",
    [
        (X, Y, OWNERS),
        (X.tolist(), Y.tolist(), OWNERS.tolist()),
        (jnp.asarray(X), jnp.asarray(Y), OWNERS),
        (FRAME, "out", "region"),
        (FRAME[["age", "dose", "height"]], FRAME["out"], FRAME["region"]),
        (NAMED, xr.DataArray(Y), xr.DataArray(OWNERS)),
        (xr.Dataset.from_dataframe(FRAME), "out", "region"),
        (X.astype(object), Y, OWNERS.astype(object)),
    ],
    ids=["numpy", "lists", "jax", "names", "frame", "xarray", "dataset", "objects"],
)
def test_every_kind_of_table_gives_the_same_world(arguments: Any) -> None:
    world = draw_world(worlds.from_arrays(*arguments))
    assert world.environments == ("east", "north", "south")
    assert world.columns in (None, ("age", "dose", "height"))
    for name, second in zip(world.environments, world.second_moments, strict=True):
        np.testing.assert_allclose(second, moments_by_hand(name), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(world.counts, [10, 10, 20])
    np.testing.assert_allclose(world.probabilities, [0.25, 0.25, 0.5])
    assert np.isnan(world.target).all()
    assert not world.causal.any()
    first = int(world.starts[2])
    np.testing.assert_allclose(world.inputs[first:], X[OWNERS == "south"], rtol=1e-6)
    np.testing.assert_allclose(world.labels[first:], Y[OWNERS == "south"], rtol=1e-6)


def test_columns_are_chosen_and_marked_by_name() -> None:
    options: dict[str, Any] = {"columns": ["height", "age"], "causal": ["age"]}
    factory = worlds.from_arrays(FRAME, "out", "region", target=[0.5, 1.0], **options)
    world = draw_world(factory)
    assert world.columns == ("height", "age")
    np.testing.assert_array_equal(world.causal, [False, True])
    np.testing.assert_allclose(world.target, [0.5, 1.0])
    np.testing.assert_allclose(world.second_moments[0, 0, 3], X[OWNERS == "east", 2].mean(), 1e-5)
    named = draw_world(worlds.from_arrays(X, Y, OWNERS, columns=["a", "b", "c"], causal=["b", 2]))
    assert named.columns == ("a", "b", "c")
    np.testing.assert_array_equal(named.causal, [False, True, True])


def test_environments_can_be_held_out() -> None:
    world = draw_world(worlds.from_arrays(X, Y, OWNERS, tests=["north"]))
    assert world.environments == ("east", "south")
    np.testing.assert_allclose(world.test_moments, [moments_by_hand("north")], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(world.second_moments[1], moments_by_hand("south"), 1e-5, 1e-6)


def test_standardised_columns_have_means_of_zero_and_variances_of_one() -> None:
    far = X + np.array([5000.0, 0, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        world = draw_world(worlds.from_arrays(far, Y, OWNERS, standardise=True))
    pooled = np.einsum("e,eij->ij", world.probabilities, world.second_moments)
    np.testing.assert_allclose(np.diagonal(pooled)[:3], 1, rtol=1e-4)
    np.testing.assert_allclose(pooled[-1, :-1], 0, atol=1e-5)
    back = np.asarray(world.inputs) * np.asarray(world.scale)[:3] + np.asarray(world.center)[:3]
    np.testing.assert_allclose(np.sort(back, 0), np.sort(far, 0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(world.center[3], Y.mean(), rtol=1e-5)


def test_pooled_least_squares_sees_the_rows_as_they_are() -> None:
    """Regression without intercept on all rows, by NumPy, and the numbers of rows as counts."""
    factory = worlds.from_arrays(X, Y, OWNERS)
    data = measurements.moments().init(jax.random.key(0), draw_world(factory))
    np.testing.assert_array_equal(data.training.counts, [10, 10, 20])
    algorithm = algorithms.fitted(
        world=factory, measurement=measurements.moments(), estimator=estimators.pooled()
    )
    trace = run(
        jax.random.key(0),
        algorithm=algorithm,
        metrics={"weights": lambda snapshot: snapshot.estimate, "loss": metrics.batch_loss},
        num_steps=1,
    )
    expected = np.linalg.lstsq(X, Y, rcond=None)[0]
    np.testing.assert_allclose(trace.metrics["weights"][-1], expected, rtol=1e-4)


def test_drawn_rows_are_rows_with_replacement() -> None:
    world, size = draw_world(worlds.from_arrays(X, Y, OWNERS)), 20_000
    draw = jax.jit(lambda key: world.draw_examples(key, jnp.array(1), size))
    x, y = draw(jax.random.key(1))
    own = X[OWNERS == "north"]
    place = np.argmin(np.abs(np.asarray(x)[:, :1] - own[None, :, 0]), 1)
    np.testing.assert_allclose(x, own[place], rtol=1e-6)
    np.testing.assert_allclose(y, Y[OWNERS == "north"][place], rtol=1e-6)
    shares = np.bincount(place, minlength=10) / size
    assert np.abs(shares - 0.1).max() < MAX_Z * (0.09 / size) ** 0.5
    one, other = drawn_moments(world, 2, 5, 5000), drawn_by_definition(world, 2, 5, 5000)
    judge(scores(entries(one), entries(other)))


def test_an_environment_with_few_rows_is_allowed_and_said() -> None:
    owners = np.where(np.arange(40) < 2, "tiny", "large")
    with pytest.warns(UserWarning, match=r"fewer training rows than the 3 inputs: 'tiny' \(2\)"):
        worlds.from_arrays(X, Y, owners)
    with pytest.warns(UserWarning, match="the mean of age is more than 100 times its standard"):
        worlds.from_arrays(FRAME.assign(age=X[:, 0] + 1e4), "out", "region")


def held_rows(world: Any) -> np.ndarray:
    """Which rows of X [N] the world's training rows are not, by their values."""
    inputs = np.asarray(world.inputs) * np.asarray(world.scale)[:3] + np.asarray(world.center)[:3]
    distances = np.abs(X[:, None] - inputs[None]).max(2)
    trains = distances.min(1) < 1e-5
    assert trains.sum() == len(inputs), "each training row is one row of the data"
    return ~trains


@pytest.mark.parametrize("measurement", [measurements.moments, measurements.examples])
def test_nothing_trains_on_the_rows_of_validation(measurement: Any) -> None:
    """The rows that are left, their moments, the fit and its risk, by NumPy."""
    factory = worlds.from_arrays(X, Y, OWNERS, validation_share=0.28)  # 2.8 and 5.6 rows
    algorithm = algorithms.fitted(
        world=factory, measurement=measurement(), estimator=estimators.pooled()
    )
    key = jax.random.key(3)
    seen = algorithm.snapshot(key, algorithm.step(key, algorithm.init(key)))
    held, data = held_rows(seen.world), seen.data
    np.testing.assert_array_equal(data.training.counts, [8, 8, 15])
    np.testing.assert_array_equal(data.validation.counts, [2, 2, 5])
    np.testing.assert_allclose(seen.world.probabilities, np.array([8, 8, 15]) / 31, rtol=1e-6)
    weights = np.linalg.lstsq(X[~held], Y[~held], rcond=None)[0]
    np.testing.assert_allclose(seen.estimate, weights, rtol=1e-4)
    risk = 0.0
    for place, name in enumerate(("east", "north", "south")):
        for part, rows in (("training", ~held), ("validation", held)):
            own = rows & (name == OWNERS)
            second = getattr(data, part).second[place]
            np.testing.assert_allclose(
                second, by_definition(X[own][None], Y[own][None])[0], rtol=1e-5, atol=1e-5
            )
        share = (~held & (name == OWNERS)).sum() / 31
        risk += share * np.mean((Y[own] - X[own] @ weights) ** 2)
    np.testing.assert_allclose(metrics.validation_risk(seen), risk, rtol=1e-4)


def test_rows_are_held_out_under_other_losses_too() -> None:
    signs = np.where(Y > 0, 1.0, -1.0)
    world: Any = worlds.from_arrays(X, signs, OWNERS, validation_share=0.3)(jax.random.key(2))
    data = measurements.examples(loss=losses.logistic).init(jax.random.key(0), world)
    counts = np.asarray(data.validation_rows.counts, int)
    found = [rows[:n] for rows, n in zip(data.validation_rows.inputs, counts, strict=True)]
    expected = X[held_rows(world)]
    np.testing.assert_allclose(np.sort(np.concatenate(found), 0), np.sort(expected, 0), 1e-5)
    measurement = measurements.examples(loss=losses.logistic, num_validation=5)
    with pytest.raises(ValueError, match="num_validation must be None in a world of a user"):
        measurement.init(jax.random.key(0), world)


def test_every_row_is_held_out_equally_often() -> None:
    factory, draws = worlds.from_arrays(X, Y, OWNERS, validation_share=0.3), 1000
    drawn = jax.jit(jax.vmap(factory))(jax.random.split(jax.random.key(0), draws))
    first = np.asarray(drawn.inputs)[:, :, 0]  # training rows of every draw
    shares = 1 - np.array([np.isclose(first, x, rtol=1e-5).sum() for x in X[:, 0]]) / draws
    assert np.abs(shares - 0.3).max() < MAX_Z * (0.3 * 0.7 / draws) ** 0.5
    # Pairs of one environment: negative correlation, as in sampling without replacement.
    trains = np.stack([np.isclose(first, x, rtol=1e-5).any(1) for x in X[OWNERS == "north", 0]])
    both = np.mean(~trains[0] & ~trains[1])
    expected = 0.3 * 2 / 9
    assert abs(both - expected) < MAX_Z * (expected * (1 - expected) / draws) ** 0.5
    other = factory(jax.random.key(5)), factory(jax.random.key(6))
    assert (held_rows(other[0]) != held_rows(other[1])).any()


def test_only_training_rows_give_the_units() -> None:
    options: dict[str, Any] = {"validation_share": 0.5, "tests": ["north"], "standardise": True}
    world: Any = worlds.from_arrays(X, Y, OWNERS, **options)(jax.random.key(1))
    held = held_rows(world) & (OWNERS != "north")
    trains = ~held & (OWNERS != "north")
    assert held.sum() == trains.sum() == 15
    center, spread = X[trains].mean(0), X[trains].std(0)
    np.testing.assert_allclose(world.center, [*center, Y[trains].mean()], rtol=1e-5)
    np.testing.assert_allclose(world.scale, [*spread, 1], rtol=1e-5)
    x, y = (X - center) / spread, Y - Y[trains].mean()
    for moments, name, rows in (
        (world.second_moments[1], "south", trains),
        (world.validation.second[1], "south", held),
        (world.test_moments[0], "north", ~trains),
    ):
        own = rows & (name == OWNERS)
        expected = by_definition(x[own][None], y[own][None])[0]
        np.testing.assert_allclose(moments, expected, rtol=1e-4, atol=1e-5)
    rare = X.copy()
    rare[:, 1] = np.arange(40) == 1  # constant in half of all splits
    constant = 0
    for seed in range(8):
        drawn: Any = worlds.from_arrays(rare, Y, OWNERS, **options)(jax.random.key(seed))
        assert np.isfinite(drawn.second_moments).all()
        constant += int(np.ptp(drawn.inputs[:, 1]) == 0)
    assert 0 < constant < 8


def test_shares_of_rows_are_rounded_down_but_not_by_arithmetic() -> None:
    x, y = np.random.default_rng(1).normal(size=(2, 100, 1))
    for share, number in ((0.29, 29), (0.299, 29), (0.57, 57), (0.9999, 99), (0.01, 1)):
        world = worlds.from_arrays(x, y[:, 0], [0] * 100, validation_share=share)
        assert draw_world(world).validation.counts.tolist() == [number]


def changed(row: int, column: int, value: float) -> np.ndarray:
    x = X.copy()
    x[row, column] = value
    return x


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"x": changed(7, 2, np.nan)}, "x must hold finite numbers, got nan in row 7, column 2"),
    (
        {"x": FRAME.assign(dose=changed(3, 1, np.inf)[:, 1]), "y": "out", "environment": "region"},
        "x must hold finite numbers, got inf in row 3, column 'dose'",
    ),
    (
        {"x": FRAME.assign(dose=["n/a", *X[1:, 1]]), "y": "out", "environment": "region"},
        "x must hold finite numbers, got 'n/a' in row 0, column 'dose'",
    ),
    (
        {"y": np.where(np.arange(40) == 5, np.nan, Y)},
        "y must hold finite numbers, got nan in row 5",
    ),
    ({"y": Y[:, None]}, r"y must have shape \[40\], one label for every row of x, got \[40, 1\]"),
    ({"y": Y[:-1]}, r"y must have shape \[40\], one label for every row of x, got \[39\]"),
    ({"x": X[:, 0]}, r"x must have shape \[N, p\], a row for every example, got \[40\]"),
    ({"x": X[:, :0]}, r"x must have shape \[N, p\]"),
    ({"environment": OWNERS[1:]}, r"environment must have shape \[40\], one name"),
    ({"environment": [*OWNERS[1:], None]}, "environment must name an environment in every row"),
    ({"environment": np.full(40, np.nan)}, "got nan in row 0"),
    ({"x": X[:0], "y": [], "environment": []}, "environment must name at least one environment"),
    ({"environment": "region"}, "environment must be an array, since x has no named columns"),
    ({"x": FRAME, "y": "outcome", "environment": "region"}, "y must be one of age, dose"),
    (
        {"x": FRAME, "y": "out", "environment": "region", "columns": ["weight"]},
        "columns must be one",
    ),
    ({"columns": ["a", "b"]}, "columns must name all 3 columns of an x without names, got 2"),
    ({"columns": ["a", "a", "b"]}, "columns must be different names"),
    ({"columns": "abc"}, "columns must be a list of names"),
    ({"tests": ["west"]}, "tests must name environments"),
    ({"tests": ["north", "south", "east"]}, "tests must leave at least one environment"),
    ({"causal": [3]}, "causal must be a whole number, at least 0 and at most 2, got 3"),
    ({"causal": ["age"]}, "causal must hold numbers of columns without names"),
    ({"causal": 1}, "causal must be a list of names or places of inputs, got 1"),
    ({"target": [1.0]}, r"target must have shape \[3\]"),
    ({"probabilities": [0.5, 0.5]}, "probabilities must have one entry per environment"),
    (
        {"validation_share": 0.06},
        "hold out at least one row of every environment and leave one, got 0.06 with 10 rows of "
        "'east'",
    ),
    ({"validation_share": 0.09}, "got 0.09 with 10 rows of 'east'"),
    (
        {"validation_share": 0.5, "environment": ["lone", *["rest"] * 39]},
        "got 0.5 with 1 rows of 'lone'",
    ),
    ({"validation_share": 1.0}, "a static number above 0 and below 1, got 1.0"),
    ({"validation_share": 0.0}, "validation_share must be a finite number above 0"),
    ({"validation_share": [0.5, 0.5, 0.5]}, "validation_share must be"),
    ({"x": np.ones((40, 2)), "standardise": True}, "x must have no constant column"),
    ({"x": X * 1e300}, "x must be 0 or from"),
    ({"x": np.ma.masked_array(X, X > 2)}, "x must have no masked entries"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_wrong_data(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        worlds.from_arrays(**{"x": X, "y": Y, "environment": OWNERS, **changes})


SECOND = np.stack([moments_by_hand(name) for name in ("north", "south")])


def test_given_moments_come_back_and_are_drawn_as_gaussian() -> None:
    parts = (SECOND[:, :3, :3], SECOND[:, :3, 3], SECOND[:, 3, 3], SECOND[:, :4, 4])
    for given in (SECOND, parts):
        world = draw_world(worlds.from_moments(given, [10, 20]))
        np.testing.assert_allclose(world.second_moments, SECOND, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(world.probabilities, [1 / 3, 2 / 3], rtol=1e-6)
        data = measurements.moments().init(jax.random.key(0), world)
        np.testing.assert_array_equal(data.training.counts, [10, 20])
    world = draw_world(worlds.from_moments(SECOND))
    assert world.counts is None
    drawn = drawn_once(world, 0, [1e8, 1e8])
    np.testing.assert_allclose(drawn, SECOND, atol=3e-3)


def altered(row: int, column: int, value: float, *, environment: int = 1) -> np.ndarray:
    second = SECOND.copy()
    second[environment, row, column] = second[environment, column, row] = value
    return second


@pytest.mark.parametrize(
    ("second", "counts", "words"),
    [
        (altered(0, 1, 50.0), None, "positive semidefinite.*in environment 1"),
        (altered(3, 4, 9.0, environment=0), None, "positive semidefinite.*in environment 0"),
        (altered(4, 4, 2.0), None, "1 at the end of its diagonal.*got 2 in environment 1"),
        (SECOND + np.triu(np.ones((5, 5)), 1), None, "second must be symmetric.*environment 0"),
        (SECOND[0], None, r"second must have shape \[E, q, q\]"),
        (SECOND[:0], None, "E >= 1"),
        (altered(0, 0, np.nan), None, "second must be a finite number"),
        (SECOND, [10], r"counts must have shape \[2\]"),
        (SECOND, [10, 0], "counts must be a finite number at least 1"),
        ((SECOND, SECOND), None, r"second must be \(xx, xy, yy, means\), got 2 arrays"),
        ((SECOND[:, :3, :3], SECOND, 1, 1), None, r"xy must have shape \[2, 3\]"),
    ],
)
def test_wrong_moments(second: Any, counts: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        worlds.from_moments(second, counts)
