"""Properties of a traced program: memory, LAPACK calls, callbacks, fingerprint."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import jax
import numpy as np
from jax.extend import core as jex_core

__all__ = ["batches_lapack", "calls_back", "fingerprint", "shared_bytes", "working_bytes"]

LAPACK = {"cholesky", "eig", "eigh", "geqrf", "householder_product", "lu", "qr", "schur", "svd"}


def working_bytes(jaxpr: jex_core.Jaxpr) -> int:
    """Bytes of all values that a program computes, each counted once: an upper bound on its memory.

    A jitted function counts as if it were inlined; of loops and branches, the largest counts.
    """
    own = sum(_bytes(variable.aval) for equation in jaxpr.eqns for variable in equation.outvars)
    called, largest = 0, 0
    for equation in jaxpr.eqns:
        for inner in _inner(equation):
            size = working_bytes(inner)
            if equation.primitive.name in ("jit", "pjit"):
                called += size
            else:
                largest = max(largest, size)
    return own + called + largest


def shared_bytes(jaxpr: jex_core.ClosedJaxpr) -> int:
    """Bytes of the constants that every run reads as a whole.

    Constants from which a run gathers rows do not count; they are recognised by their size.
    """
    gathered = {
        _bytes(equation.invars[0].aval)
        for equation in _equations(jaxpr.jaxpr)
        if equation.primitive.name == "gather"
    }
    sizes = [np.asarray(constant).nbytes for constant in jaxpr.consts]
    return sum(size for size in sizes if size not in gathered)


def batches_lapack(jaxpr: jex_core.Jaxpr) -> bool:
    """Whether a program passes batches of matrices to LAPACK, as a user's metric might."""
    return any(
        equation.primitive.name in LAPACK and int(np.prod(_shape(equation.invars[0].aval)[:-2])) > 1
        for equation in _equations(jaxpr)
    )


def calls_back(jaxpr: jex_core.Jaxpr) -> bool:
    """Whether a program calls Python functions, which its jaxpr does not show."""
    return any("callback" in equation.primitive.name for equation in _equations(jaxpr))


def fingerprint(jaxpr: jex_core.ClosedJaxpr) -> str:
    """SHA-256 of a program and its constants, the same in every process with the same versions."""
    # Addresses of Python functions differ between processes.
    digest = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", str(jaxpr)).encode())
    for constant in jaxpr.consts:
        array = np.asarray(constant)
        digest.update(
            f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(array).tobytes()
        )
    return digest.hexdigest()


def _equations(jaxpr: jex_core.Jaxpr) -> Iterator[jex_core.JaxprEqn]:
    """The equations of a program and of all programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in _inner(equation):
            yield from _equations(inner)


def _inner(equation: jex_core.JaxprEqn) -> Iterator[jex_core.Jaxpr]:
    """The programs inside an equation: bodies of loops, branches, calls."""
    kinds = jex_core.Jaxpr | jex_core.ClosedJaxpr
    parameters = list(equation.params.values())
    for leaf in jax.tree.leaves(parameters, is_leaf=lambda leaf: isinstance(leaf, kinds)):
        if isinstance(leaf, kinds):
            yield leaf.jaxpr if isinstance(leaf, jex_core.ClosedJaxpr) else leaf


def _bytes(aval: object) -> int:
    """The size of an abstract value; 0 for tokens and others that have none."""
    itemsize = getattr(getattr(aval, "dtype", None), "itemsize", 0)
    return int(np.prod(_shape(aval))) * itemsize


def _shape(aval: object) -> tuple[int, ...]:
    return getattr(aval, "shape", ())
