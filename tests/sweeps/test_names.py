"""Names of metrics, parameters and methods are checked before anything is compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd import run
from causal_sgd.sensing import metrics
from causal_sgd.sweeps import compare, sweep, zipped
from causal_sgd.types import Snapshot, Trace
from support.sweeps import COMPILATIONS, build


def records(shape: tuple[int, ...] = ()) -> Callable[..., Any]:
    """Name -> a cell that records a metric of that name, and takes any parameter."""

    def named(*names: Any) -> Callable[..., Trace]:
        def cell(key: jax.Array, **numbers: Any) -> Trace:
            total = sum(numbers.values()) + jnp.zeros((1, *shape))
            return Trace(jnp.zeros(1, int), dict.fromkeys(names, total), jnp.asarray(-1))

        return cell

    return named


def zipped_of(*names: str) -> Any:
    return zipped(**{name: [1.0, 2.0] for name in names})


NUMBER, VECTOR = records(), records((3,))
RESULTS = ("seed", "step", "done", "diverged_at", "status")
WRONG: list[tuple[Any, dict[Any, Any], str]] = [
    *((NUMBER(name), {}, f"metrics must not be called '{name}': the results") for name in RESULTS),
    *((NUMBER("u"), {name: [1.0]}, f"axes must not be called '{name}'") for name in RESULTS),
    *((NUMBER("u"), {"a": zipped_of("b", name)}, "axes must not be called") for name in RESULTS),
    (NUMBER("u"), {"seed": zipped_of("a", "b")}, "axes must not be called 'seed'"),
    (NUMBER("a"), {"a": [1.0]}, "metrics must not be called 'a': it is a parameter or an axis"),
    (NUMBER("p"), {"p": zipped_of("a", "b")}, "metrics must not be called 'p': it is a param"),
    (NUMBER("b"), {"p": zipped_of("a", "b")}, "metrics must not be called 'b': it is a param"),
    (VECTOR("u", "u_0"), {}, "metrics must not be called 'u_0': it is a dimension of 'u'"),
    (VECTOR("u"), {"u_0": [1.0]}, "metrics must not be called 'u', because the axis 'u_0' has"),
    (VECTOR("u"), {"p": zipped_of("a", "u_0")}, "metrics must not be called 'u', because"),
    (
        NUMBER("u"),
        {"a": zipped_of("b", "c"), "p": zipped_of("a", "d")},
        "axes must not be called 'a', which is a parameter along 'p'",
    ),
    (NUMBER("u/v"), {}, "metrics must have names, of text without /, got 'u/v'"),
    (NUMBER(""), {}, "metrics must have names, of text without /, got ''"),
    (NUMBER(3), {}, "metrics must have names, of text without /, got 3"),
    (NUMBER("u"), {"a/b": [1.0]}, "axes must have names, of text without /, got 'a/b'"),
    (NUMBER("u"), {3: [1.0]}, "axes must have names, of text without /, got 3"),
]


@pytest.mark.parametrize(("cell", "axes", "message"), WRONG)
def test_a_name_that_is_taken_is_refused(
    cell: Any, axes: Any, message: str, tmp_path: Path
) -> None:
    COMPILATIONS.clear()
    for store in (None, tmp_path / "runs.zarr"):
        with pytest.raises(ValueError, match=message):
            sweep(cell, axes=axes, store=store)
    with pytest.raises(ValueError, match=message):
        compare({"one": cell}, axes=axes, store=tmp_path / "compared")
    assert not COMPILATIONS
    assert not list(tmp_path.rglob("*.zarr"))


@pytest.mark.parametrize(
    "dim", [*RESULTS, "a", "b", "p", "u", "v", "u_0", pytest.param("", id="empty"), "x/y"]
)
def test_the_dimension_of_methods_has_a_name_of_its_own(dim: str, tmp_path: Path) -> None:
    COMPILATIONS.clear()
    cells = {"one": VECTOR("u"), "other": VECTOR("v")}
    for store in (None, tmp_path / "compared"):
        with pytest.raises(ValueError, match="dim must "):
            compare(cells, dim=dim, axes={"p": zipped_of("a", "b")}, store=store)
    assert not COMPILATIONS


@pytest.mark.parametrize("name", ["../one", "/one", "a/b", "a\\b", "..", "", ".one"])
def test_a_name_of_a_cell_stays_in_the_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "compared"
    with pytest.raises(ValueError, match="cells with a store must have names for files"):
        compare({"one": NUMBER("u"), name: NUMBER("u")}, store=folder)
    assert not list(tmp_path.iterdir())
    assert list(compare({name: NUMBER("u")})["variant"].values) == [name]


def test_cells_have_names_of_text() -> None:
    wrong: Any = {1: NUMBER("u")}
    with pytest.raises(ValueError, match="cells must be a mapping of names to cells"):
        compare(wrong)


def test_cells_with_other_metrics_are_compared_in_stores(tmp_path: Path) -> None:
    cells = {"one": NUMBER("u"), "two": NUMBER("v")}
    for _ in range(2):
        both = compare(cells, axes={"a": [1.0, 2.0]}, store=tmp_path / "compared", tile=2)
        np.testing.assert_array_equal(both.u[:, :, 0, 0], [[1, 2], [np.nan] * 2])
        np.testing.assert_array_equal(both.v[:, :, 0, 0], [[np.nan] * 2, [1, 2]])


# Metrics of a run


class Norm:
    def __init__(self, order: int = 2) -> None:
        self.order = order

    def __call__(self, snapshot: Snapshot) -> jax.Array:
        return jnp.linalg.norm(snapshot.estimate) ** self.order

    def of(self, snapshot: Snapshot) -> jax.Array:
        return self(snapshot)


def scaled(snapshot: Snapshot, factor: float) -> jax.Array:
    return factor * jnp.linalg.norm(snapshot.estimate)


def shapes(watched: Any) -> Trace:
    return jax.eval_shape(
        lambda key: run(key, algorithm=build(), metrics=watched, num_steps=2), jax.random.key(0)
    )


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (functools.partial(scaled, factor=2.0), "scaled"),
        (functools.partial(functools.partial(scaled, factor=2.0), factor=3.0), "scaled"),
        (functools.partial(Norm()), "Norm"),
        (Norm(3), "Norm"),
        (Norm().of, "of"),
        (jax.jit(metrics.batch_loss), "batch_loss"),
    ],
)
def test_a_metric_has_the_same_name_in_every_process(metric: Any, name: str) -> None:
    assert list(shapes([metric]).metrics) == [name]
    with pytest.raises(ValueError, match=f"different names, got \\['{name}', '{name}'\\]; pass a"):
        shapes([metric, metric])


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "a NoneType"),
        ({"a": 1.0}, "a dict"),
        ("text", "a str"),
        ([1.0, [2.0, 3.0]], "a list"),
        (object(), "a object"),
        (jax.random.key(0), "key<fry>"),
        ([None], "a list"),
        (np.array(["a"]), "a ndarray"),
        (2**70, "a int"),
    ],
)
def test_a_metric_that_returns_no_numbers_is_named(value: Any, kind: str) -> None:
    watched = {"loss": metrics.batch_loss, "mine": lambda snapshot: value}
    message = f"metrics must return numbers, as an array, got {kind} from 'mine'"
    with pytest.raises(ValueError, match=message):
        shapes(watched)


def test_a_metric_that_fails_is_named_with_the_shapes_that_it_saw() -> None:
    def wrong(snapshot: Snapshot) -> Any:
        return snapshot.estimate @ snapshot.world.invariant_spectrum

    with pytest.raises(
        ValueError, match="metric 'mine' failed with TypeError: dot_general"
    ) as error:
        shapes({"loss": metrics.batch_loss, "mine": wrong})
    assert isinstance(error.value.__cause__, TypeError)
    message = str(error.value)
    assert "It saw params [4, 2], estimate [4, 4], world.invariant_basis [4, 1], world" in message
    assert "\n" not in message


def test_what_the_package_refuses_in_a_metric_is_said_in_its_own_words() -> None:
    with pytest.raises(ValueError, match="^imbalance needs a model with several factors"):
        shapes([metrics.imbalance])


@pytest.mark.parametrize("name", ["", 3, None])
def test_metrics_have_names_of_text(name: Any) -> None:
    with pytest.raises(ValueError, match="metrics must have names, got "):
        shapes({name: metrics.batch_loss})
