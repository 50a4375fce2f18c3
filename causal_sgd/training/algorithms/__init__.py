"""Training methods: pure functions made of a world, a sampler, a measurement, a model and optax.

A step of each method and its cost, with batches of m examples from the sampler (to compare methods
at equal cost, give them equal numbers of examples, not of steps):

| method | a step | gradients | examples |
|---|---|---|---|
| `sgd` | one update by one batch | 1 | m |
| `sgd` with `optax.MultiSteps` of n | one batch; an update every n steps | 1 | m |
| `sgd` with `optimizers.sam` | one update; two gradients by the same batch | 2 | m |
| `penalised` | one update by an objective of one batch | 1 | m |
| `fair` | K updates of critics and one of the predictor and its gates | K + 1 | (K + 1) m |
| `zin` | an update of the split, for a time, and one of the model | 2 | all |
| `fitted` | the whole fit of an estimator; later steps change nothing | - | all data |
| `fedavg`, `fedprox`, `scaffold` | one round: K local steps in every participant | K | K m |

In a round the m examples are those of one local step in all participants together: `hetero` gives
them all to one environment, `stratified` m / E to each. Methods and settings share the world, the
data, the initial parameters, the order of the environments and, gradient by gradient, the
measurements: step t of `sgd` and local step k of round t of a federated method, numbered K t + k,
use the same measurements where a batch is from one environment.

Averages, clipping, schedules and label noise are no methods: `optimizers` and optax have the
former, and a measurement draws the latter. A method of your own draws from `stream(key, name)`,
the keys named in `STREAMS`.
"""

from __future__ import annotations

from causal_sgd import _room
from causal_sgd.training.algorithms._fair import fair
from causal_sgd.training.algorithms._federated import (
    FederatedOptions,
    fedavg,
    fedprox,
    scaffold,
)
from causal_sgd.training.algorithms._fitted import fitted
from causal_sgd.training.algorithms._parts import STREAMS, stream
from causal_sgd.training.algorithms._sgd import penalised, sgd
from causal_sgd.training.algorithms._zin import zin

_room(__name__)
__all__ = [
    "STREAMS",
    "FederatedOptions",
    "fair",
    "fedavg",
    "fedprox",
    "fitted",
    "penalised",
    "scaffold",
    "sgd",
    "stream",
    "zin",
]
