"""`causal-sgd reproduce`: run studies, judge their claims, draw their figures and write the report."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from causal_sgd import checks
from causal_sgd.cli.computation import start
from causal_sgd.cli.outputs import PLOT_SUFFIXES, check_output, duration
from causal_sgd.sweeps._grid import LARGEST_SEED

if TYPE_CHECKING:
    from causal_sgd.studies.reproduction import Outcome

__all__ = ["Reproduce"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Run studies, check their claims, draw their figures and write a report; exit code 1 if a claim or a study fails.

    The results of every study that is finished are kept, so that the same command goes on where it was stopped.

    For example: causal-sgd reproduce small-batch --quick
    """

    studies: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which studies, as `causal-sgd list` names them; by default the few that show what the paper shows."""
    all: bool = False
    """All studies."""
    quick: bool = False
    """A reduced size, for a look; too small to decide every claim."""
    seed: int = 0
    """Root of all randomness."""
    out: Path = Path("figures")
    """The folder for report.html, claims.json, the figures (.png and .pdf) and the results."""
    fresh: bool = False
    """Compute anew what is kept, too."""
    redraw: bool = False
    """Compute nothing: claims, figures and report from what is kept, even if the code has changed since."""

    def __call__(self) -> int:
        """Run them."""
        from causal_sgd import studies

        names = tuple(
            checks.choice("study", name.replace("_", "-"), studies.NAMES) for name in self.studies
        )
        if names and self.all:
            raise ValueError(f"--all stands for all studies, got {names[0]!r} beside it")
        if self.fresh and self.redraw:
            raise ValueError("--fresh computes everything and --redraw nothing, got both")
        names = tuple(dict.fromkeys(names)) or (studies.NAMES if self.all else studies.CORE)
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"--out must be a folder that can be written, got {self.out}: {error.strerror}"
            ) from None
        check_output("--out", self.out / "claims.png", PLOT_SUFFIXES)
        checks.integer("seed", self.seed, minimum=0, maximum=LARGEST_SEED)
        start()
        import matplotlib as mpl

        mpl.use("Agg")
        from causal_sgd.studies import reproduction

        if self.quick:
            print(
                "quick: a reduced size; claims are checked, but this is not the full reproduction"
            )
        if not self.redraw:
            print(self._ahead(names), flush=True)
        done: list[Outcome] = []
        try:
            for outcome in reproduction.outcomes(
                names,
                self.out,
                quick=self.quick,
                seed=self.seed,
                fresh=self.fresh,
                redraw=self.redraw,
                begin=_begin,
            ):
                done.append(outcome)
                _tell(outcome)
        except KeyboardInterrupt:
            if done:
                self._write(done, names)
            left = f"{len(done)} of {len(names)} studies are finished and kept; the same command goes on"
            raise KeyboardInterrupt(left + (" without --fresh" if self.fresh else "")) from None
        self._write(done, names)
        return _sum_up(done, self.out)

    def _ahead(self, names: Sequence[str]) -> str:
        """What is to be computed, and how long that may take."""
        from causal_sgd.studies.reproduction import pending, time_of

        left = names if self.fresh else pending(names, self.out, quick=self.quick, seed=self.seed)
        kept = f", of which {len(names) - len(left)} are kept" if len(left) < len(names) else ""
        times = [
            time for name in left if (time := time_of(name, self.out, quick=self.quick)) is not None
        ]
        told = ""
        if times and len(times) == len(left):
            where = "here" if all(time.here for time in times) else "elsewhere"
            told = f"; about {duration(sum(time.seconds for time in times))}, as measured {where}"
        return f"{len(names)} {'study' if len(names) == 1 else 'studies'}{kept}{told}"

    def _write(self, outcomes: Sequence[Outcome], names: Sequence[str]) -> None:
        from causal_sgd.studies import reproduction

        table = reproduction.claims_table(outcomes, quick=self.quick, seed=self.seed)
        (self.out / "claims.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
        created = datetime.now(UTC).strftime("%Y-%m-%d")
        page = reproduction.report(
            outcomes, names, quick=self.quick, seed=self.seed, created=created
        )
        (self.out / "report.html").write_text(page, encoding="utf-8")


def _begin(name: str, place: int, count: int) -> None:
    """That a study is to be simulated, for whoever waits."""
    print(f"simulating {name}, study {place} of {count}", file=sys.stderr, flush=True)


def _tell(outcome: Outcome) -> None:
    """A study's verdicts, as soon as they are there."""
    record = outcome.record
    when = "" if record is None else f"  [{duration(record.seconds)}]"
    if record is not None and outcome.reused:
        when = (
            f"  [kept of {record.finished[:16].replace('T', ' ')} UTC, {duration(record.seconds)}]"
        )
    print(f"\n{outcome.name}: {outcome.title}{when}")
    if outcome.outdated:
        print(
            f"  {'outdated' if outcome.reused else 'computed anew'}: {'; '.join(outcome.outdated)}"
        )
    for verdict in outcome.verdicts.values():
        claim, word = verdict.claim, "holds" if verdict.holds else "FAILS"
        print(
            f"  {word}  {verdict.measured:>10.4g}  {claim.interval:<18} {claim.text}  ({claim.source})"
        )
    if outcome.error is not None:
        print(f"  ERROR  {outcome.problem}  (the traceback is in the report)")
    print(end="", flush=True)


def _sum_up(outcomes: Sequence[Outcome], out: Path) -> int:
    claims = [verdict for outcome in outcomes for verdict in outcome.verdicts.values()]
    failed = [
        (outcome.name, verdict) for outcome in outcomes for verdict in outcome.failed.values()
    ]
    broken = [outcome for outcome in outcomes if outcome.error is not None]
    print()
    for name, verdict in failed:
        print(
            f"FAILS  {name}: {verdict.claim.text}: {verdict.measured:.4g}, not {verdict.claim.interval}"
        )
    for outcome in broken:
        print(f"ERROR  {outcome.name}: {outcome.problem}")
    took = sum(
        outcome.record.seconds
        for outcome in outcomes
        if outcome.record is not None and not outcome.reused
    )
    print(
        f"{len(claims) - len(failed)} of {len(claims)} claims hold"
        + (f"; {len(broken)} of {len(outcomes)} studies stopped with an error" if broken else "")
        + f"; report in {out / 'report.html'}"
        + (f"; {duration(took)}" if took else "")
    )
    return 1 if failed or broken else 0
