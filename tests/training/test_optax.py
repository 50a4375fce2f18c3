"""Every public transformation of optax trains a run as a plain loop does, or is refused by name.

The loop knows nothing of this package: losses and gradients by hand, optax as its documentation
says. A transformation that a new version of optax adds fails `test_every_transformation_has_a_row`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from causal_sgd.sensing import measurements, models, worlds
from causal_sgd.training import algorithms, samplers
from causal_sgd.training.algorithms import stream
from causal_sgd.types import Array, Batch
from support.cases import few
from support.contracts import make

pytestmark = pytest.mark.usefixtures("quickly_compiled")
STEPS = 6
RATE = 0.05
SIGNALS = np.array([[1.0, 3.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0]])  # diagonals, [E, d]


def then_sgd(transformation: Any) -> Any:
    """A transformation of gradients as an optimizer."""
    return optax.chain(transformation, optax.sgd(RATE))


def alternately(step: Any, **_: Any) -> Any:
    return step % 2 == 0


def norm(updates: Any) -> Array:
    """The norm under a name that no version of optax gave up."""
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(updates)))


def labels(params: Any) -> str:
    del params
    return "one"


ROOM = {
    prefix + name: member
    for prefix, module in (("", optax), ("contrib.", optax.contrib))
    for name, member in vars(module).items()
    if callable(member) and not name.startswith("_")
}
# Each row makes an optimizer; rows are named as optax names them, those of `contrib` by `contrib.`.
ROWS: dict[str, Callable[[], Any]] = {
    name: lambda name=name: ROOM[name](RATE)
    for name in (
        "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw",
        "adan", "amsgrad", "fromage", "lamb", "lars", "lbfgs", "lion", "nadam", "nadamw",
        "novograd", "optimistic_adam", "optimistic_adam_v2", "optimistic_gradient_descent",
        "polyak_sgd", "radam", "rmsprop", "rprop", "sgd", "sign_sgd", "signum", "sm3", "yogi",
        "contrib.acprop", "contrib.ademamix", "contrib.adopt", "contrib.dadapt_adamw",
        "contrib.galore", "contrib.madgrad", "contrib.momo", "contrib.momo_adam", "contrib.muon",
        "contrib.schedule_free_adamw", "contrib.schedule_free_sgd", "contrib.simplified_ademamix",
        "contrib.sophia",
    )
}  # fmt: skip
ROWS |= {
    name: lambda name=name: then_sgd(ROOM[name]())
    for name in (
        "centralize", "identity", "normalize_by_update_norm", "scale_by_adadelta", "scale_by_adam",
        "scale_by_adamax", "scale_by_adan", "scale_by_amsgrad", "scale_by_belief",
        "scale_by_distance_over_gradients", "scale_by_factored_rms", "scale_by_lion",
        "scale_by_novograd", "scale_by_optimistic_gradient", "scale_by_param_block_norm",
        "scale_by_param_block_rms", "scale_by_polyak", "scale_by_radam", "scale_by_rms",
        "scale_by_rss", "scale_by_sign", "scale_by_sm3", "scale_by_stddev", "scale_by_trust_ratio",
        "scale_by_yogi", "zero_nans", "contrib.normalize", "contrib.reduce_on_plateau",
        "contrib.scale_by_acprop", "contrib.scale_by_ademamix", "contrib.scale_by_adopt",
        "contrib.scale_by_galore", "contrib.scale_by_muon", "contrib.scale_by_simplified_ademamix",
    )
}  # fmt: skip
ROWS |= {
    "adaptive_grad_clip": lambda: then_sgd(optax.adaptive_grad_clip(0.1)),
    "add_decayed_weights": lambda: then_sgd(optax.add_decayed_weights(0.1)),
    "add_noise": lambda: then_sgd(optax.add_noise(0.01, 0.5, key=3)),
    "apply_every": lambda: optax.chain(optax.sgd(RATE), optax.apply_every(2)),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.adam(RATE), 3),
    "chain": lambda: optax.chain(optax.clip(0.3), optax.adam(RATE)),
    "clip": lambda: then_sgd(optax.clip(0.3)),
    "clip_by_block_rms": lambda: then_sgd(optax.clip_by_block_rms(0.1)),
    "clip_by_global_norm": lambda: then_sgd(optax.clip_by_global_norm(0.3)),
    "conditionally_mask": lambda: optax.conditionally_mask(optax.sgd(RATE), alternately),
    "conditionally_transform": lambda: optax.conditionally_transform(optax.sgd(RATE), alternately),
    "ema": lambda: then_sgd(optax.ema(0.9)),
    "flatten": lambda: optax.flatten(optax.adam(RATE)),
    "freeze": lambda: optax.chain(optax.sgd(RATE), optax.freeze(False)),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adam)(
        optax.linear_schedule(RATE, 0.0, STEPS)
    ),
    "inject_stateful_hyperparams": lambda: optax.inject_stateful_hyperparams(optax.adam)(RATE),
    "keep_params_nonnegative": lambda: optax.chain(
        optax.sgd(RATE), optax.keep_params_nonnegative()
    ),
    "masked": lambda: optax.masked(optax.adam(RATE), True),
    "multi_transform": lambda: optax.partition({"one": optax.adam(RATE)}, labels),
    "named_chain": lambda: optax.named_chain(("clip", optax.clip(0.3)), ("sgd", optax.sgd(RATE))),
    "noisy_sgd": lambda: optax.noisy_sgd(RATE, eta=0.01, key=3),
    "partition": lambda: optax.partition({"one": optax.adam(RATE)}, labels),
    "scale": lambda: optax.scale(-RATE),
    "scale_by_backtracking_linesearch": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(8, store_grad=True)
    ),
    "scale_by_lbfgs": lambda: then_sgd(optax.scale_by_lbfgs()),
    "scale_by_learning_rate": lambda: optax.scale_by_learning_rate(RATE),
    "scale_by_rprop": lambda: optax.chain(optax.scale_by_rprop(RATE), optax.scale(-1.0)),
    "scale_by_schedule": lambda: optax.scale_by_schedule(optax.linear_schedule(-RATE, 0.0, STEPS)),
    "scale_by_zoom_linesearch": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_zoom_linesearch(8)
    ),
    "selective_transform": lambda: optax.selective_transform(optax.adam(RATE), freeze_mask=False),
    "set_to_zero": lambda: optax.set_to_zero(),
    "snapshot": lambda: optax.chain(optax.sgd(RATE), optax.snapshot("norm", norm)),
    "stateless": lambda: optax.stateless(lambda updates, params: optax.tree.scale(-RATE, updates)),
    "stateless_with_tree_map": lambda: optax.stateless_with_tree_map(
        lambda update, param: -RATE * update
    ),
    "trace": lambda: then_sgd(optax.trace(0.9)),
    "with_extra_args_support": lambda: optax.with_extra_args_support(optax.adam(RATE)),
    "contrib.cocob": lambda: optax.contrib.cocob(),
    "contrib.dog": lambda: optax.contrib.dog(),
    "contrib.dowg": lambda: optax.contrib.dowg(),
    "contrib.hutchinson_estimator_diag_hessian": lambda: then_sgd(
        optax.contrib.hutchinson_estimator_diag_hessian()
    ),
    "contrib.mechanize": lambda: optax.contrib.mechanize(optax.sgd(1.0)),
    "contrib.prodigy": lambda: optax.contrib.prodigy(),
    "contrib.sam": lambda: optax.contrib.sam(
        optax.sgd(RATE), optax.chain(optax.contrib.normalize(), optax.sgd(0.1)), opaque_mode=True
    ),
    "contrib.scale_by_cocob": lambda: optax.contrib.scale_by_cocob(),
    "contrib.scale_by_madgrad": lambda: optax.contrib.scale_by_madgrad(RATE),
    "contrib.schedule_free": lambda: optax.contrib.schedule_free(optax.sgd(RATE), RATE),
    "contrib.split_real_and_imaginary": lambda: optax.contrib.split_real_and_imaginary(
        optax.adam(RATE)
    ),
}
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    # pairs of parameters
    "lookahead": (
        lambda: optax.lookahead(optax.sgd(RATE), 5, 0.5),
        "^optimizer must be an optax transformation .* no attribute fast",
    ),
    # a state that grows in the first step
    "monitor": (
        lambda: optax.chain(optax.sgd(RATE), optax.monitor({"norm": norm})),
        "^optimizer must keep the structure of its state",
    ),
    # updates that are the measurement, a number
    "measure_with_ema": (
        lambda: optax.chain(optax.sgd(RATE), optax.measure_with_ema(norm, 0.9)),
        "optimizer returns updates of other shapes",
    ),
    # one gradient of every example
    "contrib.differentially_private_aggregate": (
        lambda: optax.contrib.differentially_private_aggregate(1.0, 0.1, 3),
        "optimizer returns updates of other shapes",
    ),
    "contrib.dpsgd": (
        lambda: optax.contrib.dpsgd(RATE, 1.0, 0.1, 3),
        "optimizer returns updates of other shapes",
    ),
}
# Functions without annotated results that are no transformations.
OTHERS = {
    "bias_correction", "matrix_inverse_pth_root", "sigmoid_binary_cross_entropy",
    "update_infinity_moment", "update_moment", "update_moment_per_elem_norm",
    "contrib.schedule_free_eval_params",
}  # fmt: skip
# What the loop hands to those that ask for more than a gradient.
SEARCH = ("value", "grad", "value_fn")
NEEDS = {
    "contrib.hutchinson_estimator_diag_hessian": ("obj_fn",),
    "contrib.momo": ("value",),
    "contrib.momo_adam": ("value",),
    "contrib.reduce_on_plateau": ("value",),
    "contrib.sam": ("grad_fn",),
    "contrib.sophia": ("obj_fn",),
    "lbfgs": SEARCH,
    "polyak_sgd": ("value",),
    "scale_by_backtracking_linesearch": SEARCH,
    "scale_by_polyak": ("value",),
    "scale_by_zoom_linesearch": SEARCH,
}


def test_every_transformation_has_a_row() -> None:
    """A function that returns a transformation, or does not say what, is in a table."""
    missing = []
    for name, member in ROOM.items():
        is_function = inspect.isroutine(member) or hasattr(member, "__wrapped__")
        if not is_function and not isinstance(member, functools.partial):
            continue  # classes and types
        result = inspect.signature(member).return_annotation
        if result is inspect.Signature.empty or "GradientTransformation" in str(result):
            missing.append(name)
    assert sorted(missing) == sorted([*ROWS, *REFUSED, *OTHERS])


def algorithm_of(optimizer: Any, measurement: Any, method: str = "sgd", **options: Any) -> Any:
    return getattr(algorithms, method)(
        world=worlds.two_point(
            dim=4, invariant_rank=1, spurious_rank=1, mean=1.0, spread=2.0, basis="canonical"
        ),
        sampler=samplers.cyclic(batch_size=9),
        measurement=measurement,
        model=models.factored(dim=4, rank=3, init_scale=0.5, init="gaussian"),
        optimizer=optimizer,
        **options,
    )


def trained(optimizer: Any, measurement: Any, **options: Any) -> tuple[Array, Array]:
    """The parameters [d, k] at the start and after the last step."""
    algorithm = algorithm_of(optimizer, measurement, **options)

    @jax.jit
    def ends(key: jax.Array) -> tuple[Array, Array]:
        start = algorithm.init(key)
        last = jax.lax.fori_loop(0, STEPS, lambda _, state: algorithm.step(key, state), start)
        return start.params, last.params

    return ends(jax.random.key(0))


def by_hand(optimizer: Any, params: Array, needs: tuple[str, ...]) -> Array:
    """The parameters [d, k] of a plain loop over the population losses of the environments."""
    state = optimizer.init(params)
    update = optax.with_extra_args_support(optimizer).update

    @jax.jit
    def step(params: Any, state: Any, signal: Array) -> tuple[Any, Any]:
        def loss(params: Array) -> Array:
            product = jnp.matmul(params, params.T, precision="highest")
            return jnp.sum((product - jnp.diag(signal)) ** 2) / 4

        value, gradient = jax.value_and_grad(loss)(params)
        offered = {
            "value": value,
            "grad": gradient,
            "value_fn": loss,
            "obj_fn": loss,
            "grad_fn": lambda other, index: jax.grad(loss)(other),
        }
        updates, state = update(gradient, state, params, **{need: offered[need] for need in needs})
        return optax.apply_updates(params, updates), state

    for turn in range(STEPS):
        signal = jnp.asarray(SIGNALS[turn % 2], params.dtype)
        params, state = step(params, state, signal)
    return params


SLOW = {"adam", "adafactor", "lbfgs", "lion", "sgd", "contrib.sam", "apply_if_finite", "chain"}


@pytest.mark.parametrize("name", few(ROWS, {"scale_by_backtracking_linesearch"}, SLOW))
def test_a_transformation_trains_as_a_plain_loop(name: str) -> None:
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        start, last = trained(ROWS[name](), measurements.population())
        expected = by_hand(ROWS[name](), start, NEEDS.get(name, ()))
        assert np.isfinite(expected).all()
        assert (name == "set_to_zero") == np.array_equal(start, expected)
        np.testing.assert_allclose(last, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", few(REFUSED, {"monitor", "lookahead"}))
def test_what_a_run_cannot_do_is_refused_by_name(name: str) -> None:
    make_optimizer, message = REFUSED[name]
    with pytest.raises((ValueError, AssertionError), match=message):
        jax.eval_shape(lambda: trained(make_optimizer(), measurements.population()))


def test_transformations_that_ask_for_more_are_refused_by_name() -> None:
    sam = optax.contrib.sam(optax.sgd(RATE), optax.sgd(RATE), opaque_mode=True)
    for optimizer in (optax.chain(sam), optax.MultiSteps(optax.lbfgs(), 2)):
        with pytest.raises(ValueError, match="^optimizer must be an optax transformation"):
            jax.eval_shape(lambda one=optimizer: trained(one, measurements.population()))
    for server in (optax.polyak_sgd(), optax.lbfgs(), sam):
        options: Any = {"method": "fedavg", "server": server}
        with pytest.raises(ValueError, match="^server must be .* parameters only"):
            jax.eval_shape(
                lambda one=options: trained(optax.sgd(RATE), measurements.population(), **one)
            )


SERVED = (
    "population",
    "fixed_design",
    "streamed",
    "rank_one",
    "completion",
    "examples",
    "in_context",
)
LOOKERS = {
    "contrib.sam": ROWS["contrib.sam"],
    "contrib.sophia": lambda: optax.contrib.sophia(RATE, update_interval=1, clip_threshold=None),
    "lbfgs": optax.lbfgs,
    "scale_by_backtracking_linesearch": ROWS["scale_by_backtracking_linesearch"],
}


@pytest.mark.parametrize(
    ("name", "optimizer"),
    few(
        [(name, one) for name in SERVED for one in LOOKERS],
        set(),
        [("streamed", one) for one in LOOKERS],
    ),
)
def test_optimizers_that_look_elsewhere_see_the_batch_of_the_step(
    name: str, optimizer: str
) -> None:
    """A step against optax by hand, on the loss that the measurement itself returns."""
    measurement = (
        make("measurements", name, noise=0.3) if name != "population" else measurements.population()
    )
    transformation = LOOKERS[optimizer]()
    algorithm = algorithm_of(transformation, measurement)

    @jax.jit
    def both(key: jax.Array) -> tuple[Any, Any]:
        state = algorithm.init(key)
        step_key = jax.random.fold_in(stream(key, "measurements"), 0)
        batch = Batch(jnp.zeros(1, jnp.int32), jnp.full(1, 9, jnp.int32))

        def measure(params: Array) -> tuple[Array, Array]:
            model = models.factored(dim=4, rank=3)
            return measurement.gradient(
                step_key, state.step, state.data, model, params, state.world, batch
            )

        @jax.custom_jvp
        def loss(params: Array) -> Array:
            return measure(params)[1]

        loss.defjvps(lambda tangent, value, params: jnp.vdot(measure(params)[0], tangent))
        gradient, value = measure(state.params)
        offered = {
            "value": value,
            "grad": gradient,
            "value_fn": loss,
            "obj_fn": loss,
            "grad_fn": lambda other, index: measure(other)[0],
        }
        updates, _ = optax.with_extra_args_support(transformation).update(
            gradient,
            transformation.init(state.params),
            state.params,
            **{need: offered[need] for need in NEEDS[optimizer]},
        )
        return algorithm.step(key, state).params, optax.apply_updates(state.params, updates)

    with jax.enable_x64(True):
        found, expected = both(jax.random.key(0))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
