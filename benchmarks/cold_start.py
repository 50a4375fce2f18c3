"""What is waited for in a new process, imports and compilation included.

Measured are the import of causal_sgd beside that of jax, README's example, and `causal-sgd reproduce trajectories` in an empty folder:
until its figure is there, and as a whole. No compilation cache is used.

Run `python benchmarks/cold_start.py` where nothing else runs; `--only` for some of them.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
IMPORTS = "import time; a = time.perf_counter(); import jax; b = time.perf_counter(); import causal_sgd; c = time.perf_counter()"
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"
}


def python(*arguments: str) -> str:
    """What a new interpreter prints."""
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, check=True, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ).stdout


def imports() -> dict[str, float]:
    """Both imports, in this order."""
    jax, package = map(float, python("-c", f"{IMPORTS}; print(b - a, c - b)").split())
    return {"import jax": jax, "import causal_sgd, after jax": package}


def example() -> str:
    """The first Python block of README."""
    found = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found, "README has no Python block"
    return found.group(1)


def run_example() -> dict[str, float]:
    """README's example as a script."""
    start = time.perf_counter()
    python("-c", example())
    return {"README's example": time.perf_counter() - start}


def figure(*options: str) -> dict[str, float]:
    """The figure of a study, in a folder where nothing is kept."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trajectories.png"
        seen: list[float] = []
        ended = threading.Event()

        def watch() -> None:
            # It is there when it can be shown: with its last bytes.
            while not (
                path.exists() and path.read_bytes().endswith(b"IEND\xaeB`\x82")
            ) and not ended.wait(0.02):
                pass
            seen.append(time.perf_counter())

        watcher = threading.Thread(target=watch)
        start = time.perf_counter()
        watcher.start()
        try:
            python("-m", "causal_sgd", "reproduce", "trajectories", "--out", folder, *options)
            whole = time.perf_counter() - start
        finally:
            ended.set()
            watcher.join()
        assert path.exists()
    return {
        "reproduce trajectories, until the figure is there": seen[0] - start,
        "reproduce trajectories, whole": whole,
    }


def main() -> None:
    """Run all in turns and print the table."""
    ways: dict[str, Callable[[], dict[str, float]]] = {
        "imports": imports,
        "example": run_example,
        "figure": figure,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=ways, default=list(ways))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="the reduced size of the study")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {arguments.repeats}")
    if arguments.quick:
        ways["figure"] = lambda: figure("--quick")
    times: dict[str, list[float]] = {}
    for _ in range(arguments.repeats):
        for name in arguments.only:
            for what, seconds in ways[name]().items():
                times.setdefault(what, []).append(seconds)
    print(
        f"median of {arguments.repeats} new processes\n\n| what | s | least to most |\n|---|---|---|"
    )
    for what, seconds in times.items():
        print(
            f"| {what} | {statistics.median(seconds):.3g} | {min(seconds):.3g} to {max(seconds):.3g} |"
        )


if __name__ == "__main__":
    main()
