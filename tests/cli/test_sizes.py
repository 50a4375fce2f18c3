"""Runs that cannot fit into memory are refused before anything is allocated."""

from __future__ import annotations

import types
from typing import Any

import psutil
import pytest

from causal_sgd.experiment import Experiment
from causal_sgd.sweeps import sweep
from causal_sgd.sweeps._sweep import Sweep
from support.shell import call, words

CHAIN: dict[str, Any] = {"model": "order-parameters", "measurement": "order-parameter-law"}
DIAGONAL: dict[str, Any] = {
    "model": "diagonal",
    "basis": "canonical",
    "measurement": "population",
}
HUGE = [
    ("--num-environments 2000000000", "--num-environments"),
    ("--num-environments 2000000000 --family gaussian", "--num-environments"),
    ("--dim 2000000000", "--dim"),
    ("--dim 1000000", "--dim"),
    ("--family gaussian --spurious-rank 2000000000", "--spurious-rank"),
    ("--rank 2000000000", "--rank"),
    ("--model quadratic --neurons 2000000000", "--neurons"),
    ("--model deep --depth 2000000000", "--depth"),
    ("--measurement fixed-design --num-examples 2000000000", "--num-examples"),
    ("--steps 2000000000 --record-every 1", "--steps"),
    ("--steps 2 --seeds 4000000000", "axes and --seeds"),
]


@pytest.mark.parametrize(("options", "name"), HUGE)
def test_a_size_beyond_memory_is_one_line_that_names_the_option(
    options: str, name: str, capsys, monkeypatch
) -> None:
    free = types.SimpleNamespace(available=2**34)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    code, out, err = call("run", *words(options), capsys=capsys)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"causal-sgd: error: {name} must ")


def refused(experiment: Experiment, free: float) -> bool:
    """Whether one run is known not to fit into this memory."""
    cell: Any = experiment.cell()
    try:
        cell.check_memory(free)
    except ValueError:
        return True
    return False


def test_python_gets_the_same_refusal() -> None:
    with pytest.raises(ValueError, match="^dim must be such that a run fits into"):
        sweep(Experiment(dim=10**6).cell(), seeds=2)
    small: Any = Experiment(dim=1000, steps=2, metrics=("spurious_signal",)).cell()
    with pytest.raises(ValueError, match="^dim must be .* fits into the 0.00186 GiB that are free"):
        sweep(small, seeds=1, memory=2 * 10**6)


@pytest.mark.parametrize(
    ("experiment", "needed"),
    [
        (Experiment(dim=10_000, rank=4, measurement="low-rank-law"), 4 * 4 * 10_000),
        (Experiment(dim=10_000_000, rank=4, **CHAIN), 4 * 101 * 4),
        (Experiment(dim=1_000_000, **DIAGONAL), 4 * 3 * 1_000_000),
        (Experiment(dim=50), 4 * 50**2),
    ],
)
def test_what_is_needed_is_a_lower_bound(experiment: Experiment, needed: int) -> None:
    """The least is of the order of the parameters, whatever the world would take if written out."""
    assert not refused(experiment, 2 * needed)
    assert refused(experiment, needed / 100)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"dim": 10_000, "rank": 4, "measurement": "low-rank-law"}, marks=pytest.mark.slow
        ),
        pytest.param({"dim": 10_000_000, "rank": 4, **CHAIN}, marks=pytest.mark.slow),
        {"dim": 20, "steps": 200_000, "record_every": 1, "metrics": ("spurious_signal",)},
        pytest.param(
            {"dim": 20, "measurement": "fixed-design", "num_examples": 500, "batch_size": 64},
            marks=pytest.mark.slow,
        ),
        {"dim": 60, "family": "gaussian", "num_environments": 20_000, "spurious_rank": 2},
    ],
    ids=str,
)
def test_nothing_is_refused_that_the_tiles_of_a_sweep_would_hold(options: dict[str, Any]) -> None:
    cell: Any = Experiment(**{"steps": 4, **options}).cell()
    cell.check_memory(Sweep.make(cell, seeds=1, progress=False).plan.program.run_bytes)
