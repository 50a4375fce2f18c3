"""Models without hidden layers: weights themselves, their powers, and features under a head."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.supervised.models._model import VectorModel
from causal_sgd.types import Array, Key, Params

__all__ = ["featurised", "hadamard", "intercept_of", "linear", "products", "with_intercept"]

LARGEST_DEPTH = 100


def linear(
    *,
    dim: int,
    intercept: bool = False,
    init: str = "gaussian",
    init_scale: float | Array | None = None,
    outputs: int | None = None,
) -> VectorModel:
    """The linear model x'w, or x'w + b, or one of them for each of several classes.

    Args:
        dim: number of inputs p.
        intercept: whether there is a b.
        init: "gaussian" for normal initial weights and b = 0, "uniform" for uniform ones, b
            included, as linear layers of PyTorch begin.
        init_scale: standard deviation of the initial weights ("gaussian") or half the width of
            their range ("uniform"), at least 0; may be traced. None for 0 and 1 / sqrt(p).
        outputs: C, the number of classes, at least 2, for `losses.softmax`; None for one number.

    Returns:
        A model with params {"weights": [p]}, and "intercept": [] where there is one. Its head
        scales every input. With outputs the params are [p, C] and [C], predictions are [C], and the
        estimate [p] is the last class's weights less the first one's.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.integer("dim", dim)
    checks.flags(intercept=intercept)
    checks.choice("init", init, ("gaussian", "uniform"))
    default = 0.0 if init == "gaussian" else dim**-0.5
    scale = default if init_scale is None else init_scale
    checks.number("init_scale", scale, minimum=0)

    if outputs is not None:
        checks.integer("outputs", outputs, minimum=2)
        return _classes(dim, outputs, intercept, init, scale)

    def start(key: Key) -> Params:
        if init == "gaussian":
            weights = scale * random.normals(key, dim, float)
            return with_intercept({"weights": weights}, intercept)
        # The first weights do not depend on the number of inputs.
        levels = 2 * random.uniforms(random.bits(key, dim + 1), jnp.result_type(float)) - 1
        params = with_intercept({"weights": scale * levels[1:]}, intercept)
        return params | ({"intercept": scale * levels[0]} if intercept else {})

    def rescaled(params: Params, head: Array) -> Params:
        return {**params, "weights": params["weights"] * head}

    return VectorModel(
        start,
        lambda params: params["weights"],
        intercept=intercept_of(intercept),
        rescaled=rescaled,
        head_size=dim,
    )


def _classes(
    dim: int, outputs: int, intercept: bool, init: str, scale: float | Array
) -> VectorModel:
    """Linear logits of several classes."""

    def start(key: Key) -> Params:
        if init == "gaussian":
            normals = random.normals(random.fold_in(key, 0), (dim, outputs), float)
            params = {"weights": scale * normals}
            return params | ({"intercept": jnp.zeros(outputs)} if intercept else {})
        words = random.bits(random.fold_in(key, 0), (dim + 1) * outputs)
        levels = 2 * random.uniforms(words, jnp.result_type(float)).reshape(dim + 1, outputs) - 1
        return {"weights": scale * levels[1:]} | (
            {"intercept": scale * levels[0]} if intercept else {}
        )

    def predict(params: Params, x: Array) -> Array:
        logits = linalg.product(x[None], params["weights"])[0]
        return logits + params["intercept"] if intercept else logits

    def rescaled(params: Params, head: Array) -> Params:
        return {**params, "weights": params["weights"] * head[:, None]}

    return VectorModel(
        start,
        lambda params: params["weights"][:, -1] - params["weights"][:, 0],
        rescaled=rescaled,
        head_size=dim,
        predict=predict,
    )


def hadamard(
    *,
    dim: int,
    depth: int = 2,
    signed: bool = False,
    intercept: bool = False,
    init_scale: float | Array = 0.1,
    negative_scale: float | Array | None = None,
) -> VectorModel:
    """Hadamard powers: weights u^L, or u^L - v^L, of every input by itself.

    With u^2 a spurious weight near zero is multiplied by 1 + learning_rate b_e in a step in
    environment e, b_e = E_e x_j (y - x'w*), so that HeteroSGD can reject it.

    Args:
        dim: number of inputs p.
        depth: L, at least 2.
        signed: whether v is subtracted, so that weights of both signs are possible.
        intercept: whether there is a b, which starts at 0 and is a plain parameter.
        init_scale: initial value of all entries of u and v, above 0; may be traced. Signed weights
            start at 0.
        negative_scale: that of v alone, at least 0; may be traced. Weights then start at the
            difference of the powers. None for `init_scale`, and without `signed`.

    Returns:
        A model with params {"positive": [p]}, "negative": [p] if signed, and "intercept": [] where
        there is one. It has no head.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.integer("dim", dim)
    checks.integer("depth", depth, minimum=2, maximum=LARGEST_DEPTH)
    checks.flags(signed=signed, intercept=intercept)
    checks.number("init_scale", init_scale, above=0)
    if negative_scale is not None:
        checks.number("negative_scale", negative_scale, minimum=0)
        if not signed:
            raise ValueError(
                "negative_scale must be None without signed, which alone has a v, got "
                f"{negative_scale}"
            )
    second = init_scale if negative_scale is None else negative_scale
    scales = {"positive": init_scale} | ({"negative": second} if signed else {})

    def start(key: Key) -> Params:
        del key
        kind = jnp.result_type(float)
        return with_intercept(
            {name: jnp.full(dim, scale, kind) for name, scale in scales.items()}, intercept
        )

    def estimate(params: Params) -> Array:
        weights = params["positive"] ** depth
        return weights - params["negative"] ** depth if signed else weights

    return VectorModel(start, estimate, intercept=intercept_of(intercept))


def products(
    *,
    dim: int,
    init_scales: tuple[float | Array, float | Array] = (0.1, 0.0),
    intercept: bool = False,
) -> VectorModel:
    """Products u v of two weights of every input by itself, whose scales need not be equal.

    Under squared loss p = (u + v) / sqrt(2) is multiplied by 1 - learning_rate g / 2 in a step, and
    q = (u - v) / sqrt(2) by 1 + learning_rate g / 2, with g the mean of residual times input. The
    weights are (p^2 - q^2) / 2: those of `hadamard(signed=True)` from initial values a / 2 at half
    the learning rate, if u starts at a and v at 0. u^2 - v^2 is what the two layers differ by, and
    is multiplied by 1 - (learning_rate g / 2)^2.

    Args:
        dim: number of inputs p.
        init_scales: initial values (a, b) of all entries of u and of v, finite numbers that are not
            both 0; may be traced. The weights start at a b.
        intercept: whether there is a b, which starts at 0 and is a plain parameter.

    Returns:
        A model with params {"first": u [p], "second": v [p]}, and "intercept": [] where there is
        one. It has no head.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.integer("dim", dim)
    checks.flags(intercept=intercept)
    pair = checks.instance("init_scales", init_scales, (tuple, list), "a pair of numbers")
    if len(pair) != 2:
        raise ValueError(f"init_scales must be a pair of numbers, got {len(pair)} of them")
    for place, scale in enumerate(pair):
        checks.number(f"init_scales[{place}]", scale)
    if all(checks.is_zero(scale) for scale in pair):
        raise ValueError("init_scales must not both be 0, where no gradient moves the weights")

    def start(key: Key) -> Params:
        del key
        first, second = (jnp.full(dim, scale, jnp.result_type(float)) for scale in pair)
        return with_intercept({"first": first, "second": second}, intercept)

    return VectorModel(
        start,
        lambda params: params["first"] * params["second"],
        intercept=intercept_of(intercept),
    )


def featurised(*, dim: int, features: int | None = None, intercept: bool = False) -> VectorModel:
    """Linear features x'Phi under a head that is fixed at ones (Arjovsky et al. 2019).

    Args:
        dim: number of inputs p.
        features: k, the number of features; None for p.
        intercept: whether there is a b, which starts at 0; the head leaves it alone.

    Returns:
        A model with params {"features": Phi [p, k]}, which start at the identity, and "intercept":
        [] where there is one.

    Raises:
        ValueError: if an argument is out of range.
    """
    size = checks.integer("dim", dim)
    if features is not None:
        size = checks.integer("features", features)
    checks.flags(intercept=intercept)

    def start(key: Key) -> Params:
        del key
        return with_intercept({"features": jnp.eye(dim, size)}, intercept)

    def rescaled(params: Params, head: Array) -> Params:
        return {**params, "features": params["features"] * head[None, :]}

    return VectorModel(
        start,
        lambda params: jnp.sum(params["features"], 1),
        intercept=intercept_of(intercept),
        features=lambda params: params["features"],
        rescaled=rescaled,
        head_size=size,
    )


def with_intercept(params: dict[str, Params], intercept: bool) -> Params:
    """Add an intercept of zero to the parameters of a model that has one."""
    return params | ({"intercept": jnp.zeros(())} if intercept else {})


def intercept_of(intercept: bool) -> Callable[[Params], Array] | None:
    """Params -> b [] of a model that has one, else None."""
    return (lambda params: params["intercept"]) if intercept else None
