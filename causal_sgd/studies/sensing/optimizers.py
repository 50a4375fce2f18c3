"""Optimisers that are linear in the gradient keep the bias where they are slow enough; sign, Lion and Adam lose it.

HeteroSGD rejects a spurious direction because factors 1 + eta s_e multiply: their logarithms have a mean below the logarithm of their
mean. Momentum at equal learning rate / (1 - momentum) has nearly the same boundary as long as the direction changes slowly against its
memory; with momentum 0.9 and an effective rate of 0.1 it does not, and *no* heterogeneity is rejected: the exponent of its random
2 x 2 matrices is positive everywhere. Averages of the iterates and a warm-up leave the boundary where it is, weight decay
acts like a smaller mean eigenvalue. A decay of the learning rate lets the spurious direction grow again: what counts is the
sum of the exponents over the schedule, which for a cosine moves the boundary out by about sqrt(4/3).

Clipping clips nothing near zero, so that beyond the boundary the direction dies as ever; short of it the environments that pull
up and down cancel at equal length, and the level walks slowly to where SGD's is or above. One would expect sharpness-aware
steps to change little. They reject far more than SGD: their gradient is taken where the signal is smaller by the radius if
the environment wants more of it, and larger if it wants less, a drift towards zero of radius times M that wins wherever the
signal starts below radius M / mu. One would also expect all per-coordinate methods to fail alike. Sign follows the majority: of two
equally likely eigenvalues there is none, and it wanders over all levels that any environment wants (slowly: below rates of
0.03 it has not come far in 2000 steps). Adam with short updates ends near where pooled training does; the longer they are
and the farther apart the environments, the lower. But AdamW with a decay of 0.3 rejects at every rate and without a transition:
the normalised gradient is the ratio of mean to spread over the environments, small for what they disagree about and one for
what they share, so that the decay takes the spurious direction to about (mu - u^2) / M = decay u and leaves the invariant one at 0.99.

(Population gradients, one environment a step with the eigenvalues 1 +- M, in the coordinates of the signals, which per-coordinate
methods depend on. The rate of a normalised method is the length of its updates, as the signals are of size one.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from causal_sgd.studies import Claim

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

MEAN, STEPS, EVERY, TILE = 1.0, 2000, 20, 256
SPREADS = np.arange(0.0, 17.0, 1.0)
RATES = np.geomspace(0.01, 0.2, 6)  # learning rate / (1 - momentum), or the length of an update
SLOW, FAST = 1, 4  # of the rates: 0.018 and 0.11
TINY, SMALL, MIDDLE = (
    1e-7,
    0.1,
    1e-3,
)  # starts: for exponents, for levels, and for the return after a decay
PLAIN = {
    "momentum": 0.0,
    "decay": 0.0,
    "bound": 1e9,
    "radius": 0.0,
    "average": 0.0,
    "cosine": 0.0,
    "warm": 1.0,
}
PROBED = {
    "learning_rate": (float(RATES[SLOW]), float(RATES[FAST])),
    "spread": (3.0, 6.0),
}  # where exponents are measured
BLOWN_UP = 100.0  # levels of which no environment wants a tenth; such a run counts as diverged
FRAMES = (0, 1, 3)  # between which


class Method(NamedTuple):
    """A program, and how its numbers differ from the plain ones."""

    program: str
    numbers: dict[str, float]


METHODS = {
    "SGD": Method("linear", {}),
    "momentum 0.5": Method("linear", {"momentum": 0.5}),
    "momentum 0.9": Method("linear", {"momentum": 0.9}),
    "Nesterov 0.9": Method("nesterov", {"momentum": 0.9}),
    "weight decay 0.3": Method("linear", {"decay": 0.3}),
    "clipping at 0.3": Method("linear", {"bound": 0.3}),
    "average over 100": Method("linear", {"average": 0.99}),
    "warm-up": Method("linear", {"warm": 0.2 * STEPS}),
    "cosine decay": Method("linear", {"cosine": 1.0}),
    "SAM, radius 0.05": Method("linear", {"radius": 0.05}),
    "sign": Method("sign", {}),
    "Lion": Method("lion", {}),
    "Adam": Method("adam", {}),
    "AdamW, decay 0.3": Method("adam", {"decay": 0.3}),
}
NORMALISED = ("sign", "lion", "adam")
EXPONENTS = ("SGD", "momentum 0.5", "momentum 0.9", "Nesterov 0.9")  # of which there is a theory
KEEPING = (
    "SGD", "momentum 0.5", "weight decay 0.3", "clipping at 0.3", "average over 100", "warm-up", "SAM, radius 0.05",
)  # fmt: skip
CLAIMS = {
    f"exponent of {name}": Claim(
        f"{name}: largest deviation of the measured growth rate from the Lyapunov exponent, in standard errors", 0, 4.5,
        "random matrix product",
    )
    for name in EXPONENTS
} | {
    f"kept by {name}": Claim(f"{name}, rate 0.11, M = 6: median spurious power over mu", 0, 0.02, "this study")
    for name in KEEPING
} | {
    "invariant": Claim("least median invariant power of those", 0.6, 1.1, "this study"),
    "slow": Claim("momentum 0.9, rate 0.01, M = 16: median spurious power over mu", 0, 0.05, "Lyapunov exponent"),
    "fast": Claim(
        "momentum 0.9, rate 0.11: least median spurious power over mu at any M", 0.2, np.inf, "Lyapunov exponent"
    ),
    "cosine": Claim(
        "cosine decay: M at which the direction ends where it began, over that of a vanishing sum of exponents",
        0.96, 1.04, "Lyapunov exponent",
    ),
    "SAM": Claim("SAM, rate 0.01, M = 4: median spurious power over that of SGD", 0, 0.05, "this study"),
    "sign": Claim(
        "sign, rate 0.11, M from 4 to 16: mean spurious power over (mu + M) / 3, a uniform law's", 0.7, 1.5, "random walk"
    ),
    "Lion": Claim("Lion: least median spurious power over mu in the diagram", 0.1, np.inf, "this study"),
    "Adam": Claim("Adam, rates up to 0.033, M up to 12: least median spurious power over mu", 0.55, np.inf, "this study"),
    "AdamW": Claim(
        "AdamW, rate 0.01, M = 6: mean spurious power over that of a balance with the decay", 0.6, 1.5,
        "mean over deviation",
    ),
    "AdamW rejects": Claim("AdamW, rate 0.11, M = 8: median spurious power over mu", 0, 0.05, "this study"),
    "AdamW learns": Claim("AdamW: least median invariant power in the diagram", 0.9, 1.1, "this study"),
}  # fmt: skip


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """A diagram from 32 seeds (8 when quick) for every method; exponents from 400 (100), and the return after a decay from 200 (100)."""
    from causal_sgd.sweeps import sweep

    cells = {program: _cell(program) for program in ("linear", "nesterov", *NORMALISED)}

    def swept(name: str, axes: Mapping[str, Any], start: float, seeds: int, label: str) -> Any:
        program, numbers = METHODS[name]
        plain = {} if program == "sign" else {"decay": 0.0} if program in NORMALISED else PLAIN
        fixed = {
            short: [value] for short, value in (plain | numbers | {"init_scale": start}).items()
        }
        found = sweep(
            cells[program], axes={**fixed, **axes}, seeds=seeds, key=key, progress=progress, label=label,
            tile=TILE,  # one tile, one program
        )  # fmt: skip
        return found.squeeze([*fixed], drop=True)

    data = {}
    for name in METHODS:
        frames = swept(
            name, {"learning_rate": RATES, "spread": SPREADS}, SMALL, 8 if quick else 32, name
        )
        last = frames.isel(step=slice(9 * STEPS // (10 * EVERY), None))
        level = (last.spurious_signal**2).mean("step") / MEAN
        learned = (last.invariant_signal**2).mean("step")
        lost = (frames.diverged_at >= 0) | ~(level < BLOWN_UP)
        data[name] = frames[["diverged_at"]].where(~lost, STEPS)
        data[name] = data[name].assign(level=level.where(~lost), learned=learned.where(~lost))
        data[name] = data[name].drop_vars("step", errors="ignore")
    for name in EXPONENTS:
        frames = swept(name, PROBED, TINY, 100 if quick else 400, f"exponent, {name}")
        data[f"exponent of {name}"] = frames.isel(step=list(FRAMES))
    spreads = _cosine_spread() * np.linspace(0.85, 1.15, 7)
    axes = {"learning_rate": [RATES[FAST]], "spread": spreads}
    data["return"] = swept("cosine decay", axes, MIDDLE, 100 if quick else 200, "return").isel(
        step=[-1], learning_rate=0
    )
    return data


def _cell(program: str) -> Any:
    """The cell of all methods that differ in numbers only."""
    import jax.numpy as jnp
    import optax

    from causal_sgd.sensing import measurements, metrics, models, worlds
    from causal_sgd.training import _run, algorithms, optimizers, samplers

    def train(key: Any, spread: Any, init_scale: Any, optimizer: Any, evaluate: Any = None) -> Any:
        algorithm = algorithms.sgd(
            world=worlds.two_point(
                dim=2,
                invariant_rank=1,
                spurious_rank=1,
                mean=MEAN,
                spread=spread,
                basis="canonical",
            ),
            sampler=samplers.hetero(batch_size=1),
            measurement=measurements.population(),
            model=models.diagonal(dim=2, init_scale=init_scale),
            optimizer=optimizer,
            evaluate=evaluate,
        )
        watched = [metrics.spurious_signal, metrics.invariant_signal]
        return _run.run(
            key, algorithm=algorithm, metrics=watched, num_steps=STEPS, record_every=EVERY
        )

    def linear(
        key: Any, *, spread: Any, learning_rate: Any, init_scale: Any, momentum: Any, decay: Any, bound: Any, radius: Any,
        average: Any, cosine: Any, warm: Any,
    ) -> Any:  # fmt: skip
        def schedule(update: Any) -> Any:
            shape = 1 - cosine + cosine * optax.cosine_decay_schedule(1.0, STEPS)(update)
            return learning_rate * (1 - momentum) * shape * jnp.minimum((update + 1) / warm, 1)

        stepper = optax.chain(
            optax.clip_by_global_norm(bound),
            optax.add_decayed_weights(decay),
            optax.sgd(schedule, momentum=momentum, nesterov=program == "nesterov"),
        )
        optimizer = optax.chain(
            optimizers.sam(stepper, radius=radius), optimizers.moving_average(decay=average)
        )
        return train(key, spread, init_scale, optimizer, optimizers.averaged)

    def normalised(
        key: Any, *, spread: Any, learning_rate: Any, init_scale: Any, decay: Any = 0.0
    ) -> Any:
        optimizer = {
            "sign": lambda: optax.sign_sgd(learning_rate),
            "lion": lambda: optax.lion(learning_rate, weight_decay=decay),
            "adam": lambda: optax.adamw(learning_rate, weight_decay=decay),
        }[program]()
        return train(key, spread, init_scale, optimizer)

    return normalised if program in NORMALISED else linear


def _cosine_spread() -> float:
    """The spread at which the exponents along a cosine decay from the fast rate sum to zero."""
    from scipy import optimize

    from causal_sgd import theory

    rates = RATES[FAST] * (1 + np.cos(np.pi * (np.arange(STEPS) + 0.5) / STEPS)) / 2

    def total(spread: float) -> float:
        return float(np.sum(theory.lyapunov_two_point(rates, MEAN, np.full(STEPS, spread))))

    return float(optimize.root_scalar(total, bracket=(1.0, 0.9 / RATES[FAST]), xtol=1e-3).root)


def _balance(spread: float, decay: float) -> float:
    """The u at which the mean of the gradients over their root mean square, which is what Adam follows, equals decay u."""
    from scipy import optimize

    def excess(u: float) -> float:
        mean = MEAN - u * u
        return mean / np.hypot(spread, mean) - decay * u

    return float(optimize.root_scalar(excess, bracket=(0.0, 1.0)).root)


def _exponents(name: str, rates: Any, spreads: Any) -> tuple[np.ndarray, np.ndarray]:
    """Lyapunov exponents [rates, spreads] of a method by the matrices of its momentum, and their standard errors."""
    import jax
    import jax.numpy as jnp

    from causal_sgd import theory

    momentum = METHODS[name].numbers.get("momentum", 0.0)
    eta, spread = jnp.meshgrid(
        jnp.asarray(rates) * (1 - momentum), jnp.asarray(spreads), indexing="ij"
    )

    def one(eta: Any, spread: Any) -> theory.TopExponent:
        eigenvalues = MEAN + spread * jnp.array([1.0, -1.0])
        matrices = theory.momentum_factors(
            eta, momentum, eigenvalues, nesterov=name.startswith("Nesterov")
        )
        return theory.top_exponent(
            lambda key: matrices[jax.random.randint(key, (), 0, 2)],
            key=jax.random.key(0),
            num_steps=1000,
        )

    top = jax.jit(jax.vmap(one))(eta.ravel(), spread.ravel())
    return np.asarray(top.exponent).reshape(eta.shape), np.asarray(top.standard_error).reshape(
        eta.shape
    )


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Exponents against theory, and levels at a few places of the diagrams."""
    from causal_sgd.analysis import growth_rate, level_crossing

    found = {}
    for name in EXPONENTS:
        measured = growth_rate(data[f"exponent of {name}"]).transpose("learning_rate", "spread")
        exact, error = _exponents(name, PROBED["learning_rate"], PROBED["spread"])
        error = np.hypot(measured.standard_error.values, error)
        found[f"exponent of {name}"] = float(np.max(np.abs(measured.rate.values - exact) / error))
    medians = {name: data[name].level.median("seed") for name in METHODS}
    place = {"learning_rate": FAST, "spread": 6}
    kept = {f"kept by {name}": float(medians[name].isel(place)) for name in KEEPING}
    crossing = level_crossing(data["return"], "spurious_signal", along="spread", level=MIDDLE)
    wandering = data["sign"].level.isel(learning_rate=FAST, spread=slice(4, None)).mean("seed")
    wandering = wandering / ((MEAN + SPREADS[4:]) / (3 * MEAN))
    decayed = data["AdamW, decay 0.3"]
    return found | kept | {
        "invariant": min(float(data[name].learned.median("seed").isel(place)) for name in KEEPING),
        "slow": float(medians["momentum 0.9"].isel(learning_rate=0, spread=-1)),
        "fast": float(medians["momentum 0.9"].isel(learning_rate=FAST).min()),
        "cosine": float(crossing) / _cosine_spread(),
        "SAM": float((medians["SAM, radius 0.05"] / medians["SGD"]).isel(learning_rate=0, spread=4)),
        "sign": float(wandering.mean()),
        "Lion": float(medians["Lion"].min()),
        "Adam": float(medians["Adam"].isel(learning_rate=slice(3), spread=slice(13)).min()),
        "AdamW": float(decayed.level.isel(learning_rate=0, spread=6).mean("seed")) * MEAN / _balance(6.0, 0.3) ** 2,
        "AdamW rejects": float(decayed.level.isel(learning_rate=FAST, spread=8).median("seed")),
        "AdamW learns": float(decayed.learned.median("seed").min()),
    }  # fmt: skip


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """A diagram for each method, with the line where its own exponent is zero, or else SGD's."""
    from matplotlib import pyplot as plt
    from matplotlib.colors import Normalize

    from causal_sgd import figures, theory
    from causal_sgd.figures import _theme

    drawing, grid = plt.subplots(3, 5, figsize=(12.0, 7.4), sharex=True, sharey=True)
    panels = grid.ravel()
    shared = Normalize(0, 1.5)
    dense = np.geomspace(RATES[0], RATES[-1], 60)
    sgd = np.asarray(theory.critical_spread(dense, MEAN))
    diagrams = []
    for ax, name in zip(panels, METHODS, strict=False):
        linear = METHODS[name].program not in NORMALISED
        curve = {"SGD's boundary": (sgd, dense)} if linear else None
        diagram = figures.phase_diagram(
            ax, data[name], "level", x="spread", y="learning_rate", logy=True, norm=shared, colorbar=False, legend=False,
            theory=curve,
        )  # fmt: skip
        diagrams.append(diagram)
        if name in EXPONENTS[1:]:
            spreads = np.linspace(0.5, SPREADS[-1], 24)
            exponents, _ = _exponents(name, RATES, spreads)
            ax.contour(spreads, RATES, exponents, [0.0], colors="tab:red", linewidths=1.6)
        ax.set_title(name)
        ax.set(xlabel="", ylabel="")
    for ax in grid[2]:
        ax.set_xlabel("spread $M$")
    for ax, label in zip(
        grid[:, 0], ["effective rate", "effective rate", "length of an update"], strict=True
    ):
        ax.set_ylabel(label)
    panels[-1].axis("off")
    panels[-1].plot([], [], color="white", **_theme.outline(1.6), label="$\\lambda = 0$ of SGD")
    panels[-1].plot([], [], color="tab:red", label="$\\lambda = 0$ of its own matrices")
    panels[-1].legend(frameon=False, loc="center")
    drawing.colorbar(
        diagrams[0].mesh,
        ax=list(panels),
        label="mean $|V^\\top U|^2 / \\mu$",
        extend="max",
        pad=0.01,
    )
    return drawing
