"""`causal-sgd doctor`: is this installation in order?"""

from __future__ import annotations

import dataclasses
import json

from causal_sgd.cli.computation import start

__all__ = ["Doctor"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doctor:
    """Tell versions, devices, cores and settings, and run a small test against known numbers; 1 if something fails."""

    json: bool = False
    """Print one JSON object and nothing else."""

    def __call__(self) -> int:
        """Examine and print."""
        start()
        from causal_sgd.cli import doctor

        findings = []
        for finding in doctor.examine():
            findings.append(finding)
            if not self.json:
                print(f"{finding.verdict:6} {finding.name:20} {finding.said}", flush=True)
        failed = [finding.name for finding in findings if finding.verdict == "FAILS"]
        if self.json:
            print(
                json.dumps(
                    {"healthy": not failed, "findings": [finding._asdict() for finding in findings]}
                )
            )
        else:
            print(f"\nsomething is wrong: {', '.join(failed)}" if failed else "\nall in order")
        return 1 if failed else 0
