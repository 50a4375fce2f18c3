"""The transformer of the study reads sequences, and its world is that of single tokens."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.studies.supervised import _marker as marker
from causal_sgd.supervised import models

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def sequence(params: dict[str, np.ndarray], tokens: list[int]) -> float:
    """A transformer layer over a sequence with the reader at its end, which alone is read."""
    seen = np.concatenate([params["tokens"][tokens], params["reader"][None]])
    query = seen[-1] @ params["queries"]
    scores = seen @ params["keys"] @ query / marker.WIDTH**0.5
    weights = np.exp(scores - scores.max())
    read = seen[-1] + weights / weights.sum() @ seen @ params["values"] @ params["mixing"]
    hidden = np.maximum(read @ params["hidden"] + params["bias"], 0)
    return float((read + hidden @ params["output"]) @ params["head"])


def test_copies_of_tokens_are_a_sequence() -> None:
    params = marker.init(jax.random.key(0))
    params["bias"] = jax.random.normal(jax.random.key(1), (marker.HIDDEN,))
    plain = {name: np.asarray(value, float) for name, value in params.items()}
    inputs = jnp.asarray(marker.atoms()[:16, :5], float)
    found = jax.jit(jax.vmap(marker.apply, (None, 0)))(params, inputs)
    for value, row in zip(found, marker.atoms()[:16], strict=True):
        positive = int(row[4])
        tokens = [int(row[1]), *[3] * positive, *[2] * (marker.CONTENT - positive)]
        assert float(value) == pytest.approx(sequence(plain, tokens), rel=1e-4, abs=1e-5)


def test_the_world_is_that_of_single_tokens() -> None:
    total = {}
    for label, first, *content in itertools.product((-1, 1), repeat=2 + marker.CONTENT):
        agreement = marker.MARKER[0]
        chance = 0.5 * (agreement if first == label else 1 - agreement)
        for token in content:
            chance *= marker.CORRECT if token == label else 1 - marker.CORRECT
        key = (label, first, content.count(1))
        total[key] = total.get(key, 0) + chance
    rows = marker.atoms()
    found = marker.mass(marker.MARKER[0])
    for row, chance in zip(rows, found, strict=True):
        assert chance == pytest.approx(total[row[5], row[1] - row[0], row[4]])
    majority = np.where(rows[:, 4] > marker.CONTENT / 2, 1, -1)
    assert marker.mass(0.5) @ (majority == rows[:, 5]) == pytest.approx(marker.BAYES)
    assert pytest.approx(0.8, abs=1e-3) == marker.BAYES


@pytest.mark.slow
def test_without_the_field_of_the_marker_nothing_tells_it() -> None:
    model = models.input_gates(models.network(marker.init, marker.apply), groups=marker.FIELD)
    params = model.init(jax.random.key(2))
    closed = {**params, "gates": 0 * params["gates"]}
    inputs = jnp.asarray(marker.atoms()[:16, :5], float)
    gaps = []
    for each in (params, closed):
        predictions = model.predictions(each, inputs)
        gaps.append(float(jnp.abs(predictions[:8] - predictions[8:]).max()))
    assert gaps[0] > 0.01
    assert gaps[1] == 0
