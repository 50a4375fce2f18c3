"""What the worlds of this system have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from causal_sgd.types import Array, Key

__all__ = ["SupervisedWorld", "WorldFactory"]


class SupervisedWorld(Protocol):
    """Environments with inputs [p] and labels; each kind of world is a pytree with these members.

    Inputs may be scrambled, x = rotation' z of the original inputs z; `target` is in the
    coordinates of the data and `causal` in the original ones. Worlds that are data and keep
    their examples have one more member, `rows` (`supervised._moments.Rows`), which
    `measurements.examples` reads.
    """

    @property
    def probabilities(self) -> Array:
        """How often each environment is drawn, [E]; sums to one."""
        ...

    @property
    def estimate_shape(self) -> tuple[int, ...]:
        """The shape of an estimate, (p,)."""
        ...

    @property
    def target(self) -> Array:
        """w* [p], the invariant predictor of the data's inputs; NaN where it is unknown."""
        ...

    @property
    def causal(self) -> Array:
        """Which of the original inputs the label depends on, [p] bool."""
        ...

    @property
    def unscramble(self) -> Array:
        """[p, p], orthogonal: `unscramble @ estimate` is in the original coordinates."""
        ...

    @property
    def second_moments(self) -> Array:
        """The population's moments of z = (x, y, 1) in every environment, [E, q, q].

        Raises:
            ValueError: if only samples of this world are known.
        """
        ...

    @property
    def test_moments(self) -> Array:
        """The population's moments in every test environment, [T, q, q]; T may be 0."""
        ...

    @property
    def counts(self) -> Array | None:
        """How many examples the moments of each environment rest upon, [E]; None for a law."""
        ...

    @property
    def gaussian(self) -> bool:
        """Whether (x, y) is Gaussian in every environment; static."""
        ...

    def draw_moments(self, key: Key, environments: Array, counts: Array) -> Array:
        """Moments of fresh samples of some environments, by their exact law.

        Args:
            key: of the draw; environment b uses a key of its own.
            environments: [B] int32.
            counts: examples of each, [B]; may be traced.

        Returns:
            [B, q, q]; zero for an environment without examples.
        """
        ...

    def draw_examples(self, key: Key, environment: Array, size: int) -> tuple[Array, Array]:
        """Fresh examples of one environment.

        Args:
            key: of the draw.
            environment: [] int32.
            size: their number n, static.

        Returns:
            Inputs [n, p] and labels [n].
        """
        ...


WorldFactory = Callable[[Key], SupervisedWorld]
"""How the world of a run is drawn: a pure function of a key."""
