"""Any worker gives the same bits; lost workers are replaced, and failing tiles are named."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import pytest

import causal_sgd
from causal_sgd.sweeps import SweepError, compare, sweep
from causal_sgd.sweeps._scheduler import ExecutorError
from causal_sgd.sweeps.store import Store
from causal_sgd.types import Trace
from support.executors import AXES, CELL, OPTIONS, SMALL, poisoned, reference


def pool(workers: int = 2) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with pool() as executor:
        yield executor


@pytest.mark.slow
def test_a_process_pool_gives_the_same_bits(processes, tmp_path) -> None:
    assert sweep(CELL, executor=processes, **OPTIONS).equals(reference())
    path = tmp_path / "pool.zarr"
    assert sweep(CELL, executor=processes, store=path, tiles_per_task=4, **OPTIONS).equals(
        reference()
    )
    more = OPTIONS | {"seeds": 8}
    assert sweep(CELL, executor=processes, store=path, **more).equals(sweep(CELL, **more))
    assert processes.submit(os.getpid).result() != os.getpid(), (
        "an executor that was given stays open"
    )
    (environment,) = Store(path).environments
    assert environment["platform"] == "cpu"


def pin_to_one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@pytest.mark.slow
def test_a_worker_with_fewer_cores_gives_the_same_bits() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), pin_to_one_core) as executor:
        assert sweep(CELL, executor=executor, **OPTIONS).equals(reference())


def test_threads_are_an_executor_too() -> None:
    with ThreadPoolExecutor(2) as executor:
        assert sweep(CELL, executor=executor, **OPTIONS).equals(reference())


@pytest.mark.slow
def test_settings_of_jax_travel(processes) -> None:
    with jax.enable_x64(True):
        found = sweep(CELL, executor=processes, axes={"spread": [2.0]}, seeds=2, tile=2)
        assert found.spurious_signal.dtype == np.float64
        assert found.equals(sweep(CELL, axes={"spread": [2.0]}, seeds=2, tile=2))


@pytest.mark.parametrize("where", ["here", pytest.param("pool", marks=pytest.mark.slow)])
def test_a_poisoned_tile_is_named_and_all_others_are_saved(processes, tmp_path, where: str) -> None:
    path = tmp_path / "poisoned.zarr"
    executor = processes if where == "pool" else None
    with pytest.raises(SweepError) as error:
        sweep(poisoned("raise", 2.0), executor=executor, store=path, retries=1, **OPTIONS)
    message = str(error.value)
    assert "2 of the sweep's tiles failed; all others are saved in" in message
    for rate in (0.05, 0.2):
        assert f"seed 0 to 3, learning_rate {rate}, spread 2: " in message
    assert "ArithmeticError: poison" in message or "poison" in message
    found = error.value.dataset
    assert found.done.sel(spread=[0.0, 4.0]).all()
    assert not found.done.sel(spread=2.0).any()
    good = found.sel(spread=[0.0, 4.0]).drop_vars("done")
    assert good.equals(reference().sel(spread=[0.0, 4.0]))
    assert int(Store(path).done.sum()) == 4


def test_a_poisoned_tile_without_a_store_leaves_the_rest_in_the_error() -> None:
    with pytest.raises(SweepError, match="all others are in `dataset` of this error") as error:
        sweep(poisoned("raise", 0.0), retries=0, **OPTIONS)
    found = error.value.dataset
    assert found.done.sum() == 16
    assert np.isnan(found.spurious_signal.sel(spread=0.0)).all()
    assert (found.diverged_at.sel(spread=0.0) == -1).all()
    assert found.sel(spread=[2.0, 4.0]).drop_vars("done").equals(reference().sel(spread=[2.0, 4.0]))


@pytest.mark.slow
def test_a_poisoned_tile_of_one_method_leaves_all_methods_in_the_error() -> None:
    cells = {"poisoned": poisoned("raise", 0.0), "well": CELL}
    with pytest.raises(SweepError, match="^poisoned: 2 of the sweep's tiles failed") as error:
        compare(cells, retries=0, **OPTIONS)
    found = error.value.dataset
    assert found.done.sum("variant").values.tolist() == [[[1] * 4] * 2] + 2 * [[[2] * 4] * 2]
    assert found.sel(variant="well", drop=True).drop_vars("done").equals(reference())
    assert len(error.value.failures) == 2

    def broken(key: jax.Array, *, spread: Any, learning_rate: Any) -> Trace:
        return cells["poisoned"](key, spread=0 * spread, learning_rate=learning_rate)

    with pytest.raises(
        SweepError, match=r"broken: \d of the sweep's tiles failed; \d others were not tried"
    ) as error:
        compare({"broken": broken, "well": CELL}, retries=0, **OPTIONS)
    assert error.value.dataset.sel(variant="well", drop=True).drop_vars("done").equals(reference())


def test_if_every_tile_fails_the_error_says_that_the_others_were_not_tried(tmp_path) -> None:
    def broken(key: jax.Array, *, spread: Any, learning_rate: Any) -> Trace:
        return poisoned("raise", 2.0)(key, spread=0 * spread + 2, learning_rate=learning_rate)

    with pytest.raises(SweepError, match=r"tiles failed; \d+ others were not tried") as error:
        sweep(broken, retries=0, store=tmp_path / "broken.zarr", **(OPTIONS | {"seeds": 16}))
    assert not error.value.dataset.done.any()


@pytest.mark.slow
def test_a_tile_that_kills_its_worker_is_told_apart_from_its_neighbours(tmp_path) -> None:
    path = tmp_path / "killer.zarr"
    with pytest.raises(SweepError) as error:
        sweep(
            poisoned("kill", 2.0),
            executor=pool,
            store=path,
            retries=0,
            **(OPTIONS | {"axes": AXES | {"learning_rate": [0.2]}}),
        )
    assert "1 of the sweep's tiles failed" in str(error.value)
    assert "spread 2: its worker died" in str(error.value)
    assert error.value.dataset.done.sum("seed").values.ravel().tolist() == [4, 0, 4]


@pytest.mark.slow
def test_a_broken_executor_that_cannot_be_replaced_loses_nothing_done(tmp_path) -> None:
    path = tmp_path / "broken.zarr"
    with (
        pool(1) as executor,
        pytest.raises(ExecutorError, match="give sweep a function that makes the executor"),
    ):
        sweep(poisoned("kill", 4.0), executor=executor, store=path, **OPTIONS)
    assert int(Store(path).done.sum()) >= 1
    assert (
        sweep(
            poisoned("none", 4.0), axes={"spread": [0.0], "learning_rate": [0.05]}, seeds=4
        ).sizes["seed"]
        == 4
    )


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed", reason="pip install 'causal_sgd[distributed]'")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        memory_limit="4GiB",
        dashboard_address=None,
    ) as cluster:
        yield cluster


@pytest.mark.slow
def test_dask_gives_the_same_bits(cluster, tmp_path) -> None:
    from distributed import Client

    with Client(cluster) as client:
        found = sweep(
            CELL, executor=client.get_executor(retries=3), store=tmp_path / "dask.zarr", **OPTIONS
        )
        assert found.equals(reference())


@pytest.mark.slow
def test_a_dask_scheduler_from_the_command_line(cluster, tmp_path, capsys) -> None:
    from causal_sgd import cli

    own = [
        "run",
        "--dim",
        "4",
        "--invariant-rank",
        "1",
        "--spurious-rank",
        "1",
        "--measurement",
        "population",
        "--steps",
        "20",
        "--seeds",
        "6",
    ]
    with pytest.raises(SystemExit) as stop:
        cli.main(
            [*own, "--scheduler", cluster.scheduler_address, "--out", str(tmp_path / "dask.zarr")]
        )
    assert not stop.value.code
    assert "over 6 seeds" in capsys.readouterr().out
    assert causal_sgd.open_results(tmp_path / "dask.zarr").done.all()
    with pytest.raises(SystemExit) as stop:
        cli.main([*own, "--scheduler", "nowhere"])
    assert stop.value.code == 2
    assert "--scheduler must be the address of a Dask scheduler" in capsys.readouterr().err


def slow_cell() -> Callable[..., Trace]:
    return SMALL.replace(steps=400_000).cell()


@pytest.mark.slow
def test_a_killed_dask_worker_is_no_loss(cluster, tmp_path) -> None:
    from distributed import Client

    cell, path = slow_cell(), tmp_path / "killed.zarr"
    options: dict[str, Any] = {"axes": {"spread": [0.0, 2.0, 3.0, 4.0]}, "seeds": 4, "tile": 4}
    killed = []

    def kill_one_once_something_is_done() -> None:
        while not path.exists() or not Store(path).done.any():
            time.sleep(0.05)
        process = next(iter(cluster.workers.values())).pid
        os.kill(process, signal.SIGKILL)
        killed.append(process)

    killer = threading.Thread(target=kill_one_once_something_is_done)
    with Client(cluster) as client:
        killer.start()
        found = sweep(cell, executor=client.get_executor(retries=3), store=path, **options)
    killer.join()
    assert killed
    assert not Store(path).faults()
    assert found.equals(sweep(cell, **options))


@pytest.mark.slow
def test_slurm_jobs_give_the_same_bits(tmp_path) -> None:
    submitit = pytest.importorskip("submitit", reason="pip install 'causal_sgd[slurm]'")
    jobs = submitit.LocalExecutor(folder=tmp_path / "jobs")
    jobs.update_parameters(timeout_min=5)
    poison = pytest.raises(SweepError, match="spread 2: .*poison")
    with causal_sgd.slurm(jobs, poll=0.2) as executor, poison as error:
        sweep(poisoned("raise", 2.0), executor=executor, tiles_per_task=3, retries=0, **OPTIONS)
    found = error.value.dataset.sel(spread=[0.0, 4.0])
    assert found.done.all()
    assert found.drop_vars("done").equals(reference().sel(spread=[0.0, 4.0]))
    assert (
        len(
            list((tmp_path / "jobs").glob("*_submission.sh"))
            or list((tmp_path / "jobs").glob("*_submitted.pkl"))
        )
        == 2
    )


def test_other_objects_than_executors_are_refused() -> None:
    with pytest.raises(ValueError, match="executor must be one of submitit's"):
        causal_sgd.slurm(3)
    with pytest.raises(ValueError, match=r"a function that makes one, got 7"):
        sweep(CELL, executor=lambda: 7, **OPTIONS)  # pyright: ignore


def test_an_executor_is_any_executor() -> None:
    class Own(Executor):
        """The smallest executor that `concurrent.futures` allows."""

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    assert sweep(CELL, executor=Own(), **OPTIONS).equals(reference())
