"""Training methods: pure init/step functions composed of a world, a sampler, a measurement, a model and optax.

What a step of each is and what it costs, with batches of m examples from the sampler (to compare methods at equal cost,
give them equal numbers of examples, not of steps):

| method | a step | gradients | examples |
|---|---|---|---|
| `sgd` | one update by one batch | 1 | m |
| `sgd` with `optax.MultiSteps` of n | one batch; an update every n steps | 1 | m |
| `sgd` with `optimizers.sam` | one update; two gradients by the same batch | 2 | m |
| `fedavg`, `fedprox`, `scaffold` | one round of communication: K local steps in every environment that takes part | K | K m |

In a round the m examples are those of one local step in all the environments that take part together: `hetero` gives them all
to one, `stratified` m / E to each. Method and setting share the world, the data, the initial parameters, the order of the
environments and, gradient by gradient, the measurements: step t of `sgd` and local step k of round t of a federated method
with K = 1, or K t + k otherwise, use the same ones where a batch is of one environment.

`parts` is what they share; `sgd` and `federated` are the methods. Averages, clipping, schedules and label noise are not
methods: optax and `optimizers` have the former, and a measurement draws the latter.
"""

from __future__ import annotations

from causal_sgd.training.algorithms._federated import fedavg, fedprox, scaffold
from causal_sgd.training.algorithms._sgd import sgd

__all__ = ["fedavg", "fedprox", "scaffold", "sgd"]
