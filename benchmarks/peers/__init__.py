"""Peers of `causal_sgd`: the simulation as people write it in NumPy, PyTorch and plain JAX.

Each peer runs HeteroSGD for matrix sensing, with new measurements in every step (`DrawnProblem`) or
on finite data sets (`FiniteProblem`), and reports the time of a step; those of `LinearProblem` fit
linear regressions in several environments, and `torch_unit_test` is one job of the invariance unit
tests, and `torch_network` a network on coloured digits. Only the peers that need PyTorch import it.
"""

from .jax_peers import jax_drawn
from .linear_peers import (
    LinearProblem,
    LinearResult,
    numpy_eills,
    numpy_moments,
    numpy_rows,
    torch_rows,
)
from .network_peers import BATCHES, NetworkProblem, NetworkResult, torch_network
from .numpy_peers import numpy_design, numpy_loop, numpy_plain
from .problems import DrawnProblem, FiniteProblem, PeerResult
from .torch_peers import torch_batched, torch_design, torch_func, torch_loop, torch_sees_gpu
from .unit_test_peers import torch_unit_test

__all__ = [
    "BATCHES",
    "DrawnProblem",
    "FiniteProblem",
    "LinearProblem",
    "LinearResult",
    "NetworkProblem",
    "NetworkResult",
    "PeerResult",
    "jax_drawn",
    "numpy_design",
    "numpy_eills",
    "numpy_loop",
    "numpy_moments",
    "numpy_plain",
    "numpy_rows",
    "torch_batched",
    "torch_design",
    "torch_func",
    "torch_loop",
    "torch_network",
    "torch_rows",
    "torch_sees_gpu",
    "torch_unit_test",
]
