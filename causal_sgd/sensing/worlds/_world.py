"""The world of matrix sensing: an invariant and a spurious signal in factored form."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg
from causal_sgd.types import Array, Key

TOLERANCE = 1e-4  # of orthonormality and symmetry, for bases from single precision


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
        rank = jnp.shape(basis)[-1]
        checks.number("core", core, scalar=False, double=True)
        if np.shape(core) != (rank, rank):
            raise ValueError(f"core must have shape {(rank, rank)}, got {np.shape(core)}")
        return linalg.product(linalg.product(basis, core), basis.T)

    def check(self) -> None:
        """Refuse arrays that make no world; of traced ones only the shapes can be judged.

        Raises:
            ValueError: if the shapes do not fit each other, a basis has columns that are not
                orthonormal, a core is not symmetric, a number is not finite, or the probabilities
                are negative or do not sum to one. The message names the field.
        """
        shared, spectrum, own, cores, probabilities = map(jnp.shape, self)
        dim, rank = shared[0] if shared else 0, own[-1] if own else 0
        size = cores[0] if cores else 0
        expected = {
            "invariant_basis": (shared, (dim, *shared[1:2]), "[d, r1]"),
            "invariant_spectrum": (spectrum, shared[1:2], "[r1]"),
            "spurious_basis": (own, (dim, rank), "[d, r2]"),
            "spurious_cores": (cores, (size, rank, rank), "[E, r2, r2]"),
            "probabilities": (probabilities, (size,), "[E]"),
        }
        for name, (shape, fits, words) in expected.items():
            if shape != fits or len(shape) != words.count(",") + 1:
                raise ValueError(
                    f"world.{name} must have shape {words}, here {list(fits)}, got {list(shape)}"
                )
        for name in expected:
            checks.number(f"world.{name}", getattr(self, name), scalar=False, double=True)
        for name in ("invariant_basis", "spurious_basis"):
            basis = checks.concrete(getattr(self, name))
            if basis is None or not basis.size:
                continue
            columns = basis.astype(float)
            excess = np.abs(columns.T @ columns - np.eye(columns.shape[1])).max()
            if excess > TOLERANCE:
                raise ValueError(
                    f"world.{name} must have orthonormal columns, got products that differ from "
                    f"those by {excess:.2g}"
                )
        concrete = checks.concrete(self.spurious_cores)
        if concrete is not None and concrete.size:
            asymmetry = np.abs(concrete - np.swapaxes(concrete, 1, 2)).max((1, 2))
            if (asymmetry > TOLERANCE * np.abs(concrete).max((1, 2))).any():
                raise ValueError(
                    "world.spurious_cores must be symmetric, got entries that differ by "
                    f"{asymmetry.max():.2g}"
                )
        checks.probabilities("world.probabilities", self.probabilities, size)

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
