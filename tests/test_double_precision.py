"""The environment variable JAX_ENABLE_X64: every part computes in double precision."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.experiment import Experiment
from causal_sgd.sensing import worlds
from support import small_cells

ROOT = Path(__file__).parents[1]
RANKS = {"dim": 7, "invariant_rank": 2, "spurious_rank": 2}


def in_a_process(file: str, **variables: str) -> str:
    """What a file of `support` prints in a process of its own."""
    result = subprocess.run(
        [sys.executable, file],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("field", Experiment.choices())
def test_the_small_cells_use_every_choice(field: str) -> None:
    used = set()
    for fields in small_cells.CELLS.values():
        value = getattr(small_cells.SMALL.replace(**fields), field)
        used |= set(value) if isinstance(value, tuple) else {value}
    assert used >= set(Experiment.choices()[field])


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("quickly_compiled")
def test_every_part_runs_with_the_variable_and_agrees_with_single_precision() -> None:
    variables = {"JAX_ENABLE_X64": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    double = json.loads(in_a_process(small_cells.__file__, **variables))
    single = small_cells.finals()
    for cell, metrics in single.items():
        for name, values in metrics.items():
            exact = np.array(double[cell][name.replace("float32", "float64")])
            scale = np.abs(exact).max()
            if cell != "noise":  # jax.random, from which optax draws, has other draws in double
                np.testing.assert_allclose(
                    values, exact, rtol=0, atol=1e-3 * scale, err_msg=f"{cell}: {name}"
                )
            # No part computes in single precision on the way.
            if scale > 0:
                assert (exact != exact.astype(np.float32)).any(), f"{cell}: {name}"


@pytest.mark.parametrize("kind", [float, np.float32, jnp.float32])
def test_worlds_keep_all_digits_of_their_numbers_with_strict_promotion(kind) -> None:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        numbers = {"mean": kind(0.2), "spread": kind(0.1)}
        world = worlds.two_point(**RANKS, **numbers, basis="canonical")(jax.random.key(0))
        goe = worlds.goe(**RANKS, num_environments=2, **numbers, coupling=kind(0.5))
        goe(jax.random.key(0))
    expected = float(numbers["mean"]) + float(numbers["spread"])
    np.testing.assert_allclose(world.spurious_cores[0], expected * np.eye(2), rtol=1e-15)


@pytest.mark.parametrize(
    "fields",
    [{"measurement": "streamed"}, {"measurement": "fixed-design"}, {"schedule": "linear"}],
    ids=str,
)
def test_experiments_run_with_double_precision_and_strict_promotion(fields) -> None:
    experiment = Experiment(**RANKS, steps=3, batch_size=4, num_examples=9, **fields)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        cell = experiment.cell()
        kinds = {
            leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(cell, jax.random.key(0)).metrics)
        }
    assert kinds == {np.dtype(np.float64)}
