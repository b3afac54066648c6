"""``policylong trace``: from tokens of a sample to the document they stand in, the questions they answer, and the model
that asked.

Everything is read from the version's tables and the corpus; nothing is computed anew but the tokenizer's offsets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from storage.digests import short
from storage.errors import IntegrityError, PolicyError
from storage.home import Home
from tasks.audit.subject import Subject
from tasks.provenance.lineage import lineage
from tasks.provenance.lookup import Sample, find_sample, find_span, open_subject, readable
from tasks.provenance.token_origins import Origins, Tokens, tokens_of
from tasks.provenance.trace_evidence import Evidence, Row, gather, neighbours
from tasks.provenance.trace_texts import SampleTexts
from tasks.provenance.traces import Link, Neighbour, Origin, Piece, Position, RootFacts, Seed, Trace

AROUND = 400
"""Characters of a segment shown on either side of the asked tokens."""
NEAR = 120
"""Characters of a root shown on either side of a position."""
CONTEXT = 700
"""Characters of a helping chunk that are shown."""

Key = tuple[str, int, str]
"""root_id, t, chunk_id."""


def trace(home: Home, version: str, sample: str, token: str | None = None) -> Trace:
    """Traces a sample, or with ``token`` (an index or ``a-b``) those tokens of it.

    Raises ``InputError`` for a version, sample or token that is not there, ``IntegrityError`` for damaged tables. What
    needs a corpus or tokenizer that is not in this home is null, and ``unknown`` says so.
    """
    subject = open_subject(home, version)
    with readable(subject):
        found = find_sample(subject, sample)
        span = find_span(found, token) if token is not None else None
        return _Tracer(subject, found).trace(span)


def pieces_of(sample: Sample, start: int, end: int) -> Iterator[tuple[int, int, str, int | None]]:
    """Tokens ``[start, end)`` cut at the borders of segments: (start, end, kind, number of the segment or None)."""
    whole: list[tuple[int, int, str, int | None]] = []
    at = 0
    for number, segment in enumerate(sample.segments):
        whole.append((at, segment["start"], "separator" if number else "bos", None))
        whole.append((segment["start"], segment["end"], segment["kind"], number))
        at = segment["end"]
    whole.append((at, len(sample.input_ids), "separator", None))
    for first, stop, kind, place in whole:
        if max(first, start) < min(stop, end):
            yield max(first, start), min(stop, end), kind, place


class _Tracer:
    def __init__(self, subject: Subject, sample: Sample) -> None:
        self._subject = subject
        self._sample = sample
        self._notes: list[str] = []
        self._tokens = self._tokenizer()
        if subject.corpus is None:
            self._notes.append(
                f"corpus {short(subject.manifest.corpus)} is not in this home (or damaged): sources, titles, texts,"
                " characters, queries' ranks and scores, and likelihoods are not known"
            )
        if not subject.has("positions"):
            self._notes.append(f"recipe {subject.manifest.recipe} screens no positions: there are no entropies")
        self._origins = Origins(subject, sample.segments, self._tokens)
        self._place_of = {s["chunk_id"]: n for n, s in reversed(list(enumerate(sample.segments))) if s["chunk_id"]}
        self._root_of = {s["root_id"]: n for n, s in enumerate(sample.segments) if s["root_id"] and not s["chunk_id"]}
        self._recorded: dict[Key, Row] = {(d["root_id"], d["t"], d["chunk_id"]): d for d in sample.dependencies}
        self._texts = SampleTexts(sample, self._origins, self._tokens, subject.corpus is not None, self._notes)

    def _tokenizer(self) -> Tokens | None:
        try:
            return tokens_of(self._subject.home, self._subject.manifest.policy)
        except (PolicyError, IntegrityError) as error:
            problem = error.message.rstrip(".")
            self._notes.append(f"without the policy's tokenizer no text or character of a token is known: {problem}")
            return None

    def trace(self, span: tuple[int, int] | None) -> Trace:
        """The whole trace; the tables are read once, for the chunks that are asked about."""
        manifest, sample = self._subject.manifest, self._sample
        if span is None:
            self._wanted = {key[2] for key in self._recorded}
            pieces: tuple[Piece, ...] = ()
        else:
            cuts = list(pieces_of(sample, *span))
            self._wanted = set(self._chunks_of(cuts))
            pieces = tuple(self._piece(*cut) for cut in cuts)
        result = Trace(
            version=self._subject.version,
            round=manifest.round,
            recipe=manifest.recipe,
            row=sample.row,
            sample_id=sample.sample_id,
            tokens=len(sample.input_ids),
            span=span,
            segments=tuple(map(self._origin, range(len(sample.segments)))) if span is None else (),
            dependencies=tuple(self._links(self._recorded, context=False)) if span is None else (),
            pieces=pieces,
            corpus=manifest.corpus,
            embedder=manifest.embedder,
            policies=lineage(self._subject.home, manifest),
            relation=manifest.relation,
            lag=manifest.lag,
            config_digest=manifest.config_digest,
            code_versions=manifest.code_versions,
            unknown=tuple(self._notes),
        )
        self._origins.close()
        return result

    def _chunks_of(self, cuts: Iterable[tuple[int, int, str, int | None]]) -> Iterator[str]:
        """Chunks whose questions matter for these pieces: those in them, and those that helped root tokens in them."""
        for start, stop, _, number in cuts:
            if number is None:
                continue
            segment = self._sample.segments[number]
            if segment["chunk_id"]:
                yield segment["chunk_id"]
            else:
                yield from (key[2] for key in self._helping(segment, start, stop))

    @cached_property
    def _evidence(self) -> Evidence:
        roots = {key: place for key, place in self._origins.roots.items() if key in self._root_of}
        chunks = {key: place for key, place in self._origins.chunks.items() if key in self._wanted}
        return gather(self._subject, roots, chunks)

    @cached_property
    def _answers(self) -> dict[Key, Row]:
        roots = {place.row: key for key, place in self._origins.roots.items()}
        names = self._evidence.chunk_ids
        return {(roots[row["root"]], row["t"], names[row["chunk"]]): row for row in self._evidence.answers}

    @cached_property
    def _neighbours(self) -> list[tuple[str, str, int, float | None]]:
        return neighbours(self._subject, self._origins.documents)

    def _origin(self, number: int) -> Origin:
        segment = self._sample.segments[number]
        document = self._origins.documents.get(segment["doc_id"])
        place = self._origins.place(segment)
        own = "chunk_id" if segment["chunk_id"] else "root_id"
        return Origin(
            segment=number,
            **segment,
            source=document.source if document else None,
            title=document.title if document else None,
            part=document.part if document else None,
            char_start=place.start if place else None,
            char_end=place.end if place else None,
            helps=sum(d[own] == segment[own] for d in self._sample.dependencies),
        )

    def _piece(self, start: int, end: int, kind: str, number: int | None) -> Piece:
        if number is None:
            text = self._texts.decoded(start, end)
            return Piece(
                start=start, end=end, kind=kind, origin=None, text=text, before=None, after=None, characters=None
            )
        segment = self._sample.segments[number]
        text, before, after, characters = self._texts.around(number, start, end, AROUND)
        links: Iterable[Link] = ()
        root: RootFacts | None = None
        if segment["chunk_id"]:
            asked = {key for key in (*self._answers, *self._recorded) if key[2] == segment["chunk_id"]}
            links = self._links(asked, context=False)
        elif segment["root_id"]:
            links = self._links(self._helping(segment, start, end), context=True)
            root = self._root(number, start, end)
        return Piece(
            start=start,
            end=end,
            kind=kind,
            origin=self._origin(number),
            text=text,
            before=before,
            after=after,
            characters=characters,
            links=tuple(links),
            root=root,
            seeds=tuple(self._seeds(segment["chunk_id"])) if segment["chunk_id"] else (),
            neighbours=tuple(
                Neighbour(doc_id=doc, rank=rank, score=score)
                for doc, other, rank, score in (self._neighbours if kind == "document" else ())
                if other == segment["doc_id"]
            ),
        )

    def _helping(self, segment: Row, start: int, end: int) -> list[Key]:
        """Recorded dependencies of a root segment's tokens ``[start, end)`` of the sample."""
        return [
            key
            for key, found in self._recorded.items()
            if key[0] == segment["root_id"] and start <= found["position"] < end
        ]

    def _links(self, keys: Iterable[Key], *, context: bool) -> list[Link]:
        """The links of these keys: what helped first, then by place in the sample."""
        links = [self._link(key, context) for key in keys]
        return sorted(links, key=lambda link: (not link.helped, link.position or 0, link.chunk_start or 0))

    def _link(self, key: Key, context: bool) -> Link:
        root_id, t, chunk_id = key
        found, recorded = self._answers.get(key, {}), self._recorded.get(key)
        place = self._origins.roots.get(root_id)
        asked = self._evidence.positions.get((place.row, t), {}) if place else {}
        root, chunk = self._root_of.get(root_id), self._place_of.get(chunk_id)
        position = recorded["position"] if recorded else self._position(root, t)
        token = before = after = None
        if root is not None and position is not None:
            token, before, after, _ = self._texts.around(root, position, position + 1, NEAR)
        segment = self._sample.segments[chunk] if chunk is not None else None
        helping = (recorded or {}) | {name: value for name, value in found.items() if value is not None}
        names = ("rank", "score", "excluded", "nll_before", "nll_after", "literal", "placebo_gain", "kept", "reason")
        values: dict[str, Any] = {name: found.get(name) for name in names}
        values |= {name: helping.get(name) for name in ("entropy_before", "entropy_after", "gain")}
        return Link(
            root_id=root_id,
            t=t,
            position=position,
            chunk_id=chunk_id,
            chunk_start=segment["start"] if segment else None,
            chunk_end=segment["end"] if segment else None,
            helped=recorded is not None,
            distance=recorded["distance"] if recorded else None,
            token=token,
            before=before,
            after=after,
            context=self._texts.head(chunk, CONTEXT) if context and chunk is not None else None,
            query=asked.get("query"),
            entropy=asked.get("entropy"),
            threshold=asked.get("threshold"),
            **values,
        )

    def _position(self, root: int | None, t: int) -> int | None:
        if root is None:
            return None
        segment = self._sample.segments[root]
        position: int = segment["start"] + t - segment["source_start"]
        return position if segment["start"] <= position < segment["end"] else None

    def _root(self, number: int, start: int, end: int) -> RootFacts | None:
        segment = self._sample.segments[number]
        place = self._origins.roots.get(segment["root_id"])
        if place is None:
            return None
        shift = segment["source_start"] - segment["start"]
        screened = self._evidence.screened.get(place.row, {})
        positions = [
            Position(
                t=t,
                position=t - shift,
                token=self._texts.around(number, t - shift, t - shift + 1, 0)[0],
                **{name: row[name] for name in ("entropy", "nll", "threshold", "query")},
                **dict(
                    zip(
                        ("candidates", "excluded", "kept"), self._evidence.counts.get((root, t), (0, 0, 0)), strict=True
                    )
                ),
            )
            for (root, t), row in sorted(self._evidence.positions.items())
            if root == place.row and start + shift <= t < end + shift
        ]
        return RootFacts(
            role=self._evidence.roles[place.row],
            first_t=start + shift,
            stop_t=end + shift,
            **{name: screened.get(name) for name in ("mean", "std", "threshold", "selected")},
            positions=tuple(positions),
        )

    def _seeds(self, chunk_id: str) -> Iterator[Seed]:
        names, roots = self._evidence.chunk_ids, {place.row: key for key, place in self._origins.roots.items()}
        for row in self._evidence.seeds:
            if names.get(row["chunk"]) != chunk_id or row["seed_chunk"] not in names:
                continue
            seed = self._place_of.get(names[row["seed_chunk"]])
            segment = self._sample.segments[seed] if seed is not None else None
            yield Seed(
                root_id=roots[row["root"]],
                chunk_id=names[row["seed_chunk"]],
                start=segment["start"] if segment else None,
                end=segment["end"] if segment else None,
                rank=row["rank"],
                score=row["score"],
                max_gain=row["max_gain"],
            )
