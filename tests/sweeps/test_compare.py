"""Methods are compared on the same draws; all are checked before the first is compiled."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import Any

import jax
import numpy as np
import pytest

from causal_sgd.sensing import metrics
from causal_sgd.sweeps import compare, sweep
from causal_sgd.sweeps._grid import Grid
from causal_sgd.sweeps._programs import Program
from causal_sgd.training import run
from causal_sgd.types import Trace
from support.sweeps import COMPILATIONS, WATCHED, build, same_bits


@pytest.mark.slow
def test_compared_methods_share_worlds_and_initial_parameters() -> None:
    def method(sampler: str, law: bool):
        def cell(key: jax.Array, *, spread: Any) -> Trace:
            algorithm = build(spread=spread, sampler=sampler, law=law, basis="random")
            watched = {
                "basis": lambda snapshot: snapshot.world.spurious_basis[:, 0],
                "error": metrics.invariant_error,
                "params": lambda snapshot: snapshot.params,
            }
            return run(key, algorithm=algorithm, metrics=watched, num_steps=3)

        return cell

    cells = {"hetero": method("hetero", False), "law": method("shuffled", True)}
    dataset = compare(cells, axes={"spread": [1.0, 4.0]}, seeds=3, tile=4, dim="variant")
    assert list(dataset["variant"].values) == list(cells)
    assert dataset["error"].dims == ("variant", "spread", "seed", "step")
    for name, frames in (("basis", [0, -1]), ("error", [0]), ("params", [0])):
        start = dataset[name].isel(step=frames)
        np.testing.assert_array_equal(start.sel(variant="hetero"), start.sel(variant="law"))
    last = dataset["params"].isel(step=-1)
    assert not np.array_equal(last.sel(variant="hetero"), last.sel(variant="law"))
    seeds = dataset["basis"].isel(step=0, variant=0, spread=0)
    assert not np.array_equal(seeds[0], seeds[1]), "seeds should differ"


def of_steps(
    steps: int, sampler: str = "hetero", every: int | None = None, watched: Any = WATCHED
) -> Any:
    """A cell that is a program of its own."""

    def made(key: jax.Array, *, spread: Any) -> Trace:
        algorithm = build(spread=spread, sampler=sampler)
        return run(key, algorithm=algorithm, metrics=watched, num_steps=steps, record_every=every)

    return made


@pytest.mark.slow
def test_compared_cells_are_compiled_once_each_and_give_the_bits_of_their_sweeps() -> None:
    cells = {name: of_steps(12, name) for name in ("cyclic", "shuffled")}
    options: dict[str, Any] = {"axes": {"spread": [1.0, 4.0]}, "seeds": 3, "tile": 4}
    sweep(of_steps(11), **options)  # compiles what is small and shared
    COMPILATIONS.clear()
    dataset = compare(cells, **options)
    assert len(COMPILATIONS) == len(cells)
    for name, compared in cells.items():
        assert same_bits(dataset.sel(variant=name, drop=True), sweep(compared, **options))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (of_steps(0), "num_steps must"),
        (
            of_steps(14, every=7),
            r"the same shapes, got \(2,\) for 'step' in 'right' and \(3,\) in 'wrong'",
        ),
        (
            of_steps(14, watched={"loss": metrics.singular_values}),
            r"got \(2,\) for 'loss' in 'right' and \(2, 2\) in",
        ),
    ],
)
def test_a_wrong_cell_is_refused_before_any_is_compiled(wrong: Any, message: str) -> None:
    COMPILATIONS.clear()
    with pytest.raises(ValueError, match=message):
        compare({"right": of_steps(14), "wrong": wrong}, axes={"spread": [1.0]})
    assert not COMPILATIONS


def test_compared_cells_record_the_same_steps() -> None:
    with pytest.raises(
        ValueError, match=r"the same steps, got \[0, 12\] and, for 'other', \[0, 13\]"
    ):
        compare(
            {"one": of_steps(12, "cyclic"), "other": of_steps(13, "cyclic")},
            axes={"spread": [1.0]},
            tile=4,
        )


def test_a_cancelled_compilation_is_repeated_when_it_is_needed() -> None:
    class Idle(Executor):
        def submit(self, *_: Any, **__: Any) -> Future[Any]:
            cancelled: Future[Any] = Future()
            cancelled.cancel()
            return cancelled

    cell = of_steps(15)
    grid = Grid.make(cell, {"spread": [1.0]}, 2)
    columns = grid.runs(np.arange(2), np.float32)
    program = Program.make(
        cell, grid.names, [column.dtype for column in columns[1:]], jax.random.key(0)
    )
    program.begin(columns, jax.devices(), Idle())
    calls = program.compile(columns, jax.devices())
    assert list(calls) == jax.devices()
    assert np.isfinite(calls[jax.devices()[0]](columns).metrics["spurious"]).all()
