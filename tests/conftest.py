"""Settings of the whole suite. They have to be in place before jax starts, hence at import."""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Iterator
from typing import Any

import hypothesis
import jax
import matplotlib as mpl
import pytest
from jax._src import compiler  # has the only way to compile all programs of a module otherwise

from causal_sgd.sweeps import _machine

pytest.register_assert_rewrite("support")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without a terminal has jobs in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
mpl.use("Agg")
# Two devices on every machine, so that spreading a sweep over devices is always tested; see
# `one_device`.
jax.config.update("jax_num_cpu_devices", 2)
# A shape that broadcasts by accident is an error.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing leaves millions of objects that live on; to look at them all again and again takes time.
gc.set_threshold(50_000, 20, 50)
BEGAN = time.monotonic()

# Derandomised: a failure is the code's fault, not the draw's. Machines are shared: no deadlines.
hypothesis.settings.register_profile(
    "suite",
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.function_scoped_fixture,
    ],
)
hypothesis.settings.load_profile("suite")


def pytest_addoption(parser):
    parser.addoption(
        "--within",
        type=float,
        metavar="SECONDS",
        help="skip tests that have not begun by then; slow machines run fewer slow tests",
    )


def pytest_runtest_setup(item):
    limit = item.config.getoption("--within")
    if limit is not None and time.monotonic() - BEGAN > limit:
        pytest.skip(f"had not begun within {limit:.0f} s")


LONG_NOTEBOOKS = {"02_swap_one_thing", "05_atlas", "07_your_network"}


def pytest_collection_modifyitems(items):
    """Notebooks are slow tests: `pytest -m slow -k ipynb` runs them."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.slow)
            if item.path.stem in LONG_NOTEBOOKS:
                item.add_marker(pytest.mark.long)


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """Let a sweep use one device unless a test asks for more; a second one costs every program."""
    chosen = _machine.local_devices
    first = jax.local_devices()[:1]
    monkeypatch.setattr(
        _machine, "local_devices", lambda devices: chosen(first if devices is None else devices)
    )


def older_emitters() -> dict[str, Any]:
    """Options for XLA's older emitters; none where this version of XLA has no others."""
    options: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda: 0.0).lower().compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return {}
    return options


@pytest.fixture(scope="module")
def quickly_compiled() -> Iterator[None]:
    """Compile without most of XLA's optimisations and by its older emitters, in half of the time.

    For modules that compare with definitions. Tests of bits, memory or speed need what users run.
    """
    older = older_emitters()

    def quick(*args: Any, env_options_overrides: Any = None, **options: Any) -> Any:
        overrides = older | dict(env_options_overrides or {})
        return usual(*args, env_options_overrides=overrides, **options)

    usual = compiler.get_compile_options
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", quick)
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def strict_shapes():
    """A test that changed the setting must not change it for others."""
    yield
    jax.config.update("jax_numpy_rank_promotion", "raise")
