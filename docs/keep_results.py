"""Keep the results of studies for the atlas: `docs/kept/kept.json`, and a small image for each.

causal-sgd reproduce --all --out figures
python docs/keep_results.py figures

The site shows what is kept, so that it builds without simulating. Claims are measured on the
results on disk, at full size and with seed 0. Studies without such results in the folder keep what
was kept of them before.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from causal_sgd import studies

KEPT = Path(__file__).parent / "kept"
RECORD = KEPT / "kept.json"
LARGEST = 44_000  # bytes of an image
# Width and quality, in this order.
TRIES = ((1400, 80), (1400, 65), (1200, 70), (1200, 55), (1000, 55), (800, 50), (800, 40))


def kept() -> dict[str, dict[str, Any]]:
    """What is kept: study -> measured numbers, figure and provenance."""
    return json.loads(RECORD.read_text("utf-8"))["studies"] if RECORD.exists() else {}


def measured(entry: Mapping[str, Any], name: str) -> dict[str, studies.Verdict]:
    """The claims of a study with the numbers kept for them; none where claims were renamed."""
    claims = studies.load(name).CLAIMS
    if set(entry["measured"]) != set(claims):
        return {}
    return {
        short: studies.Verdict(claim, float(entry["measured"][short]))
        for short, claim in claims.items()
    }


def collected(folder: Path, names: list[str], *, shared: bool) -> Iterator[tuple[str, dict]]:
    """The entries of the studies with results in a folder of `causal-sgd reproduce`.

    Args:
        folder: the one given as `--out`.
        names: of studies.
        shared: whether other work ran on the machine, so that times are upper bounds.
    """
    from causal_sgd.studies.reproduction import _cache
    from causal_sgd.studies.reproduction._claims import exact
    from causal_sgd.studies.reproduction._settings import data_of
    from causal_sgd.studies.reproduction._times import machine_of

    earlier = {name: entry["finished"] for name, entry in kept().items()}
    for name in names:
        results = _cache.folder(folder, name, quick=False, seed=0)
        record, image = _cache.lookup(results), folder / f"{name}.png"
        if record is None or not image.exists():
            continue
        if (KEPT / f"{name}.webp").exists() and earlier.get(name) == record.finished:
            continue  # kept already
        data = _cache.load(results, record)
        study = studies.load(name)
        verdicts = zip(study.CLAIMS, studies.verdicts(study, data), strict=True)
        entry = {
            "finished": record.finished,
            "seconds": record.seconds,
            "shared": shared,
            "machine": machine_of(record.environment),
            "seed": record.origin.seed,
            "versions": dict(record.origin.versions),
            "commit": record.environment.get("git_commit"),
            "measured": {short: exact(verdict.measured) for short, verdict in verdicts},
            "data": [line._asdict() for line in data_of(data)],
            "width": small(image, KEPT / f"{name}.webp"),
        }
        yield name, entry


def small(source: Path, target: Path) -> int:
    """Write an image as WebP, as large and as good as `LARGEST` bytes allow.

    Returns:
        The width of the figure, CSS pixels.
    """
    from PIL import Image

    original = Image.open(source)
    inches = original.width / original.info["dpi"][0]
    image = original.convert("RGB")
    for width, quality in TRIES:
        width = min(width, image.width)
        size = (width, math.ceil(image.height * width / image.width))
        image.resize(size, Image.Resampling.LANCZOS).save(target, quality=quality, method=6)
        if target.stat().st_size <= LARGEST:
            return round(96 * inches)
    raise ValueError(f"{source} must fit into {LARGEST} bytes, got {target.stat().st_size}")


def main() -> None:
    """Keep what a folder holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of causal-sgd reproduce --out")
    parser.add_argument("studies", nargs="*", help="by default all")
    parser.add_argument("--shared", action="store_true", help="the machine was not idle")
    given = parser.parse_args()
    KEPT.mkdir(exist_ok=True)
    entries = {name: entry for name, entry in kept().items() if name in studies.NAMES}
    for name, entry in collected(
        given.folder, given.studies or list(studies.NAMES), shared=given.shared
    ):
        entries[name] = entry
        print(name, flush=True)
    for image in KEPT.glob("*.webp"):
        if image.stem not in entries:
            image.unlink()
    command = "causal-sgd reproduce --all --out figures; python docs/keep_results.py figures"
    ordered = {name: entries[name] for name in studies.NAMES if name in entries}
    RECORD.write_text(
        json.dumps({"command": command, "studies": ordered}, indent=1) + "\n", "utf-8"
    )
    print(f"{len(ordered)} of {len(studies.NAMES)} studies are kept in {KEPT}")


if __name__ == "__main__":
    main()
