"""From parameters to the estimate that measurements see, or to the predictions of a network."""

from causal_sgd.sensing.models._matrices import (
    asymmetric,
    deep,
    diagonal,
    factored,
    signed_diagonal,
)
from causal_sgd.sensing.models._model import MatrixModel
from causal_sgd.sensing.models._networks import quadratic, relu

__all__ = [
    "MatrixModel",
    "asymmetric",
    "deep",
    "diagonal",
    "factored",
    "quadratic",
    "relu",
    "signed_diagonal",
]
