"""The size of a tile, and how many tiles run at a time.

The size depends on the program alone, never on the number of runs or devices, so that a run gives
the same bits in any sweep.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import psutil

from causal_sgd.sweeps._machine import Device
from causal_sgd.sweeps._programs import RUNS_OF_A_SEED, Program

__all__ = ["free_bytes", "lay_out_tiles"]

# On a CPU: bytes of all values that the runs of a tile compute; few of them live at a time, and
# these should stay in the cache of a core.
CACHE_BYTES = 30 * 10**6
LARGEST_TILE = 1024
ACCELERATOR_BYTES = 2**30
ACCELERATOR_LARGEST_TILE = 2**16
MOST_RUNS_OF_A_SEED = 32  # on an accelerator


def lay_out_tiles(
    program: Program,
    devices: Sequence[Device],
    *,
    memory: float | None,
    tile: int | None,
    by_seed: bool,
    result_bytes: int,
) -> tuple[int, Sequence[Device]]:
    """Choose the tile, and the devices for which the memory suffices.

    Args:
        program: the traced program.
        devices: the devices that may be used.
        memory: bytes for all tiles that run at a time; None for half of the free memory.
        tile: runs per tile; None to choose.
        by_seed: whether the runs of a tile have one seed.
        result_bytes: bytes of the results that stay in memory beside the tiles.

    Returns:
        Runs per tile, and the devices, each of which holds one tile.

    Raises:
        ValueError: if the memory does not hold one run, or one tile of the given size.
    """
    accelerated = devices[0].platform != "cpu"
    if program.batches_lapack and not accelerated:
        # Two such programs at a time may wait for each other in XLA's thread pool; see `linalg`.
        devices = devices[:1]
    budget = free_bytes(devices, memory)
    if memory is None and not accelerated:
        budget -= result_bytes
    further = program.further_bytes if by_seed else program.run_bytes

    def tile_bytes(runs: int) -> int:
        return program.run_bytes + (runs - 1) * further

    least = tile_bytes(tile or 1)
    if result_bytes > psutil.virtual_memory().available or budget < least:
        remedy = "lower dim or slab_size, or record fewer frames and metrics"
        if result_bytes > least:
            remedy = "use fewer seeds or axis values, record fewer frames and metrics, or a store"
        unit = "one run" if tile is None else f"one tile of {tile} runs"
        raise ValueError(
            f"memory must hold at least {unit} ({least:.3g} bytes) beside the results "
            f"({result_bytes:.3g} bytes), got {max(budget, 0):.3g} bytes free; {remedy}"
        )
    if tile is None:
        tile = _tile(program, further, accelerated=accelerated)
        if by_seed:
            tile = min(tile, MOST_RUNS_OF_A_SEED) if accelerated else RUNS_OF_A_SEED
        while tile > 1 and tile_bytes(tile) > budget:
            tile //= 2
    # Where memory is short, use fewer devices; a smaller tile for more devices would change bits.
    return tile, devices[: max(int(budget // tile_bytes(tile)), 1)]


def _tile(program: Program, run_bytes: int, *, accelerated: bool) -> int:
    """The power of two whose runs fill the cache of a core, or an accelerator."""
    target, largest = CACHE_BYTES, LARGEST_TILE
    if accelerated:
        target, largest = ACCELERATOR_BYTES, ACCELERATOR_LARGEST_TILE
    # Shared data are read once for all runs of a tile, so they ask for more of them; but too large
    # a tile leaves cores without one.
    target += program.shared_bytes // 4
    return int(min(2 ** int(np.log2(max(target / run_bytes, 1))), largest))


def free_bytes(devices: Sequence[Device], memory: float | None) -> float:
    """Bytes for all tiles that run at a time."""
    if memory is not None:
        return float(memory)
    if devices[0].platform == "cpu":
        return psutil.virtual_memory().available / 2
    stats = [device.memory_stats() or {} for device in devices]
    free = [s.get("bytes_limit", 2**33) - s.get("bytes_in_use", 0) for s in stats]
    return 0.8 * min(free) * len(devices)
