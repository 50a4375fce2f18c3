"""Numbers that the types of programs cannot hold are refused by name, wherever one enters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest

from causal_sgd import checks
from causal_sgd.experiment import Experiment
from causal_sgd.sensing import measurements, models, worlds
from causal_sgd.sensing.measurements import designs
from causal_sgd.training import samplers
from support.contracts import DIM, RANKS, ROOMS

# A weight of 1e-50 may become zero, and learning_rate is optax's.
FREE = ("probabilities", "learning_rate")
NUMBERS = [
    (room, member, name)
    for room, (_, rows) in ROOMS.items()
    for member, row in rows.items()
    for name in row.numbers
    if name not in FREE
]
SIZES = [
    (room, member, name)
    for room, (_, rows) in ROOMS.items()
    for member, row in rows.items()
    for name, value in row.static.items()
    if isinstance(value, int)
]


PARTS: dict[str, Any] = {
    "world": worlds.two_point(**RANKS, spread=1.0),
    "sampler": samplers.hetero(batch_size=10),
    "measurement": measurements.population(),
    "model": models.factored(dim=DIM),
    "optimizer": optax.sgd(0.1),
}
"""Of an algorithm."""
WRAPPERS = ("gates", "restarted", "sam")  # of another optimizer


def arguments(room: str, member: str, **changes: Any) -> dict[str, Any]:
    row = ROOMS[room][1][member]
    parts = PARTS if room == "algorithms" else {}
    parts = {"optimizer": PARTS["optimizer"]} if member in WRAPPERS else parts
    given = {**row.static, **row.numbers, **parts, **changes}
    if member == "gates":  # which makes SGD of its learning rate
        return given
    if member == "langevin":  # its step takes the rate, too
        return {"learning_rate": 0.1} | given
    return {name: value for name, value in given.items() if name != "learning_rate"}


def refused(call: Callable[[], object], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be "):
        call()


@pytest.mark.parametrize(("room", "member", "name"), NUMBERS)
def test_every_factory_refuses_numbers_that_would_become_others(
    room: str, member: str, name: str
) -> None:
    factory = getattr(ROOMS[room][0], member)
    shape = np.shape(ROOMS[room][1][member].numbers[name])
    for value in (1e-50, 1e-39, 1e39, 2**31, 10**30):
        wrong = value if shape == () else np.full(shape, value)
        refused(lambda wrong=wrong: factory(**arguments(room, member, **{name: wrong})), name)


@pytest.mark.parametrize(("room", "member", "name"), SIZES)
def test_every_factory_refuses_sizes_beyond_32_bits(room: str, member: str, name: str) -> None:
    factory = getattr(ROOMS[room][0], member)
    for size in (2**31, 10**30):
        refused(lambda size=size: factory(**arguments(room, member, **{name: size})), name)


def test_numbers_of_numpy_have_double_precision() -> None:
    assert checks.number("level", 1e-50, double=True) == 1e-50
    refused(lambda: checks.number("level", 1e-50), "level")


def test_a_matrix_may_have_tiny_entries_but_not_vanish() -> None:
    invariant, spurious = np.diag([1.0, 1e-45]), np.diag([0.0, 1.0])[None]
    worlds.from_arrays(invariant=invariant, spurious=spurious)
    refused(lambda: worlds.from_arrays(invariant=1e-50 * invariant, spurious=spurious), "invariant")
    design = np.full((1, 2, 2, 2), 3 * 10**9)
    found = designs.coordinates(design, symmetric=False)
    np.testing.assert_array_equal(found, np.full((1, 2, 4), 3e9))


def test_a_transform_is_a_function() -> None:
    wrong: Any = 1e9
    with pytest.raises(ValueError, match="^transform must be None or a function"):
        worlds.from_quantile(
            abs, **RANKS, num_environments=2, mean=1.0, spread=1.0, transform=wrong
        )


def test_masked_arrays_are_refused() -> None:
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    refused_masked = {
        "eigenvalues": lambda: worlds.discrete(**RANKS, eigenvalues=masked),
        "invariant_spectrum": lambda: worlds.two_point(
            **RANKS, spread=1.0, invariant_spectrum=masked
        ),
    }
    for name, call in refused_masked.items():
        with pytest.raises(ValueError, match=f"^{name} must have no masked entries"):
            call()


def test_experiments_and_measurements_refuse_them_too() -> None:
    refused(lambda: Experiment(learning_rate=1e-50).cell()(jax.random.key(0)), "learning_rate")
    refused(lambda: measurements.gaussian_law(noise=1e-40), "noise")
