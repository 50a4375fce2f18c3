"""In-context regression: linear self-attention as a measurement of its query-key matrix.

A prompt of environment e holds a context of N inputs x_n ~ N(0, S_e) with labels w'x_n + noise, and
a query x ~ N(0, S_e) with the label y = w'B_e x + noise. The task w ~ N(0, W_e) is new in every
prompt. One head of linear self-attention, reduced to the weights that such prompts use (the common
form of theory: Ahn, Cheng, Daneshmand and Sra 2023; Zhang, Frei and Bartlett 2024), predicts

    h'Q x,    h = (1/N) sum_n x_n y_n,

with the matrix Q of queries and keys. As <Q, h x'> = h'Q x, this is matrix sensing with the
measurement matrix X = h x', and all models of a matrix can be trained. The world's signal is the
relation of query and context, B_e = A* + A_e. With B_e = I the query continues the context; in
general the label of the query is that of the transformed input B_e x. Relations that differ between
environments are sources of text that disagree on what a query asks for.

Moments (Isserlis) with H = E h h':

    E h w' = S W,    H = (1 + 1/N) S W S + (tr(S W) + noise^2) S / N,
    E r^2 = |W^(1/2) (S Q - B) S^(1/2)|^2 + noise^2
            + [|W^(1/2) S Q S^(1/2)|^2 + (tr(S W) + noise^2) |S^(1/2) Q S^(1/2)|^2] / N.

The second line is the cost of a finite context. The mean of G = (1/m) sum_i r_i X_i is
H Q S - S W B S, which for S = W = I and N -> infinity is Q - B, as in matrix sensing.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.measurements._algebra import (
    batch_size,
    checked_slab,
    measure_spans,
    of_owners,
    over_slabs,
    owners,
    pull_back,
    require_estimate,
)
from causal_sgd.sensing.measurements._covariances import Covariance, Roots, check, roots
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.sensing.worlds import World
from causal_sgd.types import (
    Array,
    Batch,
    Key,
    Measurement,
    Params,
    RiskFunction,
    Risks,
)

__all__ = ["in_context", "in_context_population"]

MOST = 256  # prompts drawn at once by default; batches are padded to a multiple of it
LONGEST = 10**9  # context


def in_context(
    context_length: int | Array,
    *,
    covariance: Covariance = 1.0,
    task_covariance: Covariance = 1.0,
    noise: float | Array = 0.0,
    slab_size: int | None = None,
) -> Measurement:
    """Fresh prompts of in-context regression: X = h x' with h = (1/N) sum_n x_n y_n.

    A prompt has a context of N inputs of covariance S with labels w'x_n + noise, a task w of
    covariance W, and a query x with the label w'B_e x + noise; B_e is the world's signal, the
    relation of query and context in environment e. The estimate Q predicts h'Q x: it is the
    query-key matrix of one head of linear self-attention.

    Kept of a transformer: products of queries with keys, values that are the labels of the context,
    prediction in context of a task that no parameter knows, and separate matrices of queries and
    keys (`models.asymmetric`; `models.deep(depth=1)` merges them). Not kept: softmax, positions,
    further heads and layers, feed-forward layers, normalisation, and the weight of the values,
    which is one.

    The context is not drawn example by example. Given the task, with u = S^(1/2) w and
    tau^2 = |u|^2 + noise^2,

        N S^(-1/2) h = Q u + sqrt(Q) (tau g - (tau - noise) u u'g / |u|^2)

    in distribution, with Q ~ chi^2_N and g ~ N(0, I) independent: the part of the inputs along the
    task decides the labels, and the rest is independent of it. A prompt therefore takes 3 d + 1
    normal numbers and one chi-square whatever N is, and N may be swept.

    X is far from Gaussian. Its tails are heavy, of products of four normal numbers, and a residual
    remains at every Q where the context is finite, so that batches should be large.

    Args:
        context_length: N >= 1, the examples in a context; may be traced.
        covariance: S of the inputs: a number, variances [d] along the coordinates, a positive
            definite matrix [d, d], or one for every environment, [E, d, d]. May be traced.
        task_covariance: W of the tasks, likewise.
        noise: sigma_y >= 0, the standard deviation of the noise of all labels, those of the context
            and that of the query; may be traced.
        slab_size: prompts held at once by a run; None for at most 256. It changes the draws.

    Returns:
        A measurement of the estimate space [d, d] at a cost of O(d^2) a prompt. Its risks on all
        data are those of `in_context_population`. For models that are `symmetric` it sees the
        symmetric part of X.

    Raises:
        ValueError: if an argument is out of range; in a run, if a covariance does not fit the
            world.
    """
    length = _checked(context_length, covariance, task_covariance, noise)
    checked_slab(slab_size, 1)

    def init(key: Key, world: World) -> Roots:
        return roots(world, covariance, task_covariance)

    def of_span(
        key: Key,
        step: Array,
        data: Roots,
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
        first: Array | int,
    ) -> tuple[Params, Array]:
        estimate = model.estimate(params)
        size, dim = batch_size(batch), estimate.shape[0]
        slab = checked_slab(slab_size, dim, MOST)
        inputs, tasks = data.of(batch.environments)
        forms = linalg.product(linalg.product(inputs, estimate[None]), inputs)
        labels = _Labels.of(world, batch, inputs, tasks)
        number = forms.shape[0]

        def add_slab(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            some_key = random.fold_in(key, index)
            owner, valid = owners(batch.counts, index * slab - first, slab)
            drawn = _draw(some_key, slab, dim, length, noise, estimate.dtype)
            whitened = _per_row(drawn.task, labels.task_roots, owner)
            context = drawn.context(whitened, length, noise)
            predicted = jnp.sum(_per_row(context, forms, owner) * drawn.query, 1)
            residuals = predicted - labels.clean(drawn, owner) - noise * drawn.noise
            residuals = jnp.where(valid, residuals, 0)
            weighted = residuals[:, None] * drawn.query
            sums, total = carry
            return sums + _outer_sums(context, weighted, owner, number), total + jnp.sum(
                residuals**2
            )

        zero = jnp.zeros_like(forms), jnp.zeros((), estimate.dtype)
        sums, total = over_slabs(add_slab, zero, batch, slab, first)
        matrix = jnp.sum(linalg.product(linalg.product(inputs, sums), inputs), 0)
        matrix = (matrix + matrix.T) / 2 if model.symmetric else matrix
        prompts = size.astype(estimate.dtype)
        return pull_back(model, params, matrix / prompts), total / prompts / 4

    return measure_spans(init, of_span)._replace(risks=_whole_risks(length, noise))


def in_context_population(
    context_length: int | Array,
    *,
    covariance: Covariance = 1.0,
    task_covariance: Covariance = 1.0,
    noise: float | Array = 0.0,
) -> Measurement:
    """The mean gradient of `in_context`: sum_e (m_e/m) (H_e Q S_e - S_e W_e B_e S_e) / 2.

    The prompts are infinitely many, their contexts still have N examples. Only the shares of the
    environments in the batch matter, not its size.

    Args:
        context_length: N >= 1, the examples in a context; may be traced.
        covariance: S of the inputs: a number, variances [d] along the coordinates, a positive
            definite matrix [d, d], or one for every environment, [E, d, d]. May be traced.
        task_covariance: W of the tasks, likewise.
        noise: sigma_y >= 0, the standard deviation of the noise of all labels; may be traced.

    Returns:
        A measurement of the estimate space [d, d].

    Raises:
        ValueError: if an argument is out of range; in a run, if a covariance does not fit the
            world.
    """
    length = _checked(context_length, covariance, task_covariance, noise)

    def init(key: Key, world: World) -> Roots:
        return roots(world, covariance, task_covariance)

    def on_batch(
        key: Key, step: Array, data: Roots, model: MatrixModel, world: World, batch: Batch
    ) -> RiskFunction:
        return _risks(model, data, world, batch.environments, length, noise)

    def gradient(
        key: Key,
        step: Array,
        data: Roots,
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
    ) -> tuple[Params, Array]:
        counts = batch.counts.astype(world.spurious_cores.dtype)
        shares = counts / jnp.sum(counts)
        risks = on_batch(key, step, data, model, world, batch)
        loss, slope = jax.value_and_grad(lambda params: jnp.sum(shares * risks(params)))(params)
        return slope, loss

    risks = _whole_risks(length, noise)._replace(batch=on_batch)
    return Measurement(init, gradient, risks=risks, differentiates_loss=True)


def _checked(
    context_length: int | Array,
    covariance: Covariance,
    task_covariance: Covariance,
    noise: float | Array,
) -> int | Array:
    """The context length; all arguments are checked."""
    checks.number("noise", noise, minimum=0)
    for name, value in (("covariance", covariance), ("task_covariance", task_covariance)):
        check(name, value)
    return checks.whole("context_length", context_length, maximum=LONGEST)


class _Drawn(NamedTuple):
    """The random numbers of n prompts."""

    task: Array  # [n, d] w = W^(1/2) task
    around: Array  # [n, d] g, of the context beside its part along the task
    query: Array  # [n, d] x = S^(1/2) query
    noise: Array  # [n] of the query's label, in units of sigma_y
    square: Array  # [n] Q ~ chi^2_N

    def context(self, whitened: Array, length: int | Array, noise: float | Array) -> Array:
        """S^(-1/2) h [n, d] for the tasks u = S^(1/2) w, [n, d]."""
        squared = jnp.sum(whitened**2, 1)
        tau = jnp.sqrt(squared + noise**2)
        along = jnp.sum(whitened * self.around, 1)
        along = (tau - noise) * along / jnp.where(squared > 0, squared, 1)
        rest = tau[:, None] * self.around - along[:, None] * whitened
        total = self.square[:, None] * whitened + jnp.sqrt(self.square)[:, None] * rest
        return total / length


def _draw(
    key: Key, slab: int, dim: int, length: int | Array, noise: float | Array, dtype: DTypeLike
) -> _Drawn:
    candidates = random.CHI_SQUARE_NORMALS
    numbers = random.normals(key, slab * (3 * dim + 1 + candidates), dtype)
    task, around, query = numbers[: 3 * slab * dim].reshape(3, slab, dim)
    rest = numbers[3 * slab * dim :]
    words = random.bits(key, slab * random.CHI_SQUARE_WORDS, 1)
    square = random.chi_square(
        rest[slab:].reshape(slab, candidates),
        words.reshape(slab, random.CHI_SQUARE_WORDS),
        jnp.broadcast_to(jnp.asarray(length, dtype), (slab,)),
    )
    return _Drawn(task, around, query, rest[:slab], square)


class _Labels(NamedTuple):
    """What the labels of a batch take from the world, in whitened coordinates."""

    task_roots: Array  # [C, d, d] maps `task` to S^(1/2) w as a row; C is 1 or B
    shared: Array  # [C, d, d] W^(1/2) A* S^(1/2)
    tasks: Array  # [C, d, r2] W^(1/2) V
    queries: Array  # [C, d, r2] S^(1/2) V
    cores: Array  # [B, r2, r2]

    @classmethod
    def of(cls, world: World, batch: Batch, inputs: Array, tasks: Array) -> _Labels:
        basis = world.spurious_basis[None]
        shared = linalg.product(linalg.product(tasks, world.invariant[None]), inputs)
        return cls(
            linalg.product(tasks, inputs),
            shared,
            linalg.product(tasks, basis),
            linalg.product(inputs, basis),
            world.spurious_cores[batch.environments],
        )

    def clean(self, drawn: _Drawn, owner: Array) -> Array:
        """The labels w'B_e x [n] without noise."""
        shared = jnp.sum(_per_row(drawn.task, self.shared, owner) * drawn.query, 1)
        task = _per_row(drawn.task, self.tasks, owner)
        query = _per_row(drawn.query, self.queries, owner)
        across = jnp.einsum("ni,eij->nej", task, self.cores, precision="highest")
        return shared + of_owners(jnp.sum(across * query[:, None, :], 2), owner)


def _per_row(rows: Array, matrices: Array, owner: Array) -> Array:
    """Row i times the matrix of its environment: [n, d], [C, d, k] and [n] to [n, k]."""
    if matrices.shape[0] == 1:
        return linalg.product(rows, matrices[0])
    every = jnp.einsum("ni,cij->ncj", rows, matrices, precision="highest")
    chosen = owner[:, None] == jnp.arange(matrices.shape[0])[None, :]
    return jnp.sum(jnp.where(chosen[:, :, None], every, 0), 1)


def _outer_sums(left: Array, right: Array, owner: Array, number: int) -> Array:
    """sum_i left_i right_i' over the examples of each environment, [C, d, d], or over all."""
    if number == 1:
        return linalg.product(left.T, right)[None]
    chosen = owner[None, :] == jnp.arange(number)[:, None]
    return linalg.product(jnp.where(chosen[:, None, :], left.T[None], 0), right[None])


def _whole_risks(length: int | Array, noise: float | Array) -> Risks:
    """The losses of environments over infinitely many prompts."""

    def whole(data: Roots, model: MatrixModel, world: World) -> RiskFunction:
        everyone = jnp.arange(world.probabilities.shape[0])
        return _risks(model, data, world, everyone, length, noise)

    def single(data: Roots, model: MatrixModel, world: World, environment: Array) -> RiskFunction:
        return _risks(model, data, world, environment[None], length, noise)

    return Risks(whole, single=single)


def _risks(
    model: MatrixModel,
    data: Roots,
    world: World,
    environments: Array,
    length: int | Array,
    noise: float | Array,
) -> RiskFunction:
    """E r^2 / 4 of each environment [B], as a sum of squares that does not cancel."""
    require_estimate(model)
    inputs, tasks = data.of(environments)
    signals = world.invariant[None] + jax.vmap(world.spurious)(world.spurious_cores[environments])
    targets = linalg.product(linalg.product(tasks, signals), inputs)
    both = linalg.product(tasks, inputs)
    trace = jnp.sum(both**2, (1, 2))  # tr(S W)

    def risks(params: Params, scale: float | Array = 1.0) -> Array:
        estimate = scale * model.estimate(params)
        inside = linalg.product(linalg.product(inputs, estimate[None]), inputs)
        predicted = linalg.product(both, inside)
        bias = jnp.sum((predicted - targets) ** 2, (1, 2))
        spent = jnp.sum(predicted**2, (1, 2)) + (trace + noise**2) * jnp.sum(inside**2, (1, 2))
        return (bias + spent / length + noise**2) / 4

    return risks
