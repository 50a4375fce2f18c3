"""Wrong input to any public function is never answered with an error of the implementation."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import causal_sgd as cs
from causal_sgd import sweeps, theory
from causal_sgd.sensing import measurements, models, worlds

# They act on the process, the disk or a cluster.
ACTING = {"use_cpu_cores", "use_compilation_cache", "slurm", "sweep", "compare", "refine"}
FORBIDDEN = (AttributeError, KeyError, OverflowError, MemoryError, IndexError, RecursionError)

WORLD = worlds.two_point(dim=6, invariant_rank=2, spurious_rank=1)
RESULTS = xr.Dataset(
    {
        "spurious_signal": (("spread", "seed", "step"), np.ones((3, 4, 4))),
        "diverged_at": (("spread", "seed"), np.full((3, 4), -1)),
    },
    {"spread": [1.0, 2.0, 3.0], "seed": np.arange(4), "step": [0, 1, 2, 3]},
)
# Valid values of parameters by name; others keep their defaults.
VALID: dict[str, Any] = {
    "batch_ratio": 5.0,
    "batch_size": 10,
    "cores": np.eye(2),
    "dataset": RESULTS,
    "depth": 3.0,
    "dim": 6,
    "directions": 2,
    "down": 3.0,
    "draw": lambda key: jnp.eye(2),
    "eigenvalue": 1.0,
    "eigenvalues": np.array([3.0, -2.0]),
    "environments_per_batch": 2,
    "exponent": lambda spreads: 1 - spreads,
    "factor": np.ones((6, 4)),
    "factors": np.array([1.2, 0.5]),
    "family": "two_point",
    "high": 2.0,
    "highest": 5.0,
    "init_scale": 0.01,
    "invariant_rank": 2,
    "key": jax.random.key(0),
    "learning_rate": 0.1,
    "lengths": [10, 20, 30],
    "length": 2,
    "level": 0.5,
    "local_steps": 2,
    "low": 0.5,
    "lowest": -3.0,
    "matrices": np.eye(2)[None],
    "mean": 1.0,
    "measurement": measurements.population(),
    "metric": "spurious_signal",
    "model": models.factored(dim=6),
    "momentum": 0.5,
    "num_chains": 2,
    "num_environments": 2,
    "num_examples": 10,
    "num_steps": 2,
    "optimizer": optax.sgd(0.1),
    "outlier": -5.0,
    "points": 3,
    "probability": 0.5,
    "rank": 3,
    "rounds": 1,
    "sampler": cs.samplers.hetero(batch_size=10),
    "share": 0.5,
    "signal": np.ones(5),
    "signals": np.ones((3, 5)),
    "spectrum": np.ones(2),
    "spread": 4.0,
    "spurious_rank": 1,
    "state": theory.OrderParameters(np.ones((5, 2)), np.eye(2)),
    "up": 5.0,
    "values": np.ones(5),
    "world": WORLD,
}
JUNK = [
    None,
    "x",
    b"x",
    {},
    [],
    (1, "a"),
    {1},
    object(),
    type,
    lambda *_: 1,
    10**30,
    -(2**40),
    10**400,
    [10**30],
    float("nan"),
    1j,
    np.array([]),
    np.array(["a"]),
    np.array([None]),
    np.array(10**30, object),
    [[1], [1, 2]],
    np.datetime64("2020"),
    np.ma.masked_array([1.0], [True]),
    jax.random.key(0),
    xr.Dataset(),
]


def public(module: types.ModuleType) -> Iterator[tuple[str, Callable[..., object]]]:
    """All public functions of a module and of its public modules, with their names."""
    for name in module.__all__:
        member = getattr(module, name)
        if isinstance(member, types.ModuleType) and member.__name__.startswith("causal_sgd"):
            if hasattr(member, "__all__") and name != "studies":
                yield from public(member)
        elif inspect.isfunction(member) and name not in ACTING:
            yield f"{module.__name__}.{name}", member


FUNCTIONS = dict(sorted({**dict(public(cs)), "zipped": sweeps.zipped}.items()))
FUNCTIONS["Experiment"] = cs.Experiment
PLACES = [
    (name, parameter)
    for name, function in FUNCTIONS.items()
    for parameter in inspect.signature(function).parameters
]


def wrong(name: str, parameter: str, junk: object) -> None:
    """Call a function with one wrong argument, and fail if the error is one of the forbidden."""
    function = FUNCTIONS[name]
    arguments: dict[str, object] = {}
    positional: list[object] = []
    for other, kind in inspect.signature(function).parameters.items():
        value = junk if other == parameter else VALID.get(other, kind.default)
        if kind.kind is kind.VAR_POSITIONAL:
            positional += [junk] if other == parameter else []
        elif kind.kind is kind.VAR_KEYWORD:
            required = ("dim", "invariant_rank", "spurious_rank", "num_environments", "batch_size")
            arguments |= {"nonsense": junk} if other == parameter else {}
            if name.startswith(("causal_sgd.theory", "causal_sgd.sensing.worlds")):
                few = 4 if "worlds" in name else None
                skip = "num_environments" if few is None else "batch_size"
                arguments |= {key: VALID[key] for key in required if key != skip}
        elif value is not inspect.Parameter.empty:
            if kind.kind is kind.POSITIONAL_ONLY:
                positional.append(value)
            else:
                arguments[other] = value
    try:
        function(*positional, **arguments)
    except FORBIDDEN as error:
        pytest.fail(f"{name}({parameter}={junk!r}): {type(error).__name__}: {error}")
    except Exception:
        pass  # ValueError as a rule; TypeError for a missing or unexpected argument


def test_the_walk_finds_the_package() -> None:
    assert len(FUNCTIONS) > 120
    for room in ("theory", "analysis", "worlds", "measurements", "models", "samplers", "figures"):
        assert any(f".{room}." in name for name in FUNCTIONS), room


@settings(max_examples=60)
@given(st.sampled_from(PLACES), st.sampled_from(JUNK))
def test_wrong_input_is_not_answered_by_the_implementation(
    place: tuple[str, str], junk: object
) -> None:
    wrong(*place, junk)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_wrong_input_is_answered_by_the_implementation(name: str) -> None:
    for place in PLACES:
        if place[0] == name:
            for junk in JUNK:
                wrong(*place, junk)
