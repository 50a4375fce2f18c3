"""The simulation that people write today, in NumPy, PyTorch and plain JAX, to measure `causal_sgd` against.

Each peer runs HeteroSGD for matrix sensing, with measurements that it draws anew in every step (`DrawnProblem`) or on
finite data sets (`FiniteProblem`), and says what a step took. PyTorch is imported by the peers that need it.
"""

from .jax_peers import jax_drawn
from .numpy_peers import numpy_design, numpy_loop, numpy_plain
from .problems import DrawnProblem, FiniteProblem, PeerResult
from .torch_peers import torch_batched, torch_design, torch_func, torch_loop, torch_sees_gpu

__all__ = [
    "DrawnProblem", "FiniteProblem", "PeerResult", "jax_drawn", "numpy_design", "numpy_loop", "numpy_plain",
    "torch_batched", "torch_design", "torch_func", "torch_loop", "torch_sees_gpu",
]  # fmt: skip
