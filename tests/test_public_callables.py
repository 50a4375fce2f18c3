"""Wrong input to any public function is never answered with an error of the implementation."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import causal_sgd as cs
from causal_sgd import sweeps
from support.valid import VALID

# They act on the process, the disk or a cluster.
ACTING = {"use_cpu_cores", "use_compilation_cache", "slurm", "sweep", "compare", "refine"}
FORBIDDEN = (AttributeError, KeyError, OverflowError, MemoryError, IndexError, RecursionError)

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
