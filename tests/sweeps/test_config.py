"""The configuration of a store is what JSON holds after a round trip; the rest is refused."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causal_sgd.sweeps import sweep
from causal_sgd.sweeps._provenance import plain_values
from causal_sgd.sweeps.store import Store, StoreError
from causal_sgd.types import Trace
from support.cases import few
from support.sweeps import trace_of


def cell(key: jax.Array) -> Trace:
    return trace_of(jax.random.uniform(key))


class Kind(enum.IntEnum):
    FIRST = 1


CONFIGS: list[dict[Any, Any]] = [
    {"shape": (2, (3, 4)), 10: "a", 9: {2: (), None: None, True: 2}, "kind": Kind.FIRST},
    {0.5: -0.0, "large": 2**70, "": "\u00e9\n\U0001f600", "rate": np.float64(0.1), "small": 5e-324},
    {},
]


@pytest.mark.parametrize("config", few(CONFIGS, CONFIGS[:1]))
def test_a_configuration_works_the_second_time_as_the_first(config: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs.zarr"
    sweep(cell, seeds=2, tile=2, store=path, config=config)
    assert sweep(cell, seeds=4, store=path, config=config).u.shape == (4, 2)
    assert Store(path).configuration.get("config") == json.loads(json.dumps(config))
    with pytest.raises(StoreError, match="config.other is nothing in the store and 1 now"):
        sweep(cell, seeds=4, store=path, config=config | {"other": 1})


def test_a_configuration_of_a_cell_works_the_second_time_too(tmp_path: Path) -> None:
    class Described:
        configuration: Any = {"shape": (2, 3), 5: "a", "x": 1.0}  # noqa: RUF012

        def __call__(self, key: jax.Array, *, x: Any) -> Trace:
            return trace_of(x + jax.random.uniform(key))

    described = Described()
    path = tmp_path / "runs.zarr"
    for seeds in (2, 4):
        sweep(described, axes={"x": [1.0]}, seeds=seeds, tile=2, store=path)
    assert Store(path).configuration.get("experiment") == {"shape": [2, 3], "5": "a"}
    described.configuration = ["text"]
    with pytest.raises(ValueError, match="configuration of the cell must be a mapping of names"):
        sweep(described, axes={"x": [1.0]}, store=tmp_path / "other.zarr")
    assert not (tmp_path / "other.zarr").exists()


CIRCULAR: dict[str, Any] = {}
CIRCULAR["self"] = CIRCULAR
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (["rate", 0.1], "config must be a mapping of names to plain values that JSON can hold"),
        ("text", "config must be a mapping"),
        ({"rate": np.float32(0.1)}, "config must hold plain values that JSON can hold"),
        ({"rates": np.zeros(2)}, "config must hold plain values"),
        ({"rates": [1.0, float("inf")]}, "config must hold plain values"),
        ({"rates": {1, 2}}, "config must hold plain values"),
        ({"text": b"bytes"}, "config must hold plain values"),
        ({"text": "\ud800"}, "config must hold plain values"),
        ({(1, 2): "a"}, "config must hold plain values"),
        ({1: "a", "1": "b"}, "two of its keys are '1' as text"),
        ({"inner": [{True: "a", "true": "b"}]}, "two of its keys are 'true' as text"),
        (CIRCULAR, "Circular reference"),
        ({"deep": DEEP}, "config must hold plain values"),
    ],
)
def test_what_json_cannot_hold_is_refused_before_anything_is_traced(
    config: Any, message: str, tmp_path: Path
) -> None:
    calls: list[None] = []

    def counted(key: jax.Array) -> Trace:
        calls.append(None)
        return cell(key)

    for store in (None, tmp_path / "runs.zarr"):
        with pytest.raises(ValueError, match=message):
            sweep(counted, store=store, config=config)
    assert not calls
    assert not list(tmp_path.iterdir())


KEYS = st.text() | st.integers() | st.booleans() | st.none()
LEAVES = KEYS | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner, max_size=3)
    ),
)


@pytest.mark.slow
@given(values=st.dictionaries(KEYS, VALUES, max_size=3))
def test_plain_values_stay_as_they_are(values: dict[Any, Any]) -> None:
    try:
        plain = plain_values("config", values)
    except ValueError as error:
        assert "as text" in str(error) or "surrogates" in str(error)  # noqa: PT017
    else:
        assert plain_values("config", plain) == plain == json.loads(json.dumps(values))
