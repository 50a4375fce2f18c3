"""Wrong input to any public function is never answered with an error of the implementation."""

from __future__ import annotations

import warnings

import jax
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from support.callables import CALLS
from support.cases import few
from support.valid import Later

pytestmark = pytest.mark.usefixtures("quickly_compiled")

FORBIDDEN = (
    AttributeError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
)
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
# They compile programs, read a store or draw figures; the slow tests walk over them.
LONG = {
    name
    for name in CALLS
    if "path" in CALLS[name].parameters
    or any(isinstance(value, Later) for value in CALLS[name].arguments.values())
    or name.startswith(("Store", "figures.", "Runs.", "Snapshot."))
    or name.rpartition(".")[2]
    in (
        *("cell", "check_metric", "compare", "refine", "run", "sweep"),
        *("critical_mass", "lyapunov_exponents", "lyapunov_federated", "scaffold_factors"),
        "top_exponent",
    )
}
PLACES = [(name, parameter) for name, call in CALLS.items() for parameter in call.parameters]
SHORT = [place for place in PLACES if place[0] not in LONG]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(max_size=3)
    | st.binary(max_size=2)
)
VALUES = st.recursive(
    SCALARS,
    lambda each: (
        st.lists(each, max_size=3)
        | st.tuples(each, each)
        | st.dictionaries(st.text(max_size=2), each, max_size=2)
        | st.lists(each, max_size=3).map(lambda values: np.array(values, object))
    ),
    max_leaves=4,
)


def of_a_call(error: BaseException) -> bool:
    """Whether Python refuses arguments, or a function that was given is called and does so."""
    text = str(error)
    binding = ("unexpected keyword argument", "missing", "type() takes", "takes no arguments")
    return isinstance(error, TypeError) and any(words in text for words in binding)


def wrong(name: str, parameter: str, junk: object) -> None:
    """Call a function with one wrong argument, and fail if the error is one of the forbidden."""
    try:
        with warnings.catch_warnings():
            # Estimators may warn of what is wrong. What the package itself does wrong is an error.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", DeprecationWarning)
            CALLS[name]({parameter: junk})
    except FORBIDDEN as error:
        if not of_a_call(error):
            pytest.fail(f"{name}({parameter}={junk!r}): {type(error).__name__}: {error}")
    except DeprecationWarning as error:
        pytest.fail(f"{name}({parameter}={junk!r}): {error}")
    except Exception:
        pass  # a ValueError as a rule


def test_the_walk_finds_the_package() -> None:
    assert len(CALLS) > 180
    rooms = ("theory", "analysis", "worlds", "measurements", "models", "samplers", "figures")
    for room in (*rooms, "sweeps", "store"):
        assert any(f"{room}." in name for name in CALLS), room
    for name in ("Experiment.replace", "Store.write", "Runs.plot", "Snapshot.once", "cell"):
        assert name in CALLS


@pytest.mark.parametrize("name", few(CALLS, {}, {name for name in CALLS if name not in LONG}))
def test_the_arguments_of_the_walk_are_valid(name: str) -> None:
    CALLS[name]({})


@pytest.mark.slow
def test_wrong_input_is_not_answered_by_the_implementation() -> None:
    for index, place in enumerate(SHORT):
        wrong(*place, JUNK[index % len(JUNK)])


@pytest.mark.slow
@settings(max_examples=100)
@given(st.sampled_from(PLACES), VALUES)
def test_generated_input_is_not_answered_by_the_implementation(
    place: tuple[str, str], value: object
) -> None:
    wrong(*place, value)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", CALLS)
def test_no_wrong_input_is_answered_by_the_implementation(name: str) -> None:
    for parameter in CALLS[name].parameters:
        for junk in JUNK:
            wrong(name, parameter, junk)
