"""Networks of flax and equinox, with the packages themselves."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import causal_sgd as cs
from causal_sgd.supervised import losses, measurements, metrics, models, worlds
from causal_sgd.supervised.models import _adapters
from causal_sgd.training import algorithms, optimizers, samplers

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(5)
SIDE = 3
PIXELS = np.random.default_rng(7).normal(size=(12, SIDE * SIDE))
CLASSES = (PIXELS[:, 0] > 0) + (PIXELS[:, 1] > 0).astype(float)
OWNERS = np.array([0, 1, 2] * 4)


def needs(package: str) -> Any:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(
        missing, reason=f"needs {package}: pip install 'causal_sgd[{package}]'"
    )


def linen_cnn(**options: Any) -> Any:
    from flax import linen

    class Network(linen.Module):
        kind: str = ""

        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.relu(linen.Conv(2, (2, 2))(x))
            if self.kind == "batch norm":
                x = linen.BatchNorm(use_running_average=False)(x)
            if self.kind == "dropout":
                x = linen.Dropout(0.5, deterministic=False)(x)
            return linen.Dense(3)(x.reshape(x.shape[0], -1))

    return Network(**options)


def nnx_cnn(kind: str = "") -> Callable[..., Any]:
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.first = nnx.Conv(1, 2, (2, 2), rngs=rngs)
            self.last = nnx.Linear(2 * SIDE * SIDE, 3, rngs=rngs)
            self.between = {
                "batch norm": lambda: nnx.BatchNorm(2, rngs=rngs),
                "dropout": lambda: nnx.Dropout(0.5, rngs=rngs),
            }.get(kind, lambda: jnp.tanh)()

        def __call__(self, x: Any) -> Any:
            x = self.between(nnx.relu(self.first(x)))
            return self.last(x.reshape(x.shape[0], -1))

    return Network


def eqx_cnn(kind: str = "") -> Callable[..., Any]:
    import equinox as eqx

    def make(key: jax.Array) -> Any:
        first, last = jax.random.split(key)
        between = {
            "batch norm": lambda: eqx.nn.BatchNorm(2, axis_name="batch", mode="batch"),
            "dropout": lambda: eqx.nn.Dropout(0.5),
        }.get(kind, lambda: eqx.nn.Lambda(lambda x: jnp.tanh(x)))()
        return eqx.nn.Sequential(
            [
                eqx.nn.Conv2d(1, 2, 2, padding=1, key=first),
                between,
                eqx.nn.Lambda(jnp.ravel),
                eqx.nn.Linear(2 * (SIDE + 1) ** 2, 3, key=last),
            ]
        )

    return make


def of_linen(kind: str = "") -> models.NetworkModel:
    return models.from_flax(linen_cnn(kind=kind), np.ones((SIDE, SIDE, 1)), outputs=3)


def of_nnx(kind: str = "") -> models.NetworkModel:
    return models.from_flax(nnx_cnn(kind), np.ones((SIDE, SIDE, 1)), outputs=3)


def of_equinox(kind: str = "") -> models.NetworkModel:
    return models.from_equinox(eqx_cnn(kind), example=np.ones((1, SIDE, SIDE)), outputs=3)


def linen_directly(key: jax.Array) -> Any:
    module, images = linen_cnn(), jnp.asarray(PIXELS, float).reshape(-1, SIDE, SIDE, 1)
    return module.apply(module.init(key, images[:1]), images)


def nnx_directly(key: jax.Array) -> Any:
    from flax import nnx

    module = nnx_cnn()(nnx.Rngs(key))
    return module(jnp.asarray(PIXELS, float).reshape(-1, SIDE, SIDE, 1))


def equinox_directly(key: jax.Array) -> Any:
    module, images = eqx_cnn()(key), jnp.asarray(PIXELS, float).reshape(-1, 1, SIDE, SIDE)
    return jax.vmap(module)(images)


ADAPTERS = [
    pytest.param(of_linen, linen_directly, marks=needs("flax"), id="linen"),
    pytest.param(of_nnx, nnx_directly, marks=needs("flax"), id="nnx"),
    pytest.param(of_equinox, equinox_directly, marks=needs("equinox"), id="equinox"),
]


@pytest.mark.parametrize(("adapter", "directly"), ADAPTERS)
def test_a_network_predicts_as_the_package_does(adapter: Any, directly: Any) -> None:
    model = adapter()
    params = jax.jit(model.init)(KEY)
    found = jax.jit(model.predictions)(params, jnp.asarray(PIXELS, float))
    assert found.shape == (12, 3)
    np.testing.assert_allclose(found, jax.jit(directly)(KEY), rtol=1e-4, atol=1e-5)
    other = jax.jit(model.init)(jax.random.key(6))
    assert jax.tree.structure(other) == jax.tree.structure(params)
    assert not all(map(np.array_equal, jax.tree.leaves(other), jax.tree.leaves(params)))


@pytest.mark.slow  # each compiles convolutions of several runs
@pytest.mark.filterwarnings("ignore:environments with fewer training rows")
@pytest.mark.parametrize(("adapter", "directly"), ADAPTERS)
def test_a_network_of_a_package_is_trained_in_a_sweep(adapter: Any, directly: Any) -> None:
    del directly
    model = models.input_gates(adapter(), groups=["left", "right", None] * SIDE)

    def cell(key: jax.Array, *, learning_rate: Any) -> Any:
        method = algorithms.sgd(
            world=worlds.from_arrays(PIXELS, CLASSES, OWNERS),
            sampler=samplers.hetero(batch_size=4),
            measurement=measurements.examples(loss=losses.softmax),
            model=model,
            optimizer=optimizers.gates(
                optax.adam(learning_rate), learning_rate=learning_rate, cap=0.5
            ),
        )
        return cs.run(key, algorithm=method, metrics=[metrics.training_risk], num_steps=100)

    runs = cs.sweep(cell, axes={"learning_rate": [0.01]}, seeds=2, progress=False)
    start, end = (runs.training_risk.isel(step=step).values for step in (0, -1))
    assert start[0, 0] != start[0, 1]
    assert (end < 0.8 * start).all()


@pytest.mark.parametrize(("adapter", "directly"), ADAPTERS)
@pytest.mark.parametrize("kind", ["batch norm", "dropout"])
def test_a_state_and_random_numbers_are_refused(adapter: Any, directly: Any, kind: str) -> None:
    del directly
    with pytest.raises(ValueError, match="must .*use group or layer norm, and no dropout"):
        adapter(kind)


@needs("flax")
def test_what_is_no_module_of_flax_is_refused() -> None:
    from flax import nnx

    cases: list[tuple[Any, Any, str]] = [
        (
            type(linen_cnn()),
            np.ones((3, 3, 1)),
            "module must be an instance of a linen module, got",
        ),
        (
            nnx_cnn()(nnx.Rngs(0)),
            np.ones((3, 3, 1)),
            "module must be a function of rngs that makes",
        ),
        (lambda rngs: 1, np.ones(2), "module must be a function rngs -> nnx module, got one that"),
        ("mlp", np.ones(2), "module must be a linen module, or a function rngs -> nnx module, got"),
        (linen_cnn(), np.ones(()), "example must be one input, an array of at least one axis"),
        (linen_cnn(), "x", "example must be a finite number"),
        (nnx_cnn(), np.ones((5, 5, 1)), r"module must be a network for inputs \[5, 5, 1\]"),
    ]
    for module, example, message in cases:
        with pytest.raises(ValueError, match=message):
            models.from_flax(module, example, outputs=3)
    with pytest.raises(ValueError, match="apply must return for one input one number.*outputs=3"):
        models.from_flax(linen_cnn(), np.ones((3, 3, 1)))


@needs("equinox")
def test_what_is_no_module_of_equinox_is_refused() -> None:
    import equinox as eqx

    class Counting(eqx.Module):
        weight: jax.Array
        count: jax.Array

        def __call__(self, x: jax.Array) -> jax.Array:
            return jnp.sum(x * self.weight) * self.count

    counting = Counting(jnp.ones(2), jnp.array(3))
    cases: list[tuple[Any, str]] = [
        (lambda key: 1, "make must return an equinox module that can be called, got int"),
        (lambda key: (eqx.nn.Identity(), None), "make must return a module alone, got a tuple"),
        (lambda key: counting, "make must return a module whose arrays are of floating-point"),
        (lambda key: key.nothing, "make must be a function key -> equinox module, got one that"),
        (1, "make must be a function key -> equinox module, got 1"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            models.from_equinox(make)


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("flax", lambda: models.from_flax(None, np.ones(2))),
        ("equinox", lambda: models.from_equinox(lambda key: None)),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, package: str, call: Callable[[], object]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package] or [package]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ImportError, match=rf"needs {package}: pip install 'causal_sgd\[{package}\]'"
    ):
        call()


def test_the_packages_are_imported_on_use_only() -> None:
    tree = ast.parse(inspect.getsource(_adapters))
    names = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not {name.split(".")[0] for name in names} & {"flax", "equinox"}
