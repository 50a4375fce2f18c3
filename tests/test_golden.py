"""One small run, number by number: whatever changes it changes every user's results.

A change of a random stream is at least a minor version and an entry in the changelog. Write the file anew with
`python tests/test_golden.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import optax

from causal_sgd import measurements, metrics, models, samplers, worlds
from causal_sgd.algorithms import sgd
from causal_sgd.simulate import run

FILE = Path(__file__).with_name("golden.json")


def golden_run() -> dict[str, list]:
    """The HeteroSGD of a dozen lines, with label noise: every random stream but the data's takes part."""
    algorithm = sgd(
        world=worlds.two_point(dim=6, invariant_rank=2, spurious_rank=2, mean=1.0, spread=4.0),
        sampler=samplers.hetero(batch_size=40),
        measurement=measurements.gaussian_law(noise=0.3),
        model=models.factored(dim=6, rank=4, init_scale=0.2),
        optimizer=optax.sgd(0.05),
    )
    watched = [metrics.invariant_error, metrics.spurious_signal, metrics.singular_values, metrics.environment_losses]
    trace = jax.jit(lambda key: run(key, algorithm=algorithm, metrics=watched, num_steps=30, record_every=10))(
        jax.random.key(2024)
    )
    return {"step": trace.step.tolist()} | {name: values.tolist() for name, values in trace.metrics.items()}


def test_the_golden_run_is_what_it_was() -> None:
    found, golden = golden_run(), json.loads(FILE.read_text())
    assert set(found) == set(golden)
    for name, values in golden.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


if __name__ == "__main__":
    FILE.write_text(json.dumps(golden_run(), indent=1) + "\n")
