"""`causal-sgd reproduce`: run studies, check their claims, and write figures and a report."""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from causal_sgd import checks
from causal_sgd.cli.computation import start
from causal_sgd.cli.help import columns
from causal_sgd.cli.outputs import PLOT_SUFFIXES, check_output, say
from causal_sgd.sweeps._grid import LARGEST_SEED

if TYPE_CHECKING:
    from causal_sgd.studies._selection import Wanted
    from causal_sgd.studies.reproduction import Outcome

__all__ = ["Reproduce"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Run studies, check their claims, and write figures and a report.

    The results of finished studies are cached, so that the same command continues where it was
    stopped. A study whose packages are not installed is skipped. The exit code is 1 if a claim or a
    study fails, or a study that was named is skipped.

    For example: causal-sgd reproduce small-batch --quick
    """

    studies: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[STUDY ...]")
    ] = ()
    """Names of studies, or files such as ./my_study.py; modules may be given, too. See
    `causal-sgd list`; by default the few with the results of the paper."""
    all: bool = False
    """Run all studies."""
    quick: bool = False
    """Run at a reduced size, which is too small to decide every claim."""
    seed: int = 0
    """Root of all randomness."""
    out: Path = Path("figures")
    """Folder for report.html, claims.json, claims.csv, the results, and each study's figure (.png
    and .pdf) and table of plotted numbers (.csv)."""
    fresh: bool = False
    """Ignore cached results."""
    redraw: bool = False
    """Report on cached results without computing: claims, figures and tables, also of outdated
    ones. Without names, on all studies that have results in the folder."""
    set: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")
    ] = ()
    """Set a constant, see `causal-sgd list STUDY`; STUDY:NAME=VALUE sets one of a single study.
    May be given several times. The results are kept apart from those with the defaults."""
    jobs: int | None = None
    """Studies at a time, each in a process of its own; by default one a core up to four, and one on
    an accelerator. With one, a simulation shows its progress."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __call__(self) -> int:
        """Run, check, draw and report."""
        began = time.perf_counter()
        self._check()
        start()  # before a module of one's own starts jax
        wanted = self._wanted()
        import matplotlib as mpl

        mpl.use("Agg")
        from causal_sgd.studies import reproduction
        from causal_sgd.studies.reproduction import default_jobs

        if self.quick and not self.json:
            print("quick: reduced size; claims are checked, but this is no full reproduction")
        if not self.redraw and not self.json:
            print(self._plan(wanted), flush=True)
        done: list[Outcome] = []
        try:
            for outcome in reproduction.outcomes(
                wanted,
                self.out,
                quick=self.quick,
                seed=self.seed,
                fresh=self.fresh,
                redraw=self.redraw,
                begin=_print_start,
                jobs=self.jobs or default_jobs(),
            ):
                done.append(outcome)
                if not self.json:
                    _print_outcome(outcome)
        except KeyboardInterrupt:
            if done:
                self._write(_in_order(done, wanted), wanted)
            state = f"{len(done)} of {len(wanted)} studies are finished and cached"
            command = "the same command" + (" without --fresh" if self.fresh else "")
            raise KeyboardInterrupt(f"{state}; continue with: {command}") from None
        done = _in_order(done, wanted)
        self._write(done, wanted)
        if self.json:
            report = reproduction.described(done, self.out, quick=self.quick, seed=self.seed)
            print(json.dumps(report), flush=True)
        else:
            _print_summary(done, self.out, seconds=time.perf_counter() - began)
        bad = any(outcome.failed or outcome.error for outcome in done)
        return 1 if bad or (self.studies and any(outcome.skipped for outcome in done)) else 0

    def _check(self) -> None:
        """Raise ValueError for options that cannot be followed."""
        from causal_sgd.studies._finding import built_in

        if self.studies and self.all:
            raise ValueError(
                f"--all must not be given with names of studies, got {self.studies[0]!r}"
            )
        for word in self.studies:
            built_in(word)
        if self.set and not self.studies:
            raise ValueError(f"--set must be given with names of studies, got {self.set[0]!r}")
        if self.fresh and self.redraw:
            raise ValueError("--fresh must not be given with --redraw, which computes nothing")
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"--out must be a folder that can be written, got {self.out}: {error.strerror}"
            ) from None
        check_output("--out", self.out / "claims.png", PLOT_SUFFIXES)
        checks.integer("seed", self.seed, minimum=0, maximum=LARGEST_SEED)
        if self.jobs is not None:
            checks.integer("jobs", self.jobs)

    def _wanted(self) -> Sequence[Wanted]:
        """The studies to run."""
        from causal_sgd import studies
        from causal_sgd.studies import reproduction
        from causal_sgd.studies._selection import chosen

        if self.studies:
            return chosen(self.studies, self.set)
        if self.all:
            return studies.NAMES
        if not self.redraw:
            return studies.CORE
        saved = reproduction.saved(self.out, quick=self.quick, seed=self.seed)
        if not saved:
            size = "quick" if self.quick else "full"
            raise ValueError(
                f"--redraw needs results of {size} size with --seed {self.seed} in {self.out}, "
                "which has none"
            )
        return saved

    def _plan(self, wanted: Sequence[Wanted]) -> str:
        """The number of studies, cached ones, and the expected time."""
        from causal_sgd.studies._selection import name_of
        from causal_sgd.studies.reproduction import duration, pending, time_of

        count = len(wanted)
        left = wanted if self.fresh else pending(wanted, self.out, quick=self.quick, seed=self.seed)
        text = f"{count} {'study' if count == 1 else 'studies'}"
        if len(left) < count:
            text += f", of which {count - len(left)} are cached"
        skipped = [study for study in left if _lacks_packages(study)]
        if skipped:
            text += f"; packages are missing for {', '.join(map(name_of, skipped))}"
            left = [study for study in left if study not in skipped]
        times = [time_of(study, self.out, quick=self.quick) for study in left]
        known = [time for time in times if time is not None]
        if known and len(known) == len(times):
            where = "here" if all(time.here for time in known) else "elsewhere"
            text += f"; about {duration(sum(time.seconds for time in known))}, as measured {where}"
        return text

    def _write(self, outcomes: Sequence[Outcome], wanted: Sequence[Wanted]) -> None:
        from causal_sgd.figures._files import replacing
        from causal_sgd.studies import reproduction

        table = reproduction.claims_table(outcomes, quick=self.quick, seed=self.seed)
        with replacing(self.out / "claims.json") as draft:
            draft.write_text(json.dumps(table, indent=1), encoding="utf-8")
        rows = reproduction.claims_csv({outcome.name: outcome.verdicts for outcome in outcomes})
        with replacing(self.out / "claims.csv") as draft:
            draft.write_text(rows, encoding="utf-8")
        created = datetime.now(UTC).strftime("%Y-%m-%d")
        page = reproduction.report(
            outcomes, wanted, quick=self.quick, seed=self.seed, created=created
        )
        with replacing(self.out / "report.html") as draft:
            draft.write_text(page, encoding="utf-8")


def _in_order(outcomes: Sequence[Outcome], wanted: Sequence[Wanted]) -> list[Outcome]:
    """The outcomes in the order of their studies; several at a time finish in any order."""
    from causal_sgd.studies._selection import name_of

    places = {name_of(one): place for place, one in enumerate(wanted)}
    return sorted(outcomes, key=lambda outcome: places[outcome.name])


def _lacks_packages(wanted: Wanted) -> bool:
    """Whether a study will be skipped; one that cannot be loaded fails when its turn comes."""
    from causal_sgd import studies
    from causal_sgd.studies._selection import select

    try:
        return bool(studies.lacking(select(wanted).study))
    except Exception:  # of a module of any content
        return False


def _print_start(name: str, place: int, count: int) -> None:
    say(f"simulating {name}, study {place} of {count}")


def _print_outcome(outcome: Outcome) -> None:
    """Print the verdicts of a study."""
    from causal_sgd.studies.reproduction import duration

    record = outcome.record
    when = "" if record is None else f"  [{duration(record.seconds)}]"
    if record is not None and outcome.reused:
        date = record.finished[:16].replace("T", " ")
        when = f"  [cached on {date} UTC, {duration(record.seconds)}]"
    print(f"\n{outcome.name}: {outcome.title}{when}")
    if outcome.outdated:
        state = "outdated" if outcome.reused else "computed again"
        print(f"  {state}: {'; '.join(outcome.outdated)}")
    if outcome.constants:
        parts = [f"{key}={one.value} (not {one.default})" for key, one in outcome.constants.items()]
        print(f"  set    {', '.join(parts)}; the intervals were stated for the defaults")
    for verdict in outcome.judged.values():
        claim, word = verdict.claim, "holds" if verdict.holds else "FAILS"
        head = f"  {word}  {verdict.measured:>10.4g}  {claim.interval:<18} "
        _print_line(head, f"{claim.text}  ({claim.source})")
    for verdict in outcome.findings.values():
        claim = verdict.claim
        _print_line(f"  found  {verdict.measured:>10.4g}  {claim.interval:<18} ", claim.text)
    for note in outcome.notes:
        _print_line("  note   ", note)
    if outcome.skipped:
        print(f"  SKIPPED  {outcome.skipped}")
    if outcome.error is not None:
        print(f"  ERROR  {outcome.problem}  (the traceback is in the report)")
    print(end="", flush=True)


def _print_line(head: str, text: str) -> None:
    """Print a line, broken at the width of a terminal; elsewhere whole, for `grep` and the like."""
    if sys.stdout.isatty():
        text = f"\n{' ' * len(head)}".join(textwrap.wrap(text, max(24, columns() - len(head))))
    print(head + text)


def _print_summary(outcomes: Sequence[Outcome], out: Path, seconds: float) -> None:
    """Print failures and totals, and the time if anything was computed."""
    from causal_sgd.studies.reproduction import duration

    claims = [verdict for outcome in outcomes for verdict in outcome.judged.values()]
    findings = sum(len(outcome.findings) for outcome in outcomes)
    failed = [
        (outcome.name, verdict) for outcome in outcomes for verdict in outcome.failed.values()
    ]
    broken = [outcome for outcome in outcomes if outcome.error is not None]
    skipped = [outcome for outcome in outcomes if outcome.skipped]
    print()
    for name, verdict in failed:
        claim = verdict.claim
        print(f"FAILS  {name}: {claim.text}: {verdict.measured:.4g}, not {claim.interval}")
    for outcome in broken:
        print(f"ERROR  {outcome.name}: {outcome.problem}")
    for outcome in skipped:
        print(f"SKIPPED  {outcome.name}: {outcome.skipped}")
    ran = any(outcome.record is not None and not outcome.reused for outcome in outcomes)
    print(
        f"{len(claims) - len(failed)} of {len(claims)} claims hold"
        + (f"; {findings} {'finding' if findings == 1 else 'findings'}" if findings else "")
        + (f"; {len(broken)} of {len(outcomes)} studies stopped with an error" if broken else "")
        + (f"; {len(skipped)} of {len(outcomes)} studies skipped" if skipped else "")
        + f"; report in {out / 'report.html'}"
        + (f"; {duration(seconds)}" if ran else "")
    )
