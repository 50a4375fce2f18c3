"""One run: steps, recorded frames, and divergence as data."""

from __future__ import annotations

import contextlib
import functools
import traceback
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.types import Algorithm, Array, Key, Metric, PyTree, Snapshot, State, Trace

__all__ = ["run", "time_average"]

_UNREADABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
_Carry = tuple[State, Array, Array]  # state, updates done [] and `diverged_at` []


def run(
    key: Key,
    *,
    algorithm: Algorithm,
    metrics: Mapping[str, Metric] | Sequence[Metric],
    num_steps: int,
    record_every: int | None = None,
) -> Trace:
    """Run one algorithm from one key.

    Pure and unbatched: `sweep`, or your own `jit` and `vmap`, does the rest.

    Metrics are computed at the start, after every `record_every` steps and at the end only. It runs
    with `jax_debug_nans` too, without `metrics.batch_loss`, which is NaN at the start.

    Args:
        key: the run's key; the world, the data, the initialisation, the order of the environments
            and the measurements are streams of it.
        algorithm: what to run, such as `sgd(...)`.
        metrics: name -> metric, or metrics that go by the names of their functions or classes.
        num_steps: T >= 1, static.
        record_every: steps between two frames, static; None for the start and the end only.

    Returns:
        A trace of F frames. `diverged_at` is the number of updates after which the loss or, at the
        end, the estimate was first not finite; -1 for never.

    Raises:
        ValueError: if an argument is out of range, two metrics share a name, or one fails or
            returns no numbers.
    """
    checks.key("key", key)
    _check_algorithm(algorithm)
    frames = _frames(num_steps, record_every)
    named = _named(metrics)

    def step(_: Array, carry: _Carry) -> _Carry:
        state, count, diverged_at = carry
        state = algorithm.step(key, state)
        # The loss of a step belongs to the parameters before it, those after `count` updates.
        broken = (diverged_at < 0) & ~jnp.isfinite(algorithm.loss(state))
        return state, count + 1, jnp.where(broken, count, diverged_at)

    def leg(carry: _Carry, length: Array) -> tuple[_Carry, Mapping[str, Array]]:
        # With a traced length one compiled body serves the first (empty) leg and all others.
        carry = jax.lax.fori_loop(0, length, step, carry)
        snapshot = algorithm.snapshot(key, carry[0])
        return carry, {name: _measured(name, metric, snapshot) for name, metric in named.items()}

    start = algorithm.init(key), jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32)
    carry, values = jax.lax.scan(leg, start, jnp.asarray(np.diff(frames, prepend=0)))
    state, _, diverged_at = carry
    last = algorithm.snapshot(key, state)
    finite = jnp.all(jnp.isfinite(last.model.bound(last.params)))
    diverged_at = jnp.where((diverged_at < 0) & ~finite, num_steps, diverged_at)
    return Trace(jnp.asarray(frames), values, diverged_at)


def time_average(trace: Trace, *, after: float = 0.5) -> Trace:
    """The mean of every metric over the frames after the transient, as a trace of one frame.

    Args:
        trace: of one run, with F frames.
        after: the share of the run that is left out as its transient, in [0, 1).

    Returns:
        A trace whose only frame is at the last step.

    Raises:
        ValueError: if `after` is out of range or leaves no frame.
    """
    checks.instance("trace", trace, Trace, "the Trace that `run` returns")
    checks.number("after", after, minimum=0, maximum=1)
    num_frames = trace.step.shape[0]
    length = num_frames - 1 - int(after * (num_frames - 1))
    if length < 1:
        raise ValueError(f"after must leave at least one of the {num_frames} frames, got {after}")
    means = {
        name: jnp.mean(values[-length:], 0, keepdims=True) for name, values in trace.metrics.items()
    }
    return Trace(trace.step[-1:], means, trace.diverged_at)


def _check_algorithm(algorithm: Algorithm) -> None:
    checks.made_of(
        "algorithm",
        algorithm,
        ("init", "step", "snapshot", "loss"),
        "an Algorithm, such as sgd(...) makes",
    )


def _frames(num_steps: int, record_every: int | None) -> np.ndarray:
    """The recorded steps [F], int32: 0, every multiple of `record_every` below T, and T."""
    checks.integer("num_steps", num_steps, maximum=2**31 - 1)  # steps are counted in int32
    every = num_steps if record_every is None else checks.integer("record_every", record_every)
    return np.unique(np.append(np.arange(0, num_steps, every), num_steps)).astype(np.int32)


def _named(metrics: Mapping[str, Metric] | Sequence[Metric]) -> dict[str, Metric]:
    allowed = (
        "functions of a snapshot, such as [metrics.spurious_signal], or a mapping of names to them"
    )
    if isinstance(metrics, Mapping):
        named = dict(metrics)
    else:
        try:
            if isinstance(metrics, str):
                raise TypeError
            metrics = list(metrics)
        except TypeError:
            raise ValueError(f"metrics must be {allowed}, got {metrics!r}") from None
        for metric in metrics:
            checks.function("metrics", metric, 1, allowed)
        names = [_name(metric) for metric in metrics]
        named = dict(zip(names, metrics, strict=True))
        if len(named) < len(names):
            raise ValueError(
                f"metrics must have different names, got {names}; pass a mapping to name them"
            )
    for name in named:
        if not isinstance(name, str) or not name:
            raise ValueError(f"metrics must have names, got {name!r}")
    if not named:
        raise ValueError("metrics must name at least one metric, got none")
    for metric in named.values():
        checks.function("metrics", metric, 1, allowed)
    return named


def _name(metric: Metric) -> str:
    """The name of a function, of that of a partial, or of an object's class."""
    while isinstance(metric, functools.partial):
        metric = metric.func
    return getattr(metric, "__name__", type(metric).__name__)


def _measured(name: str, metric: Metric, snapshot: Snapshot) -> Array:
    """The value of a metric.

    Raises:
        ValueError: if it fails, with its name and the shapes that it saw.
    """
    try:
        value = metric(snapshot)
    except _UNREADABLE:
        raise  # what a cell must not do, which sweeps explain
    except Exception as error:
        if _is_ours(error):
            raise
        text = next(iter(str(error).splitlines()), "")
        raise ValueError(
            f"metric {name!r} failed with {type(error).__name__}: {text.rstrip('.')}. "
            f"It saw {_shapes(snapshot)}"
        ) from error
    return _value(name, value)


def _is_ours(error: Exception) -> bool:
    """Whether the package raised an error itself, to say what is wrong."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, ValueError) and frame.f_globals.get("__name__", "").startswith(
        "causal_sgd."
    )


def _shapes(snapshot: Snapshot) -> str:
    """The shapes of the arrays of a snapshot: parameters, estimate and world."""
    parts: dict[str, PyTree] = {"params": snapshot.params}
    with contextlib.suppress(Exception):  # a model may lack one
        parts["estimate"] = snapshot.estimate
    parts["world"] = snapshot.world
    named = {
        f"{part}{jax.tree_util.keystr(path)}": leaf.shape
        for part, tree in parts.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if hasattr(leaf, "shape")
    }
    return ", ".join(f"{name} {list(shape)}" for name, shape in named.items())


def _value(name: str, value: object) -> Array:
    """What a metric returned, as an array.

    Raises:
        ValueError: if it is not made of numbers.
    """
    kind = f"a {type(value).__name__}"
    try:
        if not (value is None or isinstance(value, Mapping)):
            array = jnp.asarray(value)
            if array.dtype == bool or jnp.issubdtype(array.dtype, jnp.number):
                return array
            kind = str(array.dtype)
    except (TypeError, ValueError, OverflowError):  # strings, lists of different lengths, ...
        pass
    raise ValueError(f"metrics must return numbers, as an array, got {kind} from {name!r}")
