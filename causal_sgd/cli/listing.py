"""`causal-sgd list`: every study with its claims and its time, and every name that the other commands accept."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from causal_sgd import checks
from causal_sgd.cli.outputs import duration, plain
from causal_sgd.experiment import CHOICES, SWEEPABLE

if TYPE_CHECKING:
    from causal_sgd.studies.reproduction import Time

__all__ = ["List"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class List:
    """List the studies, what they claim and how long they take, and every name that the other commands accept.

    For example: causal-sgd list phase-diagram
    """

    study: tyro.conf.Positional[str | None] = None
    """Tell all about this one."""
    out: Path = Path("figures")
    """Where `causal-sgd reproduce` left its results: what ran there tells how long a study takes."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __call__(self) -> int:
        """Print it."""
        from causal_sgd import studies

        if self.study is not None:
            names = (checks.choice("study", self.study.replace("_", "-"), studies.NAMES),)
        else:
            names = studies.NAMES
        if self.json:
            print(
                json.dumps(
                    {"studies": [self._described(name) for name in names]}
                    | (_names() if not self.study else {})
                )
            )
        elif self.study is not None:
            self._print_one(names[0])
        else:
            self._print_all()
        return 0

    def _print_all(self) -> None:
        from causal_sgd import studies

        print(
            "studies of `causal-sgd reproduce --all`; plain `causal-sgd reproduce` runs those with a star"
        )
        totals = {"core": 0.0, "all": 0.0}
        unknown = False
        for name in studies.NAMES:
            study = studies.load(name)
            time = self._times(name)["full"]
            print(f"\n{'*' if name in studies.CORE else ' '} {name}: {studies.title(study)}")
            print(f"    takes {self._in_words(name)}")
            _print_claims(study)
            seconds = 0.0 if time is None else time.seconds
            unknown |= time is None
            totals["all"] += seconds
            totals["core"] += seconds if name in studies.CORE else 0
        more = "more than " if unknown else ""
        print(
            f"\nin all {more}{duration(totals['all'])}; those with a star {duration(totals['core'])}"
        )
        known = _names()
        print("\nnames:")
        for field, options in known["names"].items():
            print(f"  --{field.replace('_', '-'):15} {', '.join(options)}")
        print(f"\naxes of `causal-sgd phase`:\n  {', '.join(known['axes'])}")

    def _print_one(self, name: str) -> None:
        from causal_sgd import studies

        study = studies.load(name)
        print(f"{name}: {inspect.cleandoc(study.__doc__ or '')}\n")
        print(f"computed: {inspect.cleandoc(study.run.__doc__ or '')}")
        print(f"figure:   {inspect.cleandoc(study.figure.__doc__ or '')}")
        print(f"takes     {self._in_words(name)}")
        print("claims:")
        _print_claims(study)
        print(f"run it:   causal-sgd reproduce {name}")

    def _described(self, name: str) -> dict[str, Any]:
        from causal_sgd import studies

        study = studies.load(name)
        times = {
            size: None if time is None else time._asdict()
            for size, time in self._times(name).items()
        }
        return {
            "name": name,
            "title": studies.title(study),
            "finding": inspect.cleandoc(study.__doc__ or "").partition("\n")[2].strip(),
            "core": name in studies.CORE,
            "claims": [
                {"name": short}
                | claim._asdict()
                | {"low": plain(claim.low), "high": plain(claim.high)}
                for short, claim in study.CLAIMS.items()
            ],
            "times": times,
        }

    def _times(self, name: str) -> dict[str, Time | None]:
        from causal_sgd.studies.reproduction import time_of

        return {
            "full": time_of(name, self.out, quick=False),
            "quick": time_of(name, self.out, quick=True),
        }

    def _in_words(self, name: str) -> str:
        """The times of a study; those of another machine say so."""
        told = []
        for size, time in self._times(name).items():
            if time is None:
                told.append(f"{size}: not measured yet")
            else:
                where = f"here on {time.date}" if time.here else f"elsewhere, on {time.machine}"
                told.append(f"{size}: {duration(time.seconds)} ({where})")
        return ", ".join(told)


def _print_claims(study: Any) -> None:
    for claim in study.CLAIMS.values():
        print(f"    {claim.interval:<18} {claim.text}  ({claim.source})")


def _names() -> dict[str, Any]:
    from causal_sgd.sensing import metrics

    names = {field: list(options) for field, options in CHOICES.items()} | {
        "metrics": list(metrics.__all__)
    }
    return {"names": names, "axes": [name.replace("_", "-") for name in SWEEPABLE]}
