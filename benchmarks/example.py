"""Time README's example as a newcomer meets it: in a new process, imports and compilation included.

python benchmarks/example.py
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
REPEATS = 3


def example() -> str:
    """The first Python block of README."""
    found = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found, "README has no Python block"
    return found.group(1)


def main() -> None:
    """Run it a few times and print the median."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", example()], check=True)
        seconds.append(time.perf_counter() - start)
    print(f"README's example: {statistics.median(seconds):.1f} s (median of {REPEATS}, in new processes)")


if __name__ == "__main__":
    main()
