"""Exact random draws with traced parameters that stay cheap inside a scanned and vmapped step.

jax.random offers all of them except the GOE, but its loops dominate the cost.
`jax.random.multinomial` takes longer than the rest of a step. `jax.random.gamma` takes more than a
second to compile and, vmapped over some numbers of lanes at shapes of 5e7, did not terminate on a
CPU.

All numbers come from the blocks of two 32-bit words that Threefry computes from a key and a counter
(i, stream). Words, normals and derived keys of one key would share blocks: draw them from different
streams, or from keys folded in.
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)
