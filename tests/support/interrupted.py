"""A sweep into a store that logs the tiles it begins and ends; tests run it and stop it.

    python interrupted.py STORE LOG [full UNITS]

With `full`, files can no longer grow after that number of units, as on a full disk.
"""

import contextlib
import os
import resource
import sys
from pathlib import Path

import causal_sgd
from causal_sgd.experiment import Experiment
from causal_sgd.sweeps.store import Store

TILE = 4
AXES = {"spread": [0.0, 2.0, 4.0], "learning_rate": [0.02, 0.05, 0.1, 0.2]}
SEEDS = 12
NUM_TILES = 3 * 4 * 12 // TILE
TILES_PER_UNIT = 4  # at most: an eighth of the tiles
CELL = Experiment(
    dim=3,
    invariant_rank=1,
    spurious_rank=1,
    measurement="population",
    model="diagonal",
    basis="canonical",
    steps=75_000,
    record_every=15_000,
    metrics=("spurious_signal", "invariant_error"),
).cell()


def main(store: str, log: Path, *full: str) -> None:
    causal_sgd.use_cpu_cores(2)
    causal_sgd.use_compilation_cache(log.with_name("cache"))
    lines = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(line: str) -> None:
        with contextlib.suppress(OSError):  # the disk may be full
            os.write(lines, f"{line}\n".encode())

    columns, write = Store.columns, Store.write
    written = []

    def begin(self, tile):
        tell(f"begin {tile}")
        return columns(self, tile)

    def end(self, unit, tiles, *rest):
        write(self, unit, tiles, *rest)
        for place in tiles:
            tell(f"end {unit * self.tiles_per_unit + place}")
        written.append(unit)
        if full and len(written) == int(full[1]):
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (10, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
            )

    Store.columns, Store.write = begin, end
    try:
        causal_sgd.sweep(CELL, axes=AXES, seeds=SEEDS, tile=TILE, store=store, progress=False)
    except causal_sgd.StoreError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
