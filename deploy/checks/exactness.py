"""Compares the product with the literal, slow method on roots of real text, decision by decision.

    python deploy/checks/exactness.py --roots 50 --home .policylong

The positions, candidates, verdicts and negatives of a preset (quickstart, in fp32) are made by the product's own steps
and once more by tests/literal_method.py: one forward pass per token and per candidate, float64 softmax, brute-force
cosines. The exit code is 1 when a decision differs that is not at its limit (deploy/checks/agreement.py says how near
counts as near).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from flows.session import Session
from storage.errors import PolicylongError

if TYPE_CHECKING:
    from deploy.checks.agreement import Agreement


def agreement_in(home: Path, preset: str, overrides: Sequence[str], threads: int) -> Agreement:
    """Screens a preset's roots both ways in a home; stopped by Ctrl-C, it gives what was compared until then."""
    opened = Session(home).open()  # sets the environment, before Prefect and torch are imported
    import torch

    from deploy.checks.agreement import Agreement
    from deploy.checks.screening import compare_all, product_of
    from flows.presets import load_preset
    from tasks.resources import release

    torch.set_num_threads(threads)
    agreement = Agreement()
    try:
        compare_all(product_of(opened, load_preset(preset, overrides)), agreement)
    except KeyboardInterrupt:
        agreement.stopped = True
    finally:
        release()
    return agreement


def report(agreement: Agreement, seconds: float) -> None:
    """Prints the counts and the largest differences."""
    table = Table("compared", "equal", "near", "different", "first difference", title=f"{agreement.roots} roots")
    for kind, tally in agreement.tallies.items():
        style = "red" if tally.different else "green"
        numbers = (f"{n:,}" for n in (tally.equal, tally.near, tally.different))
        table.add_row(kind, *numbers, tally.first or "-", style=style)
    console = Console()
    console.print(table)
    for kind, difference in agreement.largest.items():
        console.print(f"largest absolute difference, {kind}: {difference:.2e} nats", highlight=False)
    until = " so far, stopped" if agreement.stopped else ""
    console.print(f"{'agrees' if agreement.holds else 'DIFFERS'}{until} after {seconds:.0f} s", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the check; 0 when everything that is not near its limit is equal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--roots", type=int, default=50, help="roots to compare (50)")
    parser.add_argument("--home", type=Path, help="home whose corpus is used or made there (a temporary one)")
    parser.add_argument("--preset", default="quickstart", help="preset that says what is screened and how (quickstart)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    chosen = parser.parse_args(arguments)
    overrides = (
        f"build.roots.roots_per_round={chosen.roots}",
        "build.roots.probe_roots=0",
        "build.rounds=1",
        f"build.numeric.threads={chosen.threads}",
        "build.numeric.dtype=float32",
        "build.numeric.device=cpu",
        f"corpus.embedder.threads={chosen.threads}",
    )
    start = time.monotonic()
    try:
        with ExitStack() as stack:
            home = chosen.home or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="exactness-")))
            agreement = agreement_in(home, chosen.preset, overrides, chosen.threads)
    except PolicylongError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    report(agreement, time.monotonic() - start)
    if agreement.stopped:
        print("stopped: not all roots were compared", file=sys.stderr)
        return 130
    return 0 if agreement.holds else 1


if __name__ == "__main__":
    sys.exit(main())
