"""An experiment by names and numbers: spelling, conflicts, fields without effect, sweeps."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from causal_sgd.experiment import Experiment
from causal_sgd.sweeps import sweep

SMALL = {"dim": 4, "invariant_rank": 1, "spurious_rank": 1, "steps": 4}


def test_hyphens_and_underscores_are_the_same() -> None:
    experiment = Experiment(
        family="log_normal", measurement="low_rank_law", metrics=("singular-values",)
    )
    assert experiment.family == "log-normal"
    assert experiment.measurement == "low-rank-law"
    assert experiment.metrics == ("singular_values",)
    assert experiment == Experiment.parse(experiment.describe())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "diagonal"}, "basis must be 'canonical' where model is 'diagonal', got"),
        (
            {"model": "diagonal", "basis": "canonical", "family": "goe"},
            "family must not be 'goe' where model is 'diagonal', got 'goe'",
        ),
        (
            {"model": "diagonal", "basis": "canonical", "tilt": 0.1},
            "tilt must be 0 where model is 'diagonal', got 0.1",
        ),
        ({"eigenvalues": (1.0,)}, "eigenvalues must not be given where family is 'two-point'"),
        (
            {"evolution": "redraw", "world_file": "a.npz"},
            "world_file must not be given where evolution is 'redraw'.*no family to draw from",
        ),
        ({"world_file": 3}, "world_file must be the path of an .npz file or None, got 3"),
        ({"world_file": ["a"]}, "world_file must be the path of an .npz file or None, got .'a'"),
        ({"metrics": 3}, "metrics must be a tuple of names, got 3"),
        ({"dim": None}, "dim must be given, got None"),
        ({"average": "tial"}, "average must be one of .* did you mean 'tail'"),
    ],
)
def test_fields_that_conflict_are_named(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Experiment(**fields)
    with pytest.raises(ValueError, match=message):
        Experiment.parse(fields)


def test_a_description_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="a field .* must be one of .*did you mean 'world_file'"):
        Experiment.parse({"wrold_file": "a.npz"})
    with pytest.raises(ValueError, match="description must be a mapping of fields, .* got None"):
        Experiment.parse(None)
    assert Experiment.parse({"world_file": "a.npz"}).world_file == Path("a.npz").absolute()


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({}, "stay", "unless sampler is sticky, got 'hetero'"),
        ({}, "weight_decay", "unless optimizer is sgdw or adamw or lion, got 'sgd'"),
        ({"means": (1.0,)}, "mean", "where means is given"),
        ({"world_file": "a.npz"}, "spread", "where world_file is given"),
        ({"sampler": "sticky"}, "stay", None),
        ({"algorithm": "scaffold"}, "server_learning_rate", None),
        ({}, "accumulate", None),
        ({}, "steps", None),
    ],
)
def test_fields_without_effect_are_told(fields: dict, field: str, reason: str | None) -> None:
    assert Experiment(**fields).why_unused(field) == reason


def test_swept_numbers_replace_fields() -> None:
    options = {"measurement": "population", "model": "diagonal", "basis": "canonical"}
    base = Experiment(
        **SMALL, **options, sampler="block", schedule="cosine", metrics=("batch_loss",)
    )
    axes = {"block_length": [1, 3], "learning_rate": [0.1, 0.2]}
    swept = sweep(base.cell(), axes=axes, seeds=2)
    single = sweep(base.replace(block_length=3, learning_rate=0.2).cell(), seeds=2)
    np.testing.assert_allclose(
        swept.batch_loss.sel(block_length=3, learning_rate=0.2), single.batch_loss, rtol=1e-5
    )


def test_a_number_that_must_be_zero_cannot_be_swept() -> None:
    cell = Experiment(**SMALL, model="diagonal", basis="canonical").cell()
    with pytest.raises(ValueError, match="tilt must be 0 where model"):
        sweep(cell, axes={"tilt": [0.0, 0.1]})


def test_messages_of_parts_name_the_field() -> None:
    key = jax.random.key(0)
    for fields, message in (
        ({"sampler": "block", "block_length": 0}, "block_length must be"),
        ({"means": (1.0, 2.0)}, "means must"),
        ({"evolution": "rotate", "rotation_angle": -1.0}, "rotation_angle must be"),
        ({"invariant_eigenvalue": 0.0}, "invariant_eigenvalue must be"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            Experiment(**SMALL, **fields).cell()(key)
    with pytest.raises(ValueError, match="parameter must be one of .*got 'rank'"):
        Experiment(**SMALL).cell()(key, rank=3)


def test_describing_an_experiment_does_not_start_jax() -> None:
    script = "import sys; from causal_sgd.experiment import Experiment; Experiment(spread=3.0)"
    script += "; assert not {'jax', 'optax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
