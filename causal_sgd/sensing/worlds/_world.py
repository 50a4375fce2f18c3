"""The world of matrix sensing: an invariant and a spurious signal in factored form."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from causal_sgd import linalg
from causal_sgd.types import Array, Key


class World(NamedTuple):
    """One draw of all signals, in factored form: environment e has U* diag(s) U*' + V C_e V'.

    Both bases have orthonormal columns. They are orthogonal to each other unless there is a tilt.
    """

    invariant_basis: Array  # [d, r1]     U*
    invariant_spectrum: Array  # [r1]        s, the eigenvalues of A*
    spurious_basis: Array  # [d, r2]     V
    spurious_cores: Array  # [E, r2, r2] C_e, symmetric
    probabilities: Array  # [E]         how often each environment is drawn; sums to one

    @property
    def estimate_shape(self) -> tuple[int, int]:
        """The shape of an estimate of a signal, (d, d)."""
        return self.invariant_basis.shape[0], self.invariant_basis.shape[0]

    @property
    def invariant(self) -> Array:
        """The dense invariant signal A*, [d, d]; made on demand."""
        basis = self.invariant_basis
        return linalg.product(basis * self.invariant_spectrum[None, :], basis.T)

    def spurious(self, core: Array) -> Array:
        """The dense spurious signal V `core` V' of one core [r2, r2], as [d, d]; made on demand."""
        basis = self.spurious_basis
        return linalg.product(linalg.product(basis, core), basis.T)

    @property
    def bases(self) -> Array:
        """U* and V side by side, [d, r1 + r2]."""
        return jnp.concatenate([self.invariant_basis, self.spurious_basis], 1)

    @property
    def mean_core(self) -> Array:
        """The mean of the spurious cores under the environment probabilities, [r2, r2]."""
        return jnp.tensordot(self.probabilities, self.spurious_cores, 1, precision="highest")


WorldFactory = Callable[[Key], World]
"""How the world of a run is drawn: a pure function of a key."""
