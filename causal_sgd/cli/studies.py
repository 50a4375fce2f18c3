"""`causal-sgd reproduce` and `causal-sgd list`: the studies, their claims and figures, and every name there is."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import tyro

from causal_sgd import checks
from causal_sgd.cli.computation import start
from causal_sgd.cli.outputs import PLOT_SUFFIXES, check_output, plain
from causal_sgd.experiment import CHOICES, SWEPT

__all__ = ["List", "Reproduce"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Run the studies, check their claims and write their figures; exit code 1 if a claim fails."""

    studies: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which studies, as `causal-sgd list` names them; by default the few that show what the paper shows."""
    all: bool = False
    """All studies."""
    quick: bool = False
    """A reduced size, for a look; too small to decide every claim."""
    seed: int = 0
    """Root of all randomness."""
    out: Path = Path("figures")
    """The folder of the figures (.png and .pdf) and of claims.json."""

    def __call__(self) -> int:
        """Run them."""
        from causal_sgd import studies

        names = [checks.choice("study", name.replace("_", "-"), studies.NAMES) for name in self.studies]
        if names and self.all:
            raise ValueError(f"--all stands for all studies, got {names[0]!r} beside it")
        names = names or (studies.NAMES if self.all else studies.CORE)
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--out must be a folder that can be written, got {self.out}: {error.strerror}") from None
        check_output("--out", self.out / "claims.png", PLOT_SUFFIXES)
        checks.integer("seed", self.seed, minimum=0)
        start()
        import matplotlib as mpl

        mpl.use("Agg")
        from causal_sgd import plots

        begin = time.perf_counter()
        if self.quick:
            print("quick: a reduced size; claims are checked, but this is not the full reproduction")
        records = []
        for name in names:
            study = studies.load(name)
            began = time.perf_counter()
            data = study.run(quick=self.quick, key=self.seed, progress=None)
            verdicts = studies.verdicts(study, data)
            with plots.style():
                drawing = study.figure(data)
                for suffix in ("png", "pdf"):
                    drawing.savefig(self.out / f"{name}.{suffix}")
            print(f"\n{name}: {studies.title(study)}  [{time.perf_counter() - began:.0f} s]")
            for verdict in verdicts:
                claim, word = verdict.claim, "holds" if verdict.holds else "FAILS"
                allowed = f"[{claim.low:g}, {claim.high:g}]"
                print(
                    f"  {word}  {verdict.measured:>8.3f}  in {allowed:<13} {claim.text}  ({claim.source})", flush=True
                )
                records.append({"study": name, "holds": verdict.holds, "measured": verdict.measured, **claim._asdict()})
        table = [{k: plain(v) if isinstance(v, float) else v for k, v in record.items()} for record in records]
        (self.out / "claims.json").write_text(
            json.dumps({"quick": self.quick, "seed": self.seed, "claims": table}, indent=1)
        )
        failed = sum(not record["holds"] for record in records)
        took = time.perf_counter() - begin
        print(f"\n{len(records) - failed} of {len(records)} claims hold; figures in {self.out}/; {took:.0f} s")
        return 1 if failed else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class List:
    """List the studies and every name that the other commands accept."""

    def __call__(self) -> int:
        """Print it."""
        from causal_sgd import studies

        print("studies of `causal-sgd reproduce --all`; those with a star are the default of `causal-sgd reproduce`:")
        for name in studies.NAMES:
            print(f"{'*' if name in studies.CORE else ' '} {name:15} {studies.title(studies.load(name))}")
        print("\nnames:")
        for field, options in CHOICES.items():
            print(f"  --{field.replace('_', '-'):15} {', '.join(options)}")
        from causal_sgd import metrics

        print(f"  --{'metrics':15} {', '.join(metrics.__all__)}")
        print(f"\naxes of `causal-sgd phase`:\n  {', '.join(name.replace('_', '-') for name in SWEPT)}")
        return 0
