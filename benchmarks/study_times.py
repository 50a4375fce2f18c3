"""Record the run times of the studies, which `causal-sgd list` shows where they have not run yet.

    causal-sgd reproduce --all --fresh
    causal-sgd reproduce --all --fresh --quick
    python benchmarks/study_times.py

The script reads the results of the first two commands and writes reference_times.json in
causal_sgd/studies/reproduction. It records the kind of machine, but no host name. The time of a
study that ran beside others is its share. Run the commands on an idle machine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from causal_sgd import studies
from causal_sgd.studies.reproduction import _cache, _times

COMMAND = "; ".join(
    [
        "causal-sgd reproduce --all --fresh",
        "causal-sgd reproduce --all --fresh --quick",
        "python benchmarks/study_times.py",
    ]
)


def reference(out: Path, seed: int) -> dict[str, Any]:
    """The run times of the cached results in a folder.

    Raises:
        ValueError: If there are none, or if they come from several kinds of machines.
    """
    times: dict[str, dict[str, float]] = {"full": {}, "quick": {}}
    records = []
    for size, seconds in times.items():
        for name in studies.NAMES:
            record = _cache.lookup(_cache.folder(out, name, quick=size == "quick", seed=seed))
            if record is not None:
                records.append(record)
                seconds[name] = round(record.seconds, 1)
    machines = [{name: record.environment[name] for name in _times.MACHINE} for record in records]
    if not machines or any(machine != machines[0] for machine in machines):
        raise ValueError(
            f"{out} must hold results of one kind of machine, got {len(records)} results of several"
        )
    last = max(records, key=lambda record: record.finished)
    return {
        "command": COMMAND,
        "date": last.finished[:10],
        "machine": machines[0],
        "versions": dict(last.environment["versions"]),
        **times,
    }


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "out",
        type=Path,
        nargs="?",
        default=Path("figures"),
        help="the folder with the results of `reproduce`",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, default=_times.REFERENCE, help="the file to write")
    arguments = parser.parse_args()
    table = reference(arguments.out, arguments.seed)
    arguments.to.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    for size in ("full", "quick"):
        missing = [name for name in studies.NAMES if name not in table[size]]
        note = f"; missing: {', '.join(missing)}" if missing else ""
        print(f"{size}: {sum(table[size].values()):.0f} s in total{note}")


if __name__ == "__main__":
    main()
