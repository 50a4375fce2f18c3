"""Gates before a model, one for every group of inputs: what lets HeteroSGD reject a shortcut."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.supervised.models._factors import with_factors
from causal_sgd.supervised.models._model import VectorModel
from causal_sgd.types import Array, Key, Params

__all__ = ["InputGates", "input_gates"]

LABELS = "a whole number p, or a label of the gate for each of the p inputs (None for no gate)"


@dataclass(frozen=True)
class InputGates(VectorModel):
    """A model whose inputs are multiplied by the squares of gates.

    Attributes:
        network: the model behind the gates, with params["network"].
        groups: the labels of the gates, in the order of params["gates"].
        members: for each input the place of its gate; -1 for none.
    """

    network: VectorModel | None = None
    groups: tuple[Hashable, ...] = ()
    members: tuple[int, ...] = ()

    @property
    def has_weights(self) -> bool:
        """Whether the model behind the gates has weights."""
        assert self.network is not None
        return self.network.has_weights

    def gates(self, params: Params) -> Array:
        """Return the factors of the inputs, g^2 of the gate of each and 1 without one; [p].

        Args:
            params: of the model.
        """
        squares = params["gates"] ** 2
        if self.members == tuple(range(len(self.groups))):
            return squares
        squares = jnp.append(squares, jnp.ones((), squares.dtype))
        return squares[jnp.asarray(self.members)]

    def check(self, params: Params, shape: tuple[int, ...]) -> None:
        """Refuse a world with another number of inputs, or what the model behind refuses.

        Args:
            params: initial.
            shape: (p,) of the world's inputs.

        Raises:
            ValueError: if they do not fit.
        """
        if shape != (len(self.members),):
            raise ValueError(
                f"groups must have a label for each of the {shape[0]} inputs of the world, got "
                f"{len(self.members)}"
            )
        check = getattr(self.network, "check", None)
        if check is not None:
            check(params["network"], shape)
            return
        assert self.network is not None
        behind = jax.eval_shape(self.network.estimate, params["network"]).shape
        if behind != shape:
            raise ValueError(
                f"network must have the {shape[0]} inputs of the world, got one of {behind[0]}"
            )


def input_gates(
    network: VectorModel,
    *,
    groups: int | Sequence[Hashable] | np.ndarray | Array,
    start: float | Array = 0.7,
) -> InputGates:
    """A model behind gates: its inputs are x * g[groups]**2, with one trained gate g a group.

    A gate at zero has no gradient in any environment, whatever the environments say of its inputs:
    it is the common fixed point that a plain network lacks, and near it a step in environment e
    multiplies g by 1 - 2 learning_rate * derivative of its loss in g^2. So HeteroSGD can reject the
    inputs of a group, if their environments contradict each other and the step is large enough.
    `optimizers.gates` gives gates a step of their own. (`gated` is FAIR's model, whose gates are
    random and lie in [0, 1].)

    Args:
        network: any model: `models.network` and so on, or a linear one, which then stays linear.
        groups: for each of the p inputs the label of its gate, None for an input without one; or
            the number p, for a gate of every input. Gates are in the order in which their labels
            first occur.
        start: initial value of all gates, or of each, [G], above 0; may be traced.

    Returns:
        A model with params {"gates": g [G], "network": those of the model behind}.

    Raises:
        ValueError: if an argument is out of range, or (when it runs) if the world has another
            number of inputs.
    """
    checks.instance(
        "network", network, VectorModel, "a model, such as models.network(init, apply) makes"
    )
    labels, members = _places(groups)
    checks.number("start", start, above=0, scalar=False)
    if np.shape(start) not in ((), (len(labels),)):
        raise ValueError(
            f"start must be one number, or one of each of the {len(labels)} gates, got an array "
            f"{list(np.shape(start))}"
        )

    def init(key: Key) -> Params:
        values = jnp.broadcast_to(jnp.asarray(start, jnp.result_type(float)), len(labels))
        return {"gates": values, "network": network.init(key)}

    def behind(params: Params, x: Array) -> Array:
        assert network.predict is not None
        return with_factors(network.predict, params["network"], x, model.gates(params))

    def features(params: Params) -> Array:
        factors = model.gates(params)
        if network.features is None:
            return jnp.diag(factors)
        return factors[:, None] * network.features(params["network"])

    def rescaled(params: Params, head: Array) -> Params:
        assert network.rescaled is not None
        return {**params, "network": network.rescaled(params["network"], head)}

    intercept = network.intercept
    model = InputGates(
        init,
        lambda params: model.gates(params) * network.estimate(params["network"]),
        intercept=None if intercept is None else lambda params: intercept(params["network"]),
        features=features,
        rescaled=None if network.rescaled is None else rescaled,
        head_size=network.head_size,
        predict=None if network.predict is None else behind,
        network=network,
        groups=labels,
        members=members,
    )
    return model


def _places(groups: object) -> tuple[tuple[Hashable, ...], tuple[int, ...]]:
    """The labels of the gates, and for each input the place of its gate, -1 for none."""
    if isinstance(groups, int | np.integer) and not isinstance(groups, bool):
        size = checks.integer("groups", groups, maximum=10**7)
        return tuple(range(size)), tuple(range(size))
    wrong = isinstance(groups, str | bytes) or not hasattr(groups, "__len__")
    if wrong or isinstance(groups, dict | set | frozenset):
        raise ValueError(f"groups must be {LABELS}, got {groups!r}")
    try:
        labels = np.asarray(groups).tolist() if hasattr(groups, "dtype") else list(groups)  # pyright: ignore
        names = list(dict.fromkeys(label for label in labels if label is not None))
    except (TypeError, ValueError):  # labels that cannot be compared, or no labels
        raise ValueError(f"groups must be {LABELS}, got {type(groups).__name__}") from None
    if not names:
        raise ValueError(f"groups must name at least one gate, got {len(labels)} inputs without")
    places = {name: place for place, name in enumerate(names)}
    return tuple(names), tuple(-1 if label is None else places[label] for label in labels)
