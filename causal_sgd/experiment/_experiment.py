"""The standard experiment, multi-environment matrix sensing, by names and numbers: one frozen description, one cell.

It is what the command line and the studies speak. Whoever needs another ingredient composes the parts by hand, as the
body of `Experiment.cell` does. Importing this module does not start jax.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal_sgd import checks

if TYPE_CHECKING:
    from causal_sgd.sensing.worlds import WorldFactory
    from causal_sgd.types import Evolution, Measurement, Metric, Model, Sampler, Trace

__all__ = ["CHOICES", "DEFAULT_METRICS", "INTEGER_AXES", "SWEEPABLE", "Experiment"]

CHOICES: dict[str, tuple[str, ...]] = {
    "sampler": ("hetero", "pooled", "cyclic", "shuffled", "block", "sticky", "mixed", "stratified"),
    "measurement": (
        "gaussian-law", "low-rank-law", "population", "streamed", "fixed-design", "rank-one", "completion", "examples"
    ),
    "family": ("two-point", "uniform", "gaussian", "log-normal", "goe", "discrete"),
    "evolution": ("none", "redraw", "drift", "rotate"),
    "algorithm": ("sgd", "fedavg", "fedprox", "scaffold"),
    "optimizer": ("sgd", "momentum", "nesterov", "sgdw", "adam", "adamw", "lion", "sign", "noisy-sgd"),
    "schedule": ("constant", "linear", "cosine", "warm-up"),
    "average": ("none", "moving", "tail"),
    "client_weights": ("examples", "probabilities"),
    "model": ("factored", "diagonal", "signed-diagonal", "asymmetric", "deep", "quadratic", "relu"),
    "basis": ("random", "canonical"),
    "init": ("identity", "gaussian"),
    "trained_layers": ("both", "first"),
}  # fmt: skip
"""What the names in an experiment may be; hyphens and underscores are the same."""

SWEEPABLE = (
    "mean", "spread", "invariant_eigenvalue", "tilt", "learning_rate", "batch_size", "label_noise", "fresh_noise", "init_scale",
    "momentum", "weight_decay", "stay", "block_length", "rotation", "coupling", "renewal", "mean_drift", "turn",
    "accumulate", "clip_norm", "sam_radius", "average_decay",
    "average_start", "local_steps", "proximal", "server_learning_rate",
)  # fmt: skip
"""The numbers that may be axes of one compiled sweep; everything else fixes shapes or functions."""

INTEGER_AXES = ("batch_size", "block_length", "accumulate", "average_start", "local_steps")
"""Those of them that are whole numbers."""

CALLED = {
    "angle": "turn", "decay": "average_decay", "length": "block_length", "negative": "negative_neurons", "noise": "label_noise",
    "probability": "renewal", "radius": "sam_radius", "rate": "mean_drift", "start": "average_start",
}  # fmt: skip
"""What an experiment calls the arguments of parts, in messages about them."""

DEFAULT_METRICS = (
    "invariant_error", "pooled_error", "relative_invariant_error", "relative_pooled_error", "invariant_signal",
    "spurious_signal", "complement_signal", "worst_environment_loss", "batch_loss",
)  # fmt: skip
"""The metrics that cost about as much as a step; the others need a singular value decomposition."""


EQUAL = ("cyclic", "shuffled", "block", "stratified")
"""The samplers that visit all environments equally often, whatever their probabilities."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Multi-environment matrix sensing [Xu, Gu, Fang 2024], described by names and numbers."""

    sampler: str = "hetero"
    """Which environments feed a step: hetero (HeteroSGD), pooled (PooledSGD), cyclic, shuffled, block, sticky, mixed,
    stratified."""
    measurement: str = "gaussian-law"
    """How examples become a gradient: gaussian-law (exact, free of the batch size), low-rank-law (the same for a rank far
    below dim), population, streamed, fixed-design (a finite data set in every environment), rank-one (xx': networks with
    quadratic activations), completion (single entries), examples (inputs and labels, for relu)."""
    model: str = "factored"
    """What is trained: factored (U U'), diagonal (diag(u)^2: the same by population gradients in the canonical basis, at a
    cost of d a step), signed-diagonal (diag(u^2 - v^2)), asymmetric (U V'), deep (a product of depth matrices), quadratic or
    relu (two-layer networks)."""
    family: str = "two-point"
    """Spurious signals: eigenvalues two-point (mean +- spread), uniform (half-width spread), gaussian, log-normal (positive;
    both with deviation spread) or discrete (as given by eigenvalues), or whole goe matrices without a common eigenbasis."""
    algorithm: str = "sgd"
    """sgd (one batch a step), or rounds of local steps in every environment that the sampler names, whose ends are averaged:
    fedavg, fedprox (with a proximal term), scaffold (with control variates)."""
    optimizer: str = "sgd"
    """sgd, momentum, nesterov, sgdw (with weight decay), adam, adamw, lion, sign or noisy-sgd; of the local steps where there
    are any."""
    dim: int = 50
    """Size d of the d x d signals."""
    invariant_rank: int = 3
    """Rank r1 of the shared signal A*."""
    spurious_rank: int = 3
    """Number r2 of spurious directions."""
    mean: float = 1.0
    """Mean of the spurious eigenvalues over the environments."""
    spread: float = 6.0
    """Heterogeneity M: how far the spurious eigenvalues lie from their mean."""
    means: tuple[float, ...] | None = None
    """The mean of each spurious direction, in place of mean."""
    spreads: tuple[float, ...] | None = None
    """The heterogeneity of each spurious direction, in place of spread."""
    eigenvalues: tuple[float, ...] | None = None
    """The spurious eigenvalue of each environment, of the discrete family."""
    rotation: float = 0.0
    """How far each environment turns its spurious eigenbasis: from 0 (the same in all) to 1 (drawn for each)."""
    coupling: float = 1.0
    """What multiplies goe matrices off the diagonal: from 0 (the gaussian family) to 1."""
    evolution: str = "none"
    """How nature changes at every step: none, redraw (environments are drawn anew), drift (the mean moves), rotate (the
    spurious directions turn at random)."""
    renewal: float = 1.0
    """Probability that an environment is drawn anew before a step, of the redraw evolution."""
    mean_drift: float = 0.0
    """How far the spurious mean moves over the run, of the drift evolution."""
    turn: float = 0.01
    """Angle in radians by which the spurious directions turn in a step, of the rotate evolution."""
    invariant_eigenvalue: float = 1.0
    """All eigenvalues of A*, unless an invariant spectrum is given."""
    invariant_spectrum: tuple[float, ...] | None = None
    """The eigenvalues of A*, one for each rank."""
    num_environments: int | None = None
    """How many environments; by default every pattern of signs (two-point), otherwise 100; 1 where all are drawn anew."""
    probabilities: tuple[float, ...] | None = None
    """How often each environment is met; by default equally often."""
    basis: str = "random"
    """Directions of the signals: random or canonical."""
    tilt: float = 0.0
    """Angle in radians by which the spurious directions lean towards the invariant ones."""
    world_file: Path | None = None
    """An .npz file with arrays invariant [d,d], spurious [E,d,d] and, maybe, probabilities [E], in place of a family."""
    learning_rate: float = 0.1
    """Step size of the optimizer."""
    batch_size: int = 1000
    """Examples per batch."""
    num_examples: int = 1000
    """Examples of each environment, of fixed-design; a batch that asks for more ends its run as diverged, or is refused."""
    label_noise: float = 0.0
    """Standard deviation of the noise of the labels."""
    fresh_noise: float = 0.0
    """Standard deviation of noise added to the labels anew in every step, of fixed-design; elsewhere all noise is."""
    trace_correction: bool = True
    """Whether rank-one measurements and examples are centred: X = xx' - I, up to scale, and labels without their mean."""
    rank: int | None = None
    """Columns k of the factors of factored and asymmetric; by default d."""
    depth: int = 3
    """Number of matrices in the product of deep."""
    neurons: int | None = None
    """Neurons of quadratic (by default 2 dim) and relu (by default 32)."""
    negative_neurons: int | None = None
    """Neurons of quadratic whose output counts as negative; by default half of them."""
    trained_layers: str = "both"
    """Layers of relu that are trained: both or first."""
    init_scale: float = 1e-3
    """Scale alpha of the parameters at the start."""
    init: str | None = None
    """Factors at the start: identity (k = d) or gaussian; by default identity where it is possible."""
    momentum: float = 0.9
    """Decay of momentum and nesterov."""
    weight_decay: float = 1e-4
    """Of sgdw, adamw and lion."""
    schedule: str = "constant"
    """Of the learning rate: constant, linear or cosine (both to zero at the end), warm-up (over the first tenth)."""
    accumulate: int = 1
    """Batches whose mean gradient makes one update."""
    clip_norm: float | None = None
    """Gradients with a larger norm are scaled down to it; by default none are."""
    sam_radius: float | None = None
    """How far up the gradient sharpness-aware steps look, by the same batch; by default they are plain."""
    average: str = "none"
    """Of the iterates, which is what is measured: none, moving (exponential) or tail (of all after average-start)."""
    average_decay: float = 0.99
    """Of the moving average."""
    average_start: int = 0
    """Steps that the tail average leaves out."""
    local_steps: int = 5
    """Steps in every environment in a round, of fedavg, fedprox and scaffold."""
    proximal: float = 1.0
    """Strength of the proximal term of fedprox."""
    server_learning_rate: float = 1.0
    """Step size of the server along the mean change of a round; 1 for the mean itself."""
    client_weights: str = "examples"
    """Of the mean of a round: examples (that each environment was given) or probabilities (of the environments)."""
    stay: float = 0.9
    """Probability to stay in an environment, of the sticky sampler."""
    block_length: int = 10
    """Steps in an environment, of the block sampler."""
    environments_per_batch: int = 2
    """Environments in a batch, of the mixed sampler."""
    steps: int = 400
    """Updates in a run; rounds, of fedavg, fedprox and scaffold."""
    record_every: int | None = None
    """Steps between two recorded frames; by default the start and the end only."""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    """What is recorded."""

    def __post_init__(self) -> None:
        """Check the names; the numbers are checked by the parts."""
        for field, options in CHOICES.items():
            value = getattr(self, field)
            if value is not None or field != "init":
                spelled = value.replace("_", "-") if isinstance(value, str) else value
                object.__setattr__(self, field, checks.choice(field, spelled, options))
        if isinstance(self.metrics, str):
            raise ValueError(f"metrics must be a tuple of names, got {self.metrics!r}")
        if self.algorithm != "sgd" and self.schedule != "constant":
            raise ValueError(
                f"schedule must be 'constant' unless algorithm is 'sgd', got {self.schedule!r}: local steps start anew "
                "in every round"
            )
        if self.model in ("diagonal", "signed-diagonal") and (
            self.basis != "canonical"
            or self.tilt
            or self.world_file is not None
            or self.rank is not None
            or self.init
        ):
            raise ValueError(
                "model must be 'factored' unless basis is 'canonical', tilt is 0 and neither world_file, rank nor init "
                f"is given, got '{self.model}': it holds no direction but the coordinates"
            )
        if (self.model == "relu") > (self.measurement == "examples"):
            raise ValueError(
                f"measurement must be 'examples' where model is 'relu', got '{self.measurement}': its predictions are "
                "not linear in a matrix"
            )
        if self.model in ("diagonal", "signed-diagonal") and (
            self.family == "goe" or self.evolution == "rotate" or self.rotation
        ):
            raise ValueError(
                f"model must be 'factored' with goe matrices, rotate or rotation, where nothing is diagonal, got '{self.model}'"
            )
        if (self.family == "discrete") != (self.eigenvalues is not None):
            raise ValueError(
                f"eigenvalues must be given for the discrete family and no other, got {self.eigenvalues}"
            )
        if self.evolution == "redraw" and self.world_file is not None:
            raise ValueError(
                "evolution must not be 'redraw' with a world_file: there is no family to draw from"
            )
        if self.probabilities is not None and self.sampler in EQUAL:
            raise ValueError(
                f"probabilities must not be given with the {self.sampler} sampler, which visits all environments equally "
                f"often, got {self.probabilities}"
            )

    def cell(self) -> Callable[..., Trace]:
        """The experiment as a pure function cell(key, **numbers) -> Trace for `run`, `jit`, `vmap` and `sweep`.

        Any of the numbers in `SWEEPABLE` may be given, traced or not, and takes the place of the experiment's own.

        Raises:
            ValueError: if an argument is out of range (as the parts say), when the cell is called.
        """
        from causal_sgd.experiment import _methods
        from causal_sgd.sensing import metrics
        from causal_sgd.training import run

        checks.integer("steps", self.steps, maximum=2**31 - 1)
        called = CALLED | {
            one: many
            for one, many in (("mean", "means"), ("spread", "spreads"))
            if getattr(self, many)
        }
        if self.invariant_spectrum is None:
            called["invariant_spectrum"] = "invariant_eigenvalue"
        for name in self.metrics:
            checks.choice("metrics", name, metrics.__all__)
        chosen: dict[str, Metric] = {name: getattr(metrics, name) for name in self.metrics}
        file_world = None if self.world_file is None else _file_world(self.world_file)

        def made(key: Any, **numbers: Any) -> Trace:
            values = {name: getattr(self, name) for name in SWEEPABLE} | numbers
            for name in ("tilt", "rotation") if self.model == "diagonal" else ():
                known = checks.concrete(values[name])
                if known is None or known.any():
                    raise ValueError(
                        f"{name} must be 0 with the diagonal model, got {values[name]}"
                    )
            world, dim = file_world or (self._world(values), self.dim)
            model = self._model(values, dim)
            algorithm = _methods.algorithm(
                self,
                values,
                world=world,
                sampler=self._sampler(values),
                measurement=self._measurement(values, model),
                model=model,
                evolve=self._evolution(values, world),
            )
            return run(
                key,
                algorithm=algorithm,
                metrics=chosen,
                num_steps=self.steps,
                record_every=self.record_every,
            )

        def cell(key: Any, **numbers: Any) -> Trace:
            try:
                return made(key, **numbers)
            except ValueError as error:
                name, _, rest = str(error).partition(" ")
                if name not in called:
                    raise
                raise ValueError(f"{called[name]} {rest}") from None

        # `sweep` looks at the signature to name the parameters in its messages.
        parameters = [inspect.Parameter("key", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(self, name))
            for name in SWEEPABLE
        ]
        cell.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        cell.configuration = self.describe()  # pyright: ignore[reportFunctionMemberAccess]  # what a store calls it
        return cell

    def replace(self, **changes: Any) -> Experiment:
        """The experiment with some fields changed."""
        return dataclasses.replace(self, **changes)

    def describe(self) -> dict[str, Any]:
        """The fields as plain values that JSON can hold."""
        return {
            name: str(value)
            if isinstance(value, Path)
            else list(value)
            if isinstance(value, tuple)
            else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def parse(cls, description: dict[str, Any]) -> Experiment:
        """The experiment that `describe` described; fields that are left out have their defaults."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in description.items()
        }
        if values.get("world_file") is not None:
            values["world_file"] = Path(values["world_file"])
        return cls(**values)

    def _world(self, values: dict[str, Any]) -> WorldFactory:
        from causal_sgd.sensing import worlds

        spectrum: Any = values["invariant_eigenvalue"]
        if self.invariant_spectrum is not None:
            spectrum = _array(self.invariant_spectrum)
        options: dict[str, Any] = {
            "dim": self.dim,
            "invariant_rank": self.invariant_rank,
            "spurious_rank": self.spurious_rank,
            "invariant_spectrum": spectrum,
            "probabilities": None if self.probabilities is None else _array(self.probabilities),
            "basis": self.basis,
            "tilt": values["tilt"],
            "rotation": values["rotation"],
        }
        if self.eigenvalues is not None:
            return worlds.discrete(eigenvalues=_array(self.eigenvalues), **options)
        number: Any = self.num_environments
        renewed = self.evolution == "redraw"
        if number is None and (renewed or self.family != "two-point"):
            number = 1 if renewed else 100
        options |= {
            "mean": values["mean"] if self.means is None else _array(self.means),
            "spread": values["spread"] if self.spreads is None else _array(self.spreads),
            "num_environments": number,
        }
        match self.family:
            case "two-point":
                return worlds.two_point(balanced=not renewed, **options)
            case "goe":
                return worlds.goe(coupling=values["coupling"], **options)
            case name:
                return getattr(worlds, name.replace("-", "_"))(**options)

    def _evolution(self, values: dict[str, Any], world: WorldFactory) -> Evolution | None:
        from causal_sgd.sensing import nonstationary

        match self.evolution:
            case "redraw":
                return nonstationary.redraw(world, probability=values["renewal"])
            case "drift":
                return nonstationary.drift(rate=values["mean_drift"] / self.steps)
            case "rotate":
                return nonstationary.rotate(angle=values["turn"])
            case _:
                return None

    def _sampler(self, values: dict[str, Any]) -> Sampler:
        from causal_sgd.training import samplers

        size = values["batch_size"]
        match self.sampler:
            case "block":
                return samplers.block(batch_size=size, length=values["block_length"])
            case "sticky":
                return samplers.sticky(batch_size=size, stay=values["stay"])
            case "mixed":
                return samplers.mixed(
                    batch_size=size, environments_per_batch=self.environments_per_batch
                )
            case name:
                return getattr(samplers, name)(batch_size=size)

    def _measurement(self, values: dict[str, Any], model: Model) -> Measurement:
        from causal_sgd.sensing import measurements

        match self.measurement:
            case "population":
                return measurements.population()
            case "streamed":
                return measurements.streamed(noise=values["label_noise"])
            case "rank-one":
                return measurements.rank_one(
                    noise=values["label_noise"], trace_correction=self.trace_correction
                )
            case "examples":
                return measurements.examples(
                    noise=values["label_noise"], trace_correction=self.trace_correction
                )
            case "completion":
                return measurements.completion(noise=values["label_noise"])
            case "low-rank-law":
                return measurements.low_rank_law(noise=values["label_noise"])
            case "fixed-design":
                size = values[
                    "batch_size"
                ]  # as a promise it only saves time; a swept one cannot give it
                return measurements.fixed_design(
                    num_examples=self.num_examples,
                    noise=values["label_noise"],
                    fresh_noise=values["fresh_noise"],
                    largest_batch=size if isinstance(size, int) else None,
                    symmetric=model.symmetric,
                )
            case _:
                return measurements.gaussian_law(noise=values["label_noise"])

    def _model(self, values: dict[str, Any], dim: int) -> Model:
        from causal_sgd.sensing import models

        scale: Any = values["init_scale"]
        match self.model:
            case "diagonal":
                return models.diagonal(dim=dim, init_scale=scale)
            case "signed-diagonal":
                return models.signed_diagonal(dim=dim, init_scale=scale)
            case "asymmetric":
                return models.asymmetric(dim=dim, rank=self.rank, init_scale=scale, init=self.init)
            case "deep":
                return models.deep(
                    dim=dim, depth=self.depth, init_scale=scale, init=self.init or "identity"
                )
            case "quadratic":
                return models.quadratic(
                    dim=dim, neurons=self.neurons, negative=self.negative_neurons, init_scale=scale
                )
            case "relu":
                neurons = 32 if self.neurons is None else self.neurons
                return models.relu(
                    dim=dim, neurons=neurons, trained_layers=self.trained_layers, init_scale=scale
                )
            case _:
                return models.factored(dim=dim, rank=self.rank, init_scale=scale, init=self.init)


def _file_world(path: Path) -> tuple[WorldFactory, int]:
    import jax

    from causal_sgd.sensing import worlds

    world = worlds.from_file(path)
    return world, jax.eval_shape(world, jax.random.key(0)).invariant_basis.shape[0]


def _array(values: Sequence[float]) -> Any:
    import numpy as np

    return np.asarray(values, float)
