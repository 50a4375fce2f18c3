"""Time what a user waits for in a new process, imports and compilation included.

Timed are the imports of jax and of causal_sgd, README's example, and `causal-sgd reproduce
trajectories` in an empty folder: until its figure exists, and as a whole. No compilation cache is
used.

Run `python benchmarks/cold_start.py` on an idle machine; `--only` selects some of them.
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
IMPORTS = """
import time
start = time.perf_counter()
import jax
middle = time.perf_counter()
import causal_sgd
print(middle - start, time.perf_counter() - middle)
"""
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"
}


def python(*arguments: str) -> str:
    """Run a new interpreter and return its output."""
    command = [sys.executable, *arguments]
    completed = subprocess.run(
        command, check=True, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    return completed.stdout


def imports() -> dict[str, float]:
    """Import jax, then causal_sgd."""
    jax, package = map(float, python("-c", IMPORTS).split())
    return {"import jax": jax, "import causal_sgd, after jax": package}


def example() -> str:
    """The first Python block of README."""
    match = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert match, "README has no Python block"
    return match.group(1)


def run_example() -> dict[str, float]:
    """Run README's example as a script."""
    start = time.perf_counter()
    python("-c", example())
    return {"README's example": time.perf_counter() - start}


def figure(*options: str) -> dict[str, float]:
    """Reproduce a study in an empty folder, and watch for its figure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trajectories.png"
        seen: list[float] = []
        ended = threading.Event()

        def watch() -> None:
            # A PNG is complete once it ends with the IEND chunk.
            while not (path.exists() and path.read_bytes().endswith(b"IEND\xaeB`\x82")):
                if ended.wait(0.02):
                    break
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
    """Run all of them in turns and print the table."""
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
    parser.add_argument("--quick", action="store_true", help="run the study at reduced size")
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
    print(f"median of {arguments.repeats} new processes\n")
    print("| what | s | least to most |\n|---|---|---|")
    for what, seconds in times.items():
        extent = f"{min(seconds):.3g} to {max(seconds):.3g}"
        print(f"| {what} | {statistics.median(seconds):.3g} | {extent} |")


if __name__ == "__main__":
    main()
