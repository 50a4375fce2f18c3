"""Exact random draws with traced parameters that stay cheap inside a scanned and vmapped step.

jax.random has them all but the GOE; its loops are what they cost. `jax.random.multinomial` takes longer than the rest of
a step, and `jax.random.gamma` takes over a second to compile and, vmapped over some numbers of lanes at shapes of 5e7,
never came to an end on a CPU.

All numbers come from the blocks of two 32-bit words that Threefry makes of a key and a counter (i, stream). Words, normals and
further keys of one key would share blocks: draw them from streams of their own, or from keys folded in.
"""

from causal_sgd.random._bits import bits, fold_in, uniforms
from causal_sgd.random._discrete import BINOMIAL_UNIFORMS, binomial, multinomial, subset
from causal_sgd.random._gaussian import (
    CHI_SQUARE_NORMALS,
    CHI_SQUARE_WORDS,
    chi_square,
    goe,
    goe_summand,
    goe_summand_size,
    normals,
)

__all__ = [
    "BINOMIAL_UNIFORMS", "CHI_SQUARE_NORMALS", "CHI_SQUARE_WORDS", "binomial", "bits", "chi_square", "fold_in", "goe", "goe_summand", "goe_summand_size",
    "multinomial", "normals", "subset", "uniforms",
]  # fmt: skip
