"""Bad input gets one clear error that names the argument, before anything is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

from causal_sgd import analysis, sweeps, theory
from causal_sgd.analysis import _summaries
from causal_sgd.experiment import Experiment
from causal_sgd.figures import Runs, explorer
from causal_sgd.sensing import measurements, metrics, models, nonstationary, worlds
from causal_sgd.sweeps import compare, sweep, use_cpu_cores, zipped
from causal_sgd.training import algorithms, optimizers, run, samplers, time_average
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Batch, Sampler

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RANKS = {"dim": 6, "invariant_rank": 2, "spurious_rank": 1}


def world(**changes):
    return worlds.two_point(**(RANKS | changes))


def algorithm(**changes):
    options = {
        "world": world(),
        "sampler": samplers.hetero(batch_size=10),
        "measurement": measurements.population(),
        "model": models.factored(dim=6),
        "optimizer": optax.sgd(0.1),
    }
    return sgd(**(options | changes))


def federated(method=algorithms.fedavg, **options):
    return method(
        world=world(),
        sampler=samplers.hetero(batch_size=10),
        measurement=measurements.population(),
        model=models.factored(dim=6),
        optimizer=optax.sgd(0.1),
        **options,
    )


def one_run(**changes):
    options = {"algorithm": algorithm(), "metrics": [metrics.spurious_signal], "num_steps": 2}
    return run(**({"key": jax.random.key(0)} | options | changes))


def cell(key, *, spread, learning_rate=0.1):
    return Experiment(**RANKS, steps=2, metrics=("spurious_signal",)).cell()(
        key, spread=spread, learning_rate=learning_rate
    )


def counting(counts):
    batch = Batch(jnp.arange(len(counts)), jnp.asarray(counts))
    return Sampler(lambda key, p: (), lambda key, step, state: (batch, state), 10)


RESULTS = xr.Dataset({"loss": ("seed", [1.0, 2.0]), "diverged_at": ("seed", [-1, -1])})
VECTORS = RESULTS.assign(loss=(("seed", "loss_0"), np.ones((2, 3))))
REFINED = {"spread": [1.0, 2.0], "learning_rate": [0.1, 0.2]}
ASYMMETRIC = np.triu(np.ones((3, 3)))
TABLE = [
    (lambda: world(dim=0), "dim must be a whole number, at least 1"),
    (lambda: models.diagonal(dim=0), "dim must be a whole number, at least 1"),
    (lambda: models.diagonal(dim=3, init_scale=0.0), "init_scale must be a finite number above 0"),
    (
        lambda: models.signed_diagonal(dim=3, init_scale=0.0),
        "init_scale must be a finite number above 0",
    ),
    (
        lambda: models.asymmetric(dim=3, rank=2, init="identity"),
        "init must be 'gaussian' unless rank equals dim",
    ),
    (lambda: models.deep(dim=3, depth=0), "depth must be a whole number, at least 1"),
    (lambda: models.deep(dim=3, init="zero"), "init must be one of identity, gaussian"),
    (
        lambda: models.quadratic(dim=3, neurons=4, negative=5),
        "negative must be .* at most 4, got 5",
    ),
    (lambda: models.relu(dim=3, neurons=5), "neurons must be an even number"),
    (
        lambda: models.relu(dim=3, trained_layers="last"),
        "trained_layers must be one of both, first",
    ),
    (lambda: measurements.rank_one(noise=-1.0), "noise must be a finite number at least 0"),
    (lambda: measurements.completion(slab_size=0), "slab_size must be a whole number"),
    (lambda: measurements.examples(slab_size=0), "slab_size must be a whole number"),
    (lambda: Experiment(model="relu"), "measurement must be 'examples' where model is 'relu'"),
    (
        lambda: Experiment(model="signed-diagonal"),
        "basis must be 'canonical' where model is 'signed-diagonal', got 'random'",
    ),
    (lambda: Experiment(model="diagonal"), "basis must be 'canonical' where model is 'diagonal'"),
    (
        lambda: Experiment(model="diagonal", basis="canonical", rank=2),
        "rank must not be given where model is 'diagonal', got 2",
    ),
    (lambda: world(dim=2.5), "dim must be a whole number"),
    (lambda: world(invariant_rank=7), "invariant_rank must be .* at most 6"),
    (
        lambda: world(invariant_rank=4, spurious_rank=3),
        r"invariant_rank \+ spurious_rank must be at most dim \(6\)",
    ),
    (lambda: world(spread=-1), "spread must be a finite number at least 0, got -1"),
    (lambda: world(spread=np.nan), "spread must be a finite number"),
    (lambda: world(mean=np.inf), "mean must be a finite number"),
    (lambda: world(mean="one"), "mean must be a finite number, got 'one'"),
    (
        lambda: world(basis="randon"),
        "basis must be one of random, canonical, got 'randon'; did you mean 'random'",
    ),
    (
        lambda: world(invariant_spectrum=[1.0, 2.0, 3.0]),
        r"invariant_spectrum must .* \(2,\), got shape \(3,\)",
    ),
    (lambda: world(invariant_spectrum=-1.0), "invariant_spectrum must be a finite number above 0"),
    (lambda: world(probabilities=[0.5, 0.6]), "probabilities must sum to one"),
    (lambda: world(probabilities=[1.0]), r"probabilities must .* shape \(2,\), got shape \(1,\)"),
    (lambda: world(probabilities=[1.5, -0.5]), "probabilities must be a finite number at least 0"),
    (lambda: world(num_environments=3), "num_environments must be even"),
    (
        lambda: worlds.two_point(dim=20, invariant_rank=1, spurious_rank=7),
        "num_environments must be given",
    ),
    (
        lambda: worlds.uniform(**RANKS, num_environments=0),
        "num_environments must be a whole number",
    ),
    (
        lambda: world(mean=[1.0, 2.0]),
        r"mean must be a number or have shape \(1,\), got shape \(2,\)",
    ),
    (
        lambda: world(rotation=1.5),
        "rotation must be a finite number at least 0 and at most 1, got 1.5",
    ),
    (
        lambda: worlds.log_normal(**RANKS, num_environments=3, mean=0.0),
        "mean must be a finite number above 0",
    ),
    (
        lambda: worlds.goe(**RANKS, num_environments=3, coupling=-0.1),
        "coupling must be .* at least 0",
    ),
    (
        lambda: worlds.discrete(**RANKS, eigenvalues=np.ones((3, 2))),
        r"eigenvalues must have shape \[E\] or \[E, 1\]",
    ),
    (
        lambda: worlds.discrete(**RANKS, eigenvalues=[]),
        r"one row per environment, got shape \(0,\)",
    ),
    (
        lambda: nonstationary.redraw(world(), probability=2),
        "probability must be .* at most 1, got 2",
    ),
    (lambda: nonstationary.drift(rate=np.inf), "rate must be a finite number"),
    (
        lambda: nonstationary.drift(rate=np.ones(2))(
            jax.random.key(0), jnp.asarray(0), world()(jax.random.key(0))
        ),
        r"rate must be a number or have shape \(1,\)",
    ),
    (lambda: nonstationary.rotate(angle=-0.1), "angle must be a finite number at least 0"),
    (
        lambda: algorithm(
            measurement=measurements.fixed_design(num_examples=9),
            evolve=nonstationary.drift(rate=0.1),
        ),
        "evolve must be None with a measurement whose labels were drawn once",
    ),
    (
        lambda: Experiment(family="discrete"),
        "eigenvalues or deviations must be given where family is 'discrete'",
    ),
    (
        lambda: Experiment(sampler="cyclic", probabilities=(0.5, 0.5)),
        "probabilities must not be given where sampler is 'cyclic'",
    ),
    (lambda: worlds.from_arrays(ASYMMETRIC, np.zeros((1, 3, 3))), "invariant must be symmetric"),
    (lambda: worlds.from_arrays(np.eye(3), ASYMMETRIC[None]), "spurious must be symmetric"),
    (
        lambda: worlds.from_arrays(np.eye(3), np.zeros((1, 2, 2))),
        r"spurious must have shape \[E, 3, 3\]",
    ),
    (
        lambda: worlds.from_arrays(np.zeros((3, 3)), np.zeros((1, 3, 3))),
        "invariant must not be zero",
    ),
    (lambda: worlds.from_file("nowhere.npz"), "world file must be an .npz archive"),
    (lambda: samplers.hetero(batch_size=0), "batch_size must be a finite number at least 1"),
    (lambda: samplers.hetero(batch_size=1.5), "batch_size must be a whole number"),
    (lambda: samplers.block(batch_size=10, length=0), "length must be"),
    (lambda: samplers.sticky(batch_size=10, stay=1.0), "stay must be below 1"),
    (
        lambda: samplers.mixed(batch_size=10, environments_per_batch=0),
        "environments_per_batch must be",
    ),
    (lambda: measurements.gaussian_law(noise=-0.1), "noise must be a finite number at least 0"),
    (lambda: measurements.streamed(slab_size=0), "slab_size must be a whole number"),
    (
        lambda: models.factored(dim=6, rank=2, init="identity"),
        "init must be 'gaussian' unless rank equals dim",
    ),
    (lambda: models.factored(dim=6, init_scale=0.0), "init_scale must be a finite number above 0"),
    (lambda: models.factored(dim=6, init="identty"), "did you mean 'identity'"),
    (lambda: one_run(num_steps=0), "num_steps must be a whole number, at least 1"),
    (lambda: one_run(num_steps=2**31), "num_steps must be .* at most 2147483647"),
    (lambda: one_run(record_every=0), "record_every must be a whole number, at least 1"),
    (lambda: one_run(metrics=[]), "metrics must name at least one"),
    (lambda: one_run(metrics=[metrics.batch_loss] * 2), "metrics must have different names"),
    (lambda: time_average(one_run(), after=1.0), "after must leave at least one"),
    (
        lambda: one_run(algorithm=algorithm(sampler=counting([4, 5]))),
        r"counts must be at least 0 and sum .*\(10\), got \[4",
    ),
    (
        lambda: one_run(algorithm=algorithm(sampler=counting([11, -1]))),
        "counts must be at least 0",
    ),
    (
        lambda: sweep(cell, axes={"spread": [1.0]}, seeds=0),
        "seeds must be a whole number, at least 1",
    ),
    (lambda: sweep(cell, axes={"spread": [1.0]}, seeds=[1, 1]), "seeds must be different"),
    (
        lambda: sweep(cell, axes={"spread": []}),
        "axis 'spread' must be a non-empty list of finite numbers",
    ),
    (lambda: sweep(cell, axes={"spread": [1.0, np.nan]}), "axis 'spread' must be"),
    (
        lambda: sweep(cell, axes={"spraed": [1.0]}),
        "axes must be parameters of the cell .* did you mean 'spread'",
    ),
    (lambda: sweep(cell, axes={"learning_rate": [1.0]}), "'spread' is missing"),
    (
        lambda: sweep(cell, axes={"spread": [1.0], "pair": zipped(spread=[1.0])}),
        "'spread' more than once",
    ),
    (
        lambda: sweep(cell, axes={"spread": [3.0, -1.0, 2.0]}),
        "spread must be a finite number at least 0, got -1",
    ),
    (lambda: sweep(cell, axes={"spread": [1.0]}, memory=100), "memory must hold at least one run"),
    (lambda: sweep(cell, axes={"spread": [1.0]}, tile=0), "tile must be"),
    (
        lambda: sweep(cell, axes={"spread": [1.0]}, key="zero"),
        "key must be a whole number or one typed key",
    ),
    (lambda: zipped(mean=[1.0], spread=[1.0, 2.0]), "zipped parameters must have one length"),
    (lambda: compare({}), "cells must name at least one"),
    (lambda: use_cpu_cores(0), "count must be"),
    (lambda: Experiment(sampler="heter"), "sampler must be one of .*did you mean 'hetero'"),
    (lambda: Experiment(optimizer="adan"), "did you mean 'adam'"),
    (lambda: Experiment(algorithm="fedavgg"), "did you mean 'fedavg'"),
    (
        lambda: Experiment(algorithm="fedavg", schedule="cosine"),
        "schedule must be 'constant' where algorithm is 'fedavg'",
    ),
    (lambda: federated(local_steps=0), "local_steps must be a finite number at least 1"),
    (lambda: federated(local_steps=1.5), "local_steps must be a whole number, got 1.5"),
    (lambda: federated(weights="equal"), "weights must be one of examples, probabilities"),
    (
        lambda: federated(algorithms.fedprox, proximal=-1.0),
        "proximal must be a finite number at least 0",
    ),
    (
        lambda: optimizers.sam(optax.sgd(0.1), radius=-1.0),
        "radius must be a finite number at least 0",
    ),
    (lambda: optimizers.moving_average(decay=1.0), "decay must be below 1"),
    (lambda: optimizers.scaled(damping=-1.0), "damping must be a finite number at least 0"),
    (
        lambda: optimizers.langevin(0.1, temperature=-1.0),
        "temperature must be a finite number at least 0",
    ),
    (lambda: optimizers.tail_average(start=-1), "start must be a finite number at least 0"),
    (lambda: Experiment(metrics=("loss",)).cell(), "metrics must be one of"),
    (
        lambda: sweep(Experiment(**RANKS, learning_rate=-1.0).cell()),
        "learning_rate must be a finite number above 0",
    ),
    (
        lambda: sweep(Experiment(**RANKS).cell(), axes={"dim": [2, 3]}),
        "dim must not be swept unless model is 'order-parameters'",
    ),
    (
        lambda: algorithm(world=worlds.two_point),
        "world must be .*got the function two_point; call it",
    ),
    (lambda: algorithm(world=None), "world must be a function key -> World, such as .*, got None"),
    (
        lambda: algorithm(sampler=samplers.hetero),
        "sampler must be a Sampler, .*got the function hetero; call it",
    ),
    (
        lambda: algorithm(measurement="streamed"),
        "measurement must be a Measurement, such as .*, got 'streamed'",
    ),
    (lambda: algorithm(model=models.factored), "model must be a Model, such as .*; call it"),
    (
        lambda: algorithm(optimizer=optax.sgd),
        "optimizer must be an optax transformation, .*; call it",
    ),
    (lambda: algorithm(evolve=0.1), "evolve must be None or an Evolution, .*got 0.1"),
    (lambda: algorithm(evaluate="average"), "evaluate must be None or a function"),
    (lambda: federated(server="sgd"), "server must be an optax transformation"),
    (lambda: federated(local_steps=1e30), "local_steps must be .* at most 1.07374e"),
    (lambda: samplers.block(batch_size=10, length=1.5), "length must be a whole number, got 1.5"),
    (lambda: samplers.block(batch_size=10, length=1e30), "length must be .* at most 1.07374e"),
    (lambda: optimizers.sam(optax.sgd, radius=0.1), "optimizer must be an optax transformation"),
    (lambda: nonstationary.redraw(worlds.two_point), "world must be .*; call it"),
    (lambda: one_run(algorithm=world()), "algorithm must be an Algorithm, such as sgd"),
    (
        lambda: one_run(metrics="spurious_signal"),
        r"metrics must be functions of a snapshot, .*got 'spurious_signal'",
    ),
    (lambda: one_run(metrics=metrics.spurious_signal), "metrics must be functions of a snapshot"),
    (lambda: one_run(metrics=["spurious_signal"]), "metrics must be functions of a snapshot"),
    (lambda: one_run(key=0), r"key must be one random key, such as jax.random.key\(0\), got 0"),
    (
        lambda: one_run(key=jax.random.split(jax.random.key(0))),
        r"key must be .*of shape \(2,\); jax.vmap",
    ),
    (lambda: time_average(None), "trace must be the Trace that `run` returns, got None"),
    (
        lambda: sweep(Experiment(**RANKS)),
        r"cell must be a function .*got a Experiment; pass what its .cell\(\) returns",
    ),
    (
        lambda: sweep(cell, axes=[("spread", [1.0])]),
        "axes must be a mapping of parameter names to their values",
    ),
    (
        lambda: sweep(cell, axes={"spread": [1.0]}, seeds=10**30),
        "seeds must be .* at most 4294967295",
    ),
    (
        lambda: sweep(cell, axes={"spread": [1.0]}, key=2**32),
        "key must be .* at most 4294967295, got 4294967296",
    ),
    (
        lambda: sweep(cell, axes={"spread": [1.0]}, devices="cpu"),
        "devices must be a list of devices",
    ),
    (lambda: compare([cell]), "cells must be a mapping of names to cells"),
    (
        lambda: compare({"a": cell}, dim="spread", axes={"spread": [1.0]}),
        "dim must not be one of seed, step, spread",
    ),
    (lambda: Experiment(sampler=None), "sampler must be one of .*got None"),
    (
        lambda: Experiment(metrics="batch_loss"),
        "metrics must be a tuple of names, got 'batch_loss'",
    ),
    (
        lambda: _summaries.final(None),
        "dataset must be an xarray.Dataset as `sweep` returns it, got None",
    ),
    (lambda: _summaries.summary(xr.DataArray([1.0]), "loss"), "dataset must be an xarray.Dataset"),
    (lambda: _summaries.summary(RESULTS, "loss", 0.5), "quantiles must be a pair with 0 <= low"),
    (
        lambda: analysis.rejecting_fraction(RESULTS[["loss"]], "loss", level=1.0),
        "dataset must have diverged_at",
    ),
    (
        lambda: analysis.rejecting_fraction(VECTORS, "loss", level=1.0),
        "metric must have one number per run and frame, got 'loss'",
    ),
    (lambda: analysis.growth_rate(RESULTS, "loss"), "dataset must have at least three frames"),
    (
        lambda: sweeps.refine(cell, axes=REFINED, metric="loss", level=1.0),
        "metric must be one of spurious_signal",
    ),
    (lambda: Runs(RESULTS[["loss"]]).plot(), "dataset must have diverged_at"),
    (lambda: explorer.page([RESULTS]), "datasets must be the dataset of a sweep, or a mapping"),
    (lambda: theory.critical_spread([0.1], 1.0, ["two_point"]), "family must be a name"),
    (
        lambda: theory.critical_spread(np.ones(2), np.ones(3)),
        r"broadcast against each other, got \[\(2,\), \(3,\)\]",
    ),
    (
        lambda: theory.critical_mass(0.1, [1.0], outlier="low"),
        "outlier must be a finite number, got 'low'",
    ),
    (lambda: theory.critical_spread(jax.random.key(0), 1.0), "learning_rate must be a finite"),
    (lambda: theory.critical_spread([[0.1], [0.1, 0.2]], 1.0), "learning_rate must be a finite"),
    (lambda: theory.critical_spread_of(lambda spread: 1, highest=2.0), "exponent must return"),
    (lambda: metrics.spurious_signal(RESULTS), "snapshot must be a Snapshot"),
    (lambda: analysis.laminar_phases("x", 0.5), "signal must be an array of real numbers, got 'x'"),
    (lambda: analysis.nan_quantiles([1j], 0.5), "values must have real numbers"),
    (lambda: theory.top_exponent(None, key=jax.random.key(0)), "draw must be a function key"),
    (lambda: theory.top_exponent(lambda key: jnp.eye(2), key=0), "key must be one random key"),
]


@pytest.mark.parametrize(("call", "message"), TABLE, ids=[message[:40] for _, message in TABLE])
def test_one_clear_value_error(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_batch_of_too_many_environments_shows_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"B from 1 to 2 environments, got \[3\] and \[3\]"):
        one_run(algorithm=algorithm(sampler=counting([4, 3, 3])))


def test_an_estimate_of_the_wrong_shape_shows_both_shapes() -> None:
    with pytest.raises(AssertionError, match=r"(?s)\(5, 5\).*\(6, 6\)"):
        one_run(algorithm=algorithm(model=models.factored(dim=5)))


def test_nothing_is_compiled_for_a_bad_axis(monkeypatch) -> None:
    from causal_sgd.sweeps._programs import Program

    monkeypatch.setattr(Program, "compile", lambda *args: pytest.fail("compiled"))
    with pytest.raises(ValueError, match="spread"):
        sweep(cell, axes={"spread": [1.0, -1.0]})


def test_a_pickle_is_not_opened(tmp_path) -> None:
    np.savez(
        tmp_path / "world.npz", invariant=np.array([object()], object), spurious=np.zeros((1, 2, 2))
    )
    with pytest.raises(ValueError, match="world file must be an .npz archive of plain arrays"):
        worlds.from_file(tmp_path / "world.npz")


def test_theory_takes_lists() -> None:
    settings = {"batch_size": 100, "dim": 10, "invariant_rank": 2, "spurious_rank": 2}
    values = theory.expected_error([3.0, 5.0], learning_rate=0.1, mean=1.0, **settings)
    np.testing.assert_array_equal(
        values, theory.expected_error(np.array([3.0, 5.0]), learning_rate=0.1, mean=1.0, **settings)
    )
