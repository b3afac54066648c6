"""``policylong diff``: what two versions have in common, and what came and went.

Roots are compared by their digest, since every version numbers them itself; chunks by their row when both versions are
of one corpus, else by their digest. All counts are joins of lazy frames: memory holds keys of rows, never texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, JsonValue, computed_field

from storage.digests import digest_json, short
from storage.home import Home
from tasks.audit.subject import Subject
from tasks.provenance.lookup import open_subject, readable

Scope = Literal["all", "probe"]
SCOPES: tuple[Scope, ...] = ("all", "probe")
FACTS = (
    "version",
    "round",
    "recipe",
    "relation",
    "lag",
    "policy",
    "parent_policy",
    "parent_version",
    "previous_version",
    "corpus",
    "embedder",
)
SECTIONS = ("config", "numeric", "code_versions", "seeds", "funnel", "tokens", "figures")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Change(_Part):
    """A value in which two versions differ."""

    section: str = Field(description="identity, or a section of the manifest.")
    key: str = Field(description="Dotted below its section.")
    first: JsonValue
    second: JsonValue
    only_in: Literal["first", "second"] | None = Field(description="Where the other version has no such key.")


class Overlap(_Part):
    """How far two sets are the same."""

    scope: Scope = Field(description="all, or the probe set alone.")
    what: str = Field(description="roots (screened), positions (root, t), positives or negatives (root, chunk).")
    first: int
    second: int
    stayed: int = Field(description="In both.")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def went(self) -> int:
        """Only in the first."""
        return self.first - self.stayed

    @computed_field  # type: ignore[prop-decorator]
    @property
    def came(self) -> int:
        """Only in the second."""
        return self.second - self.stayed

    @computed_field  # type: ignore[prop-decorator]
    @property
    def share(self) -> float | None:
        """Those in both over those in either; None when both are empty."""
        union = self.first + self.second - self.stayed
        return self.stayed / union if union else None


class Distribution(_Part):
    """Count, mean and quartiles (linear between neighbours); null when there is nothing."""

    count: int
    mean: float | None
    lower: float | None = Field(description="25th percentile.")
    median: float | None
    upper: float | None = Field(description="75th percentile.")


class Drift(_Part):
    """One quantity in both versions."""

    scope: Scope
    what: str = Field(description="entropy (positions), threshold (roots), gain (kept verdicts), distance (samples).")
    unit: str
    first: Distribution
    second: Distribution


class Differences(_Part):
    """Two versions, side by side."""

    first: str
    second: str
    changes: tuple[Change, ...]
    overlaps: tuple[Overlap, ...]
    drifts: tuple[Drift, ...]
    unknown: tuple[str, ...] = Field(description="What can't be compared, and why.")


def differences(home: Home, first: str, second: str) -> Differences:
    """Compares two versions, each given as ``storage.versions.resolve_version`` takes it.

    Raises ``InputError`` for a version that is not there and ``IntegrityError`` for damaged tables. Sets whose ids
    can't meet (other corpora, other tokenizers) are left out, and ``unknown`` says so.
    """
    one, two = open_subject(home, first), open_subject(home, second)
    notes: list[str] = []
    with readable(one), readable(two):
        overlaps = tuple(_overlaps(one, two, notes))
        drifts = tuple(_drifts(one, two))
    return Differences(
        first=one.version,
        second=two.version,
        changes=tuple(_changes(one, two)),
        overlaps=overlaps,
        drifts=drifts,
        unknown=tuple(notes),
    )


def _changes(one: Subject, two: Subject) -> Iterator[Change]:
    first, second = (
        {name: getattr(subject.manifest, name) for name in FACTS[1:]} | {"version": subject.version}
        for subject in (one, two)
    )
    yield from changed("identity", first, second)
    documents = [subject.manifest.model_dump(mode="json") for subject in (one, two)]
    for section in SECTIONS:
        yield from changed(section, documents[0][section], documents[1][section])


def changed(section: str, one: Mapping[str, Any], two: Mapping[str, Any], prefix: str = "") -> Iterator[Change]:
    """The values in which two mappings differ, keys dotted and sorted."""
    for key in sorted(one.keys() | two.keys()):
        before, after = one.get(key), two.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from changed(section, before, after, f"{prefix}{key}.")
        elif key not in one or key not in two:
            where: Literal["first", "second"] = "first" if key in one else "second"
            yield Change(section=section, key=prefix + key, first=before, second=after, only_in=where)
        elif digest_json(before) != digest_json(after):
            yield Change(section=section, key=prefix + key, first=before, second=after, only_in=None)


@dataclass(frozen=True)
class _Keyed:
    """Tables of a version by ids that mean the same in another version."""

    subject: Subject
    by_chunk_id: bool

    @property
    def roots(self) -> pl.LazyFrame:
        """Screened roots, or all where nothing is screened: ``root``, ``root_id``, ``role``."""
        roots = self.subject.table("roots").select("root", "root_id", "role")
        if not self.subject.has("screened"):
            return roots
        return roots.join(self.subject.table("screened").select("root"), on="root", how="semi")

    def table(self, name: str) -> pl.LazyFrame:
        """Rows of a table that speaks of roots, with ``root_id`` and ``role``."""
        return self.subject.table(name).join(self.roots, on="root")

    def keys(self, what: str) -> tuple[pl.LazyFrame, list[str]]:
        """The rows of a set and the columns that identify one."""
        if what == "roots":
            return self.roots, ["root_id"]
        if what == "positions":
            return self.table("positions"), ["root_id", "t"]
        kept = self.table("verdicts" if what == "positives" else "negatives").filter(pl.col("kept"))
        if self.by_chunk_id:
            return kept.join(self.subject.chunks().select("chunk", "chunk_id"), on="chunk"), ["root_id", "chunk_id"]
        return kept, ["root_id", "chunk"]


def _overlaps(one: Subject, two: Subject, notes: list[str]) -> Iterator[Overlap]:
    same = one.manifest.corpus == two.manifest.corpus
    sets = ["roots", "positions"]
    if not _roots_meet(one, two):
        without = [subject.manifest.recipe for subject in (one, two) if not subject.has("roots")]
        why = (
            f"recipe {without[0]} cuts no roots"
            if without
            else "no root of the one is a root of the other (other documents, roots of another length, or another"
            " tokenizer)"
        )
        notes.append(f"{why}: positions, positives and negatives can't be compared")
        return
    problem = None if same else _why_chunks_do_not_meet(one, two)
    if problem is None:
        sets += ["positives", "negatives"]
    else:
        notes.append(f"{problem}: positives and negatives can't be compared")
    keyed = [_Keyed(subject, by_chunk_id=not same) for subject in (one, two)]
    for scope in SCOPES:
        for what in sets:
            frames = []
            for side in keyed:
                frame, key = side.keys(what)
                frames.append(_scoped(frame, scope).select(key).unique())
            stayed = frames[0].join(frames[1], on=key, how="semi")
            first, second, both = (_count(frame) for frame in (*frames, stayed))
            yield Overlap(scope=scope, what=what, first=first, second=second, stayed=both)


def _roots_meet(one: Subject, two: Subject) -> bool:
    """Whether the versions have roots in common, screened or not; two without any have nothing to refuse."""
    if not one.has("roots") and not two.has("roots"):
        return True
    frames = [subject.table("roots").select("root_id") for subject in (one, two)]
    return _count(frames[0].join(frames[1], on="root_id", how="semi").head(1)) > 0


def _why_chunks_do_not_meet(one: Subject, two: Subject) -> str | None:
    gone = [short(subject.manifest.corpus) for subject in (one, two) if subject.corpus is None]
    if gone:
        return f"the versions are of different corpora, and corpus {' and '.join(gone)} is not in this home"
    frames = [subject.chunks().select("chunk_id") for subject in (one, two)]
    if not _count(frames[0].join(frames[1], on="chunk_id", how="semi").head(1)):
        return "the versions are of different corpora that have no chunk in common"
    return None


def _drifts(one: Subject, two: Subject) -> Iterator[Drift]:
    keyed = [_Keyed(subject, by_chunk_id=False) for subject in (one, two)]
    for scope in SCOPES:
        for what, table, unit in (
            ("entropy", "positions", "nats"),
            ("threshold", "screened", "nats"),
            ("gain", "verdicts", ""),
        ):
            sides = [_scoped(_judged(side, table), scope).select(what) for side in keyed]
            yield Drift(scope=scope, what=what, unit=unit, first=described(sides[0]), second=described(sides[1]))
        if scope == "all":
            sides = [_distances(subject) for subject in (one, two)]
            yield Drift(
                scope=scope, what="distance", unit="tokens", first=described(sides[0]), second=described(sides[1])
            )


def _judged(side: _Keyed, table: str) -> pl.LazyFrame:
    rows = side.table(table)
    return rows.filter(pl.col("kept")) if table == "verdicts" else rows


def _distances(subject: Subject) -> pl.LazyFrame:
    helping = subject.table("samples").select("dependencies").filter(pl.col("dependencies").list.len() > 0)
    return helping.explode("dependencies").unnest("dependencies").select("distance")


def _scoped(frame: pl.LazyFrame, scope: Scope) -> pl.LazyFrame:
    return frame.filter(pl.col("role") == "probe") if scope == "probe" else frame


def described(column: pl.LazyFrame) -> Distribution:
    """The distribution of a frame of one column."""
    value = pl.all().cast(pl.Float64)
    quartiles = [
        value.quantile(share, "linear").alias(name)
        for name, share in (("lower", 0.25), ("median", 0.5), ("upper", 0.75))
    ]
    row = column.select(pl.len().alias("count"), value.mean().alias("mean"), *quartiles).collect().row(0, named=True)
    return Distribution(**row)


def _count(frame: pl.LazyFrame) -> int:
    return int(frame.select(pl.len()).collect(engine="streaming").item())
