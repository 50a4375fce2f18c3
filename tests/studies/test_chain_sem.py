"""The study of the chain builds the worlds that it names, with traced switches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.studies.supervised import _chain_methods as methods
from causal_sgd.studies.supervised import chain_sem as study
from causal_sgd.supervised import worlds

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.mark.parametrize("setting", [0, 3, 5, 6])
def test_traced_switches_choose_the_world_of_the_same_key(setting: int) -> None:
    key = jax.random.key(3)
    hidden, hetero, scramble = map(bool, study.SETTINGS[setting])
    factory = worlds.chain(hidden=hidden, hetero=hetero, scramble=scramble)
    expected = jax.jit(factory)(key)  # op by op, each would be compiled
    switches = dict(zip(("hidden", "hetero", "scramble"), study.SETTINGS[setting], strict=True))
    made = jax.jit(methods._world)(key, **{n: jnp.asarray(v) for n, v in switches.items()})
    for name in ("second_moments", "test_moments", "target", "causal", "unscramble"):
        np.testing.assert_allclose(getattr(made, name), getattr(expected, name), atol=1e-4)
