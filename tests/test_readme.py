"""README's example runs as it stands, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.example import README, example


def test_the_example_gives_what_it_says() -> None:
    names: dict = {}
    exec(compile(example(), str(README), "exec"), names)
    dataset = names["dataset"]
    assert dict(dataset.sizes) == {"spread": 10, "learning_rate": 8, "seed": 8, "step": 2}
    median = dataset.spurious_signal.isel(step=-1).median("seed")
    assert float(median.isel(spread=0, learning_rate=-1)) > 1.6  # learned: sqrt(3)
    assert float(median.sel(spread=4).isel(learning_rate=-1)) < 0.4  # forgotten


def test_the_files_that_readme_names_exist() -> None:
    text = README.read_text()
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", text) + re.findall(r"`((?:notebooks|benchmarks)/[^` ]+)`", text):
        assert (Path(README.parent) / path).exists(), path
