"""Simulate diagonal networks in plain NumPy: the intervals of the study `diagonal-networks`.

Run `python benchmarks/plain_networks.py`; `--designs` changes the size. Nothing of the package is
used. Each line has the number over all designs, and the 0.05 % and 99.95 % quantiles of that of
`--study` designs, by resampling. About a quarter of a minute on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np

DIM, EXAMPLES, SPARSITY, ALPHA = 30, 20, 3, 0.3
TARGET = np.repeat([1.0, 0.0], [SPARSITY, DIM - SPARSITY])
RUNS = {  # learning rate, steps; full batches or single examples
    "descent": ((0.1, 8000), (0.6, 8000)),
    "single": ((0.02, 40_000), (0.1, 40_000)),
}


def trained(
    random: np.random.Generator, inputs: np.ndarray, rate: float, steps: int, single: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Errors [K] and gains [K, d] of beta = u^2 - v^2 on designs [K, n, d].

    They are NaN for runs that have not converged.
    """
    number = len(inputs)
    second = np.einsum("kni,knj->kij", inputs, inputs) / EXAMPLES
    u = np.full((number, DIM), ALPHA / 2**0.5)
    v, every = u.copy(), np.arange(number)
    for _ in range(steps):
        off = u**2 - v**2 - TARGET
        if single:
            x = inputs[every, random.integers(0, EXAMPLES, number)]
            g = x * (x * off).sum(1)[:, None]
        else:
            g = np.matmul(second, off[:, :, None])[:, :, 0]
        u, v = u * (1 - rate * g), v * (1 + rate * g)
    off = u**2 - v**2 - TARGET
    residual = np.abs(np.einsum("kni,ki->kn", inputs, off)).max(1)
    gain = np.log(ALPHA**2) - np.log(2 * np.abs(u * v))
    lost = ~(residual < 0.1)
    return np.where(lost, np.nan, np.linalg.norm(off, axis=1)), np.where(
        lost[:, None], np.nan, gain
    )


def show(name: str, number: Callable[[np.ndarray], float], designs: int, study: int) -> None:
    """Print a number of all designs, and its range over resampled ones."""
    random = np.random.default_rng(0)
    values = [number(random.choice(designs, study)) for _ in range(4000)]
    low, high = np.quantile(values, (0.0005, 0.9995))
    print(f"{name}: {number(np.arange(designs)):.4g}, {low:.4g} to {high:.4g}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the shapes of the gain and the ratios of errors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--designs", type=int, default=512)
    parser.add_argument("--study", type=int, default=32, help="designs of the study")
    options = parser.parse_args(arguments)
    random = np.random.default_rng(7)
    inputs = random.standard_normal((options.designs, EXAMPLES, DIM))
    for name, settings in RUNS.items():
        with np.errstate(all="ignore"):
            (first, gain), (last, _) = (
                trained(random, inputs, rate, steps, name == "single") for rate, steps in settings
            )

        def shape(chosen: np.ndarray, gain: np.ndarray = gain) -> float:
            return float(np.nanmean(gain[chosen, :SPARSITY]) / np.nanmean(gain[chosen, SPARSITY:]))

        def ratio(chosen: np.ndarray, ratios: np.ndarray = last / first) -> float:
            return float(np.nanmedian(ratios[chosen]))

        small, large = (rate for rate, _ in settings)
        label = f"{name}, gain on over off the support at {small:g}"
        show(label, shape, options.designs, options.study)
        label = f"{name}, error at {large:g} over that at {small:g}"
        show(label, ratio, options.designs, options.study)


if __name__ == "__main__":
    main()
