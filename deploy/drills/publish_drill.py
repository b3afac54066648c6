"""Kills the publication of a round at every change that it makes on disk, and shows that the same call finishes it.

    python deploy/drills/publish_drill.py --home .policylong 1              round 1 of the home's current campaign
    python deploy/drills/publish_drill.py --home .policylong 1 --only 17    one position again

A published round is published anew in an empty home, by the product's own transaction (files, manifest, plots, MLflow,
campaign record), and killed (SIGKILL) before its n-th change, for every n there is: before a file is opened for
writing, linked, renamed or removed, when half of it is written, before MLflow's database commits. Then:

- there is no version in the home or a whole one, and the campaign has the round only if everything else is done;
- the same call finishes it: the version is the same, no half-written file is left, and MLflow has what a publication
  has that nobody disturbed, once.

A manifest that is cut at its final place (by a disk that lost what it had confirmed) is refused and made anew, too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.drills.kill_drill import Verdict, console, show
from deploy.drills.write_positions import COMMIT, Positions, in_child
from flows.environment import prepare
from storage.campaigns import current_name, load_campaign, start_campaign
from storage.errors import IntegrityError, PolicylongError
from storage.home import Home
from storage.manifests import MANIFEST, Manifest
from storage.tracking import Tracking
from storage.versions import list_versions, load_manifest, resolve_version, verify_version, version_uri

IGNORED = ("locks/", "mlflow/mlflow.db", "reports/.cache")
AREAS = {"versions": "files", "reports": "plots", "mlflow": "MLflow's files", "campaigns": "campaign record"}


@dataclass(frozen=True)
class Publication:
    """A round to publish: its manifest, the folder its files come from, the campaign, an empty home with MLflow."""

    manifest: Manifest
    folder: Path
    campaign: str
    config: dict[str, Any]
    template: Path

    def publish(self, path: Path) -> str:
        """Publishes into a home and returns the version."""
        from tasks.rounds.publishing import publish_round

        home = Home.open(path)
        files = {name: self.folder / name for name in self.manifest.files}
        return publish_round(home, self.campaign, self.manifest, files, tracking=Tracking(home))

    def fresh(self, path: Path) -> Path:
        """A home in which the campaign was started and nothing is published."""
        shutil.copytree(self.template, path)
        return path

    def killed(self, path: Path, at: int | None) -> list[str]:
        """Publishes and is killed at a position; returns what it changed where it was not."""
        positions = Positions(path, at=at, ignored=IGNORED)
        positions.watch()
        self.publish(path)
        return positions.seen

    def state(self, path: Path) -> dict[str, Any]:
        """What is there, in a form to compare: versions, findings, the campaign's rounds, MLflow's run."""
        home, version = Home(path), self.manifest.version
        there = list_versions(home)
        findings = [f"{f.file}: {f.detail}" for f in verify_version(home, version) if f.status == "failed"]
        record = load_campaign(home, self.campaign)
        return {
            "versions": there,
            "findings": findings if there else [],
            "rounds": [r.model_dump(mode="json") for r in record.rounds],
            "half": sorted(path.name for path in (home / "versions").rglob(".*.tmp")),
            "mlflow": _run_of(home, version),
        }


def _run_of(home: Home, version: str) -> dict[str, Any] | None:
    """MLflow's runs of a version: what does not depend on when and by whom they were made."""
    from mlflow.entities import ViewType

    def asked(client: Any) -> dict[str, Any] | None:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(experiments, f"tags.`policylong.version` = '{version}'", ViewType.ALL)
        if not runs:
            return None
        (run,) = runs
        history = {name: len(client.get_metric_history(run.info.run_id, name)) for name in run.data.metrics}
        return {
            "status": run.info.status,
            "params": run.data.params,
            "metrics": run.data.metrics,
            "history": history,
            "tags": {name: value for name, value in run.data.tags.items() if name.startswith("policylong.")},
            "datasets": [entry.dataset.digest for entry in run.inputs.dataset_inputs],
            "artifacts": sorted(file.path for file in client.list_artifacts(run.info.run_id)),
        }

    found: dict[str, Any] | None = Tracking(home).ask(asked)
    return found


def area_of(what: str) -> str:
    """The part of the transaction that a change belongs to."""
    event, _, name = what.partition(" ")
    if event == COMMIT:
        return "MLflow's database"
    if name.endswith(f"/{MANIFEST}") or f".{MANIFEST}." in name:
        return "manifest" if name.startswith("versions") else AREAS["mlflow"]
    return AREAS.get(name.partition("/")[0], "other")


@dataclass(frozen=True)
class Outcome:
    """One position: what was about to change, and what was wrong after the kill or after the same call."""

    number: int
    what: str
    wrong: str


def problem(publication: Publication, home: Path, reference: dict[str, Any], number: int) -> str:
    """What is wrong with a publication that is killed at a position and made again; "" when nothing is."""
    code, _ = in_child(lambda: publication.killed(publication.fresh(home), number))
    if code != -signal.SIGKILL:
        return f"it was not killed: exit code {code}"
    code, after = in_child(lambda: publication.state(home))
    if code:
        return f"the home can't be read after the kill: exit code {code}"
    lasting = [finding for finding in after["findings"] if ".tmp: " not in finding]
    if lasting:
        return f"a version that is not whole: {lasting}"
    if after["rounds"] and (not after["versions"] or after["mlflow"] != reference["mlflow"]):
        return "the campaign has the round before it is published"
    code, version = in_child(lambda: publication.publish(home))
    if code or version != publication.manifest.version:
        return f"the same call ended with {code} and version {version}"
    code, after = in_child(lambda: publication.state(home))
    differing = [name for name in reference if code or after[name] != reference[name]]
    return f"{', '.join(differing)} differ from an undisturbed publication" if differing else ""


def cut_manifests(publication: Publication, home: Path) -> Iterator[Verdict]:
    """Whether a manifest cut to any of some lengths is refused, and made anew by the same call."""

    def refused(length: int) -> bool:
        path = home / version_uri(publication.manifest.version) / MANIFEST
        path.write_bytes(publication.manifest.canonical[:length])
        try:
            load_manifest(Home(home), publication.manifest.version)
        except IntegrityError as error:
            again = publication.publish(home) == publication.manifest.version
            return again and bool(error.hint) and path.read_bytes() == publication.manifest.canonical
        return False

    whole = len(publication.manifest.canonical)
    for length in (0, 1, whole // 2, whole - 1):
        code, holds = in_child(lambda length=length: refused(length))  # type: ignore[misc]
        yield Verdict(f"a manifest of {length} of {whole} bytes is refused and made anew", not code and holds, "")


def drill(publication: Publication, scratch: Path, choose: Callable[[list[str]], Iterable[int]]) -> Iterator[Outcome]:
    """One outcome for each position that ``choose`` takes from the changes of a publication that is not disturbed."""
    calm = scratch / "calm"
    code, seen = in_child(lambda: publication.killed(publication.fresh(calm), None))
    if code:
        raise SystemExit("error: the publication failed without a kill; what it said stands above.")
    _, reference = in_child(lambda: publication.state(calm))
    for number in choose(seen):
        home = scratch / f"at-{number}"
        yield Outcome(number, seen[number], problem(publication, home, reference, number))
        shutil.rmtree(home)


def table(outcomes: Sequence[Outcome]) -> str:
    """Kills by the part of the transaction that they hit, as a table in Markdown."""
    made = Counter(area_of(outcome.what) for outcome in outcomes)
    good = Counter(area_of(outcome.what) for outcome in outcomes if not outcome.wrong)
    lines = ["| about to change | killed | none or whole, and finished by the same call |", "|---|---:|---:|"]
    lines += [f"| {area} | {made[area]} | {good[area]} |" for area in made]
    return "\n".join([*lines, f"| **all** | **{made.total()}** | **{good.total()}** |"])


def publication_of(home: Home, text: str, scratch: Path) -> Publication:
    """The publication of a round of a home, with an empty home to copy."""
    from tasks.rounds.publishing import with_documents

    version = resolve_version(home, text)
    record = load_campaign(home, current_name(home))
    template = Home.open(scratch / "template")
    start_campaign(template, record.name, record.config)
    # Card and configuration are written anew by the transaction: what it publishes has a name of its own.
    folder, old = home / version_uri(version), load_manifest(home, version)
    manifest, _ = with_documents(home, old, {name: folder / name for name in old.files})
    made = Publication(manifest, folder, record.name, record.config, template.path)
    code, _ = in_child(lambda: Tracking(template).find_version(version))
    if code:
        raise SystemExit("error: MLflow's database could not be made; what it said stands above.")
    return made


def main(given: Sequence[str] | None = None) -> int:
    """Runs the drill; 0 when every kill was without harm."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    default = Path(os.environ.get("POLICYLONG_HOME", ".policylong"))
    parser.add_argument("--home", type=Path, default=default, help="home folder (POLICYLONG_HOME or .policylong)")
    parser.add_argument("--every", type=int, default=1, help="try each so many-th position (1)")
    parser.add_argument("--start", type=int, default=0, help="first position (0)")
    parser.add_argument("--stop", type=int, help="position after the last one (all)")
    parser.add_argument("--only", type=int, action="append", help="try one position, by its number")
    parser.add_argument("round", nargs="?", default="1", help="round, version or prefix (1)")
    chosen = parser.parse_args(given)
    prepare(chosen.home)
    import matplotlib.figure  # noqa: F401  every fork has it without importing it again
    import mlflow  # noqa: F401

    import tasks.rounds.publishing  # noqa: F401

    def choose(seen: list[str]) -> Iterable[int]:
        last = len(seen) if chosen.stop is None else min(chosen.stop, len(seen))
        console.print(f"{len(seen)} positions")
        return chosen.only or range(chosen.start, last, chosen.every)

    outcomes: list[Outcome] = []
    try:
        with tempfile.TemporaryDirectory(prefix="policylong-publish-", ignore_cleanup_errors=True) as folder:
            scratch = Path(folder)
            publication = publication_of(Home.open(chosen.home), chosen.round, scratch)
            for outcome in drill(publication, scratch, choose):
                outcomes.append(outcome)
                if outcome.wrong or chosen.only:
                    console.print(f"{outcome.number} {outcome.what}: {outcome.wrong or 'no harm'}", markup=False)
            cuts = list(cut_manifests(publication, scratch / "calm"))
    except PolicylongError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    show(cuts)
    print(table(outcomes))
    return 0 if outcomes and not any(o.wrong for o in outcomes) and all(cut.holds for cut in cuts) else 1


if __name__ == "__main__":
    sys.exit(main())
