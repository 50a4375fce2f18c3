"""Sweeps run under whatever settings of jax the user debugs with; platforms are named if absent."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr

from causal_sgd.sensing import metrics
from causal_sgd.sweeps import compare, refine, sweep, use_cpu_cores
from causal_sgd.training import run
from causal_sgd.types import Trace
from support.cases import few
from support.sweeps import build

AIDS: dict[str, Any] = {
    "jax_debug_nans": True,
    "jax_disable_jit": True,
    "jax_debug_infs": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_transfer_guard": "disallow",
}
QUICK = ("jax_debug_nans", "jax_disable_jit", "jax_numpy_dtype_promotion")
METRICS = {"spurious": metrics.spurious_signal}
AXES = {"learning_rate": [0.1, 1e6]}  # the second one diverges


def cell(key: jax.Array, *, learning_rate: Any) -> Trace:
    strange = np.int32(1) * learning_rate  # refused by strict promotion
    algorithm = build(learning_rate=strange)
    return run(key, algorithm=algorithm, metrics=METRICS, num_steps=8)


@functools.cache
def reference() -> xr.Dataset:
    return sweep(cell, axes=AXES, seeds=2, tile=4)


@pytest.fixture
def aid(request: pytest.FixtureRequest) -> Iterator[str]:
    """A setting of the whole process, as an environment variable makes it."""
    reference()
    name = request.param
    before = getattr(jax.config, name)
    jax.config.update(name, AIDS[name])
    yield name
    jax.config.update(name, before)


@pytest.mark.parametrize("aid", few(AIDS, QUICK), indirect=True)
def test_a_sweep_has_its_bits_under_every_aid_for_debugging(aid: str) -> None:
    same = functools.partial(cell)  # another cell, so that it is traced again
    assert sweep(same, axes=AXES, seeds=2, tile=4).equals(reference()), aid
    assert (reference().diverged_at >= 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("aid", AIDS, indirect=True)
def test_executors_comparisons_and_refinements_have_it_too(aid: str) -> None:
    same = functools.partial(cell)
    with ThreadPoolExecutor(1) as executor:
        found = sweep(same, axes=AXES, seeds=2, tile=4, executor=executor)
    assert found.equals(reference()), aid
    found = compare({"a": same}, axes=AXES, seeds=2, tile=4)
    assert found.isel(variant=0, drop=True).equals(reference())
    refined = refine(same, axes=AXES, metric="spurious", level=1.0, max_seeds=8, tile=4)
    assert refined.done.all()


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("no backend (set JAX_ ...)")])
def test_a_platform_that_is_not_there_is_named(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> list[object]:
        raise error

    monkeypatch.setattr(jax, "local_devices", absent)
    monkeypatch.setattr("causal_sgd.sweeps._machine.setting", lambda name: "cuda")
    with pytest.raises(ValueError, match="^JAX_PLATFORMS must name platforms .* got 'cuda': "):
        use_cpu_cores()


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_the_shell_says_it_in_one_line(platform: str) -> None:
    words = [sys.executable, "-m", "causal_sgd", "run", "--dim", "4", "--steps", "2"]
    environment = {**os.environ, "JAX_PLATFORMS": platform}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("causal-sgd: error: JAX_PLATFORMS must name platforms")
    assert done.stderr.count("\n") == 1
