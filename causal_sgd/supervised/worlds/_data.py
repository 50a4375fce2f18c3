"""Worlds that are a user's rows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable

import jax
import jax.numpy as jnp

from causal_sgd import checks, random
from causal_sgd.supervised._moments import Moments, Rows, used_rows, weighted_moments
from causal_sgd.supervised.worlds._sampled import DrawnMoments
from causal_sgd.types import Array, Key

__all__ = ["DataWorld"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "inputs",
        "labels",
        "starts",
        "counts",
        "second",
        "tests",
        "probabilities",
        "target",
        "causal",
        "center",
        "scale",
        "validation",
        "validation_rows",
        "test_rows",
    ],
    meta_fields=["columns", "environments", "most", "test_environments", "classes"],
)
@dataclasses.dataclass(frozen=True)
class DataWorld(DrawnMoments):
    """A user's rows, sorted by environment; drawn examples are rows with replacement.

    Attributes:
        inputs: [N, p].
        labels: [N].
        starts: the first row of each environment, [E] int32.
        counts: the number of its rows, [E].
        second: its moments, [E, q, q]; None for so many inputs that they are computed on demand.
        tests: the moments of environments that were held out, [T, q, q]; None as above.
        probabilities: how often each environment is drawn, [E].
        target: w* [p]; NaN where it is unknown.
        causal: [p] bool.
        center: what was subtracted from inputs and label, [p + 1].
        scale: by what they were divided afterwards, [p + 1].
        columns: names of the inputs; None where unknown.
        environments: names of the environments.
        most: the number of rows of the largest environment.
        validation: the moments of the rows that are held out of every environment, which are not
            among those above; None for none.
        validation_rows: these rows themselves.
        test_rows: the rows of the environments that were held out, padded to the largest; None
            where there is none.
        test_environments: the names of these environments.
        classes: the different labels, sorted, of training and test; None for more than a few.
    """

    inputs: Array
    labels: Array
    starts: Array
    counts: Array
    second: Array | None
    tests: Array | None
    probabilities: Array
    target: Array
    causal: Array
    center: Array
    scale: Array
    columns: tuple[str, ...] | None
    environments: tuple[Hashable, ...]
    most: int
    validation: Moments | None = None
    validation_rows: Rows | None = None
    test_rows: Rows | None = None
    test_environments: tuple[Hashable, ...] = ()
    classes: tuple[float, ...] | None = None

    @property
    def estimate_shape(self) -> tuple[int, ...]:
        """The shape of an estimate, (p,)."""
        return self.target.shape

    @property
    def unscramble(self) -> Array:
        """The identity [p, p]."""
        return jnp.eye(self.target.shape[0], dtype=self.inputs.dtype)

    @property
    def second_moments(self) -> Array:
        """The moments of z = (x, y, 1) over the rows of every environment, [E, q, q]."""
        if self.second is not None:
            return self.second
        return weighted_moments(self.rows, used_rows(self.rows))

    @property
    def test_moments(self) -> Array:
        """The moments over the rows of the environments that were held out, [T, q, q]."""
        if self.tests is not None:
            return self.tests
        if self.test_rows is None:
            size = self.target.shape[0] + 2
            return jnp.zeros((0, size, size), self.inputs.dtype)
        return weighted_moments(self.test_rows, used_rows(self.test_rows))

    @property
    def rows(self) -> Rows:
        """The rows of every environment, padded to the largest: the data set of a measurement."""
        last = self.counts.astype(jnp.int32)[:, None] - 1
        rows = self.starts[:, None] + jnp.minimum(jnp.arange(self.most)[None], last)
        return Rows(self.inputs[rows], self.labels[rows], self.counts)

    def draw_examples(self, key: Key, environment: Array, size: int) -> tuple[Array, Array]:
        """Rows of one environment with replacement: inputs [n, p] and labels [n].

        Args:
            key: of the draw.
            environment: [] int32.
            size: n.
        """
        count = self.counts[environment].astype(jnp.uint32)
        row = random.bits(key, size) % jnp.full(size, count)
        rows = self.starts[environment] + row.astype(jnp.int32)
        return self.inputs[rows], self.labels[rows]

    def check(self) -> None:
        """Refuse probabilities that do not fit.

        Raises:
            ValueError: if they do not.
        """
        checks.probabilities("world.probabilities", self.probabilities, len(self.environments))
