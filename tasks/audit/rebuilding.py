"""A round built again from its corpus and policy, and compared (``policylong audit --rebuild``).

The work is done in a home of its own below this one, which has the corpus, the policies and the earlier rounds as hard
links and nothing of what was computed; it is removed afterwards. The stages run as in a build, one after the other and
without Prefect, MLflow or a published version. Equal manifests are equal versions.

Where device, libraries or a step's code are not those that the manifest records, another version proves nothing: what
differs is said and the finding is *not-checkable*. Where they are the same, a difference fails, with the first table
and the first row that differ.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
from prefect.task_runners import TaskRunner
from pydantic import BaseModel, ValidationError

from models.embedders import EmbedderConfig
from storage.corpora import corpus_folder, open_corpus
from storage.digests import short
from storage.errors import ConfigError, PolicylongError
from storage.files import place
from storage.findings import Finding, failed, not_checkable, passed
from storage.home import Home
from storage.manifests import Manifest
from storage.policies import policy_folder
from storage.refs import Ref
from storage.schemas import TABLES
from storage.vectors import IndexConfig
from storage.versions import load_manifest, table_refs, version_uri
from tasks.audit.looked import Looked
from tasks.audit.memberships import naming
from tasks.audit.subject import ROUND_TABLES
from tasks.checkpointed import Step
from tasks.recipes import recipe_named, resolved
from tasks.resources import release
from tasks.rounds.building import BuildConfig, policy_inputs
from tasks.rounds.publishing import with_documents
from tasks.rounds.round import Refs, Round
from tasks.rounds.tables import RoundTables, Standing, round_manifest

CHECK = "built again"
_ENVIRONMENT = ("numeric", "code_versions", "format")
Inputs = TypeVar("Inputs", bound=BaseModel)
Config = TypeVar("Config", bound=BaseModel)


class _Direct(Step[Inputs, Config]):
    """A step that runs at once, without a task around it."""

    def __init__(self, step: Step[Inputs, Config]) -> None:
        self.name, self.code_version, self.produce = step.name, step.code_version, step.produce

    def submit(
        self, home: Home, inputs: Inputs, config: Config, *, label: str, runner: TaskRunner[Any] | None = None
    ) -> Callable[[], Refs]:
        made = self.run(home, inputs, config)
        return lambda: made

    def __call__(self, home: Home, inputs: Inputs, config: Config, *, label: str) -> Refs:
        return self.run(home, inputs, config)


@dataclass(frozen=True)
class _DirectRound(Round):
    """A round whose steps run without Prefect."""

    def whole(self, step: Step[Any, Any], inputs: BaseModel, config: BaseModel, *, label: str = "") -> None:
        super().whole(_Direct(step), inputs, config, label=label)

    def over_shards(
        self, step: Step[Any, Any], config: BaseModel, inputs: Iterable[BaseModel], *, screening: bool = True
    ) -> None:
        super().over_shards(_Direct(step), config, inputs, screening=screening)


def rebuild(home: Home, version: str, manifest: Manifest) -> Iterator[Finding]:
    """Builds the round of a version again and compares; takes as long as the round took.

    *not-checkable* when the corpus, a policy or an earlier round is not at hand, or the embedder is not known.
    """
    with home.lock("rebuild", wait_seconds=0):
        for left in home.path.glob(".rebuild-*"):  # of a process that was killed: the lock is ours
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=home.path, prefix=".rebuild-") as folder:
            try:
                scratch = scratch_home(home, Path(folder) / "home", version, manifest)
                made, tables = built_again(scratch, manifest, embedder_of(home, version))
            except PolicylongError as error:
                yield not_checkable(CHECK, error.message.replace(folder, "").strip())
                return
            finally:
                release()
            yield compared(home, version, manifest, scratch, made, tables)


def embedder_of(home: Home, version: str) -> EmbedderConfig:
    """The embedder in the configuration of a campaign that names the version; raises ``ConfigError`` without one."""
    for members in naming(Looked(home), version):
        try:
            return EmbedderConfig.model_validate(members.campaign.config["corpus"]["embedder"])
        except (ValidationError, KeyError, TypeError):
            continue
    raise ConfigError("no campaign of this home says which embedder the round had.")


def scratch_home(home: Home, path: Path, version: str, manifest: Manifest) -> Home:
    """A home with the corpus, all policies and the rounds before, as hard links; nothing that was computed."""
    open_corpus(home, manifest.corpus)
    folders, before = [corpus_folder(manifest.corpus), "policies"], manifest.previous_version
    policy_folder(home, manifest.policy)
    while before is not None:
        folders.append(version_uri(before))
        before = load_manifest(home, before).previous_version
    for folder in folders:
        for file in (home / folder).rglob("*"):
            if file.is_file():
                place(file, path / file.relative_to(home.path))
    return Home.open(path)


def built_again(scratch: Home, manifest: Manifest, embedder: EmbedderConfig) -> tuple[Manifest, RoundTables]:
    """The manifest that the round has when it is built now, and its tables in the scratch home."""
    try:
        config, options = resolved(BuildConfig.model_validate(manifest.config))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"this version of policylong can't build its configuration: {name}: {first['msg']}."
        ) from error
    recipe = recipe_named(config.recipe)
    this = _DirectRound(
        home=scratch,
        number=manifest.round,
        config=config,
        options=options,
        corpus=open_corpus(scratch, manifest.corpus),
        policy=policy_inputs(manifest.policy, policy_folder(scratch, manifest.policy), config.numeric),
        embedder=embedder,
        index=IndexConfig(),
    )
    for stage in recipe.stages:
        stage.run(this)
    tables = RoundTables.of(this)
    standing = Standing(manifest.relation, manifest.lag, manifest.previous_version)
    made = round_manifest(this, recipe, tables, standing)
    return with_documents(scratch, made, tables.files())[0], tables


def compared(
    home: Home, version: str, manifest: Manifest, scratch: Home, made: Manifest, tables: RoundTables
) -> Finding:
    """The finding: the same version, or the first thing that differs."""
    if made.version == version:
        return passed(CHECK, f"gives version {short(version)} again, {len(made.files)} files")
    old, new = manifest.model_dump(mode="json"), made.model_dump(mode="json")
    changed = [name for name in _ENVIRONMENT if old[name] != new[name]]
    fields = sorted(name for name in old if old[name] != new[name] and name not in ("files", *_ENVIRONMENT))
    first = first_difference(home, version, manifest, scratch, tables)
    parts = [first or "every table is the same"]
    if first is None and fields:
        parts.append(f"of the manifest differ: {', '.join(fields)}")
    if changed:
        parts.append(f"not the environment of then: {_environment(old, new)}")
        if first is None and not [name for name in fields if name != "figures"]:
            return passed(CHECK, "; ".join(parts))
        return not_checkable(CHECK, f"gives version {short(made.version)}: {'; '.join(parts)}")
    return failed(CHECK, f"gives version {short(made.version)}: {'; '.join(parts)}", version_uri(version))


def first_difference(home: Home, version: str, manifest: Manifest, scratch: Home, tables: RoundTables) -> str | None:
    """The first table, in the order of the funnel, and the first row of it that differ; ``None`` when all are equal."""
    for table in ROUND_TABLES:
        then, now = table_refs(version, manifest, table), tables.tables.get(table, ())
        for shard, (old, new) in enumerate(zip_longest(then, now)):
            if old is None or new is None:
                return f"table {table} has {len(then)} shards, built again {len(now)}"
            if old.sha256 != new.sha256:
                return f"table {table}, shard {shard}: {_first_row(home, old, scratch, new)}"
    return None


def _first_row(home: Home, old: Ref, scratch: Home, new: Ref) -> str:
    key = TABLES[old.table].key
    pairs = zip_longest(_rows(home.path / old.uri), _rows(scratch.path / new.uri))
    for number, (then, now) in enumerate(pairs):
        if then == now:
            continue
        if then is None or now is None:
            return f"{old.rows} rows, built again {new.rows}"
        columns = [name for name in then if then[name] != now[name]]
        where = ", ".join(f"{name} {_brief(then[name])}" for name in key)
        says = "; ".join(f"{name} is {_brief(then[name])}, built again {_brief(now[name])}" for name in columns[:4])
        return f"row {number} ({where}): {says}"
    return "the same rows in other bytes"


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=64):
            yield from batch.to_pylist()


def _brief(value: Any) -> str:
    text = short(value) if isinstance(value, str) else f"{value:.7g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _environment(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What of device, type, threads, libraries and code is not what it was."""
    then, now = _flat(old), _flat(new)
    differing = (name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name))
    return ", ".join(f"{name} {then.get(name, 'none')} → {now.get(name, 'none')}" for name in differing)


def _flat(manifest: dict[str, Any]) -> dict[str, Any]:
    numeric = {name: value for name, value in manifest["numeric"].items() if name != "versions"}
    steps = {f"code of {name}": number for name, number in manifest["code_versions"].items()}
    return {"format": manifest["format"], **numeric, **manifest["numeric"]["versions"], **steps}
