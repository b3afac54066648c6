"""Packing: which roots and contexts share a sample of exactly so many tokens (docs/method.md 2.7; the search itself is
ours).

A draft takes roots in order. A root comes with as many of its contexts as fit, the largest gain first, each with its
hard negatives; when the next root no longer fits, spare negatives fill the rest. The surplus of the last one is cut at
the front of context segments that carry no dependency; roots and positives are never cut. What finds no place is
reported.

    Draft   one sample being packed, with the rules that hold inside a sample
    Packer  the search, with the rules that hold across samples
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tasks.samples.bundles import Bundle, Context


@dataclass(frozen=True, slots=True)
class Measures:
    """How large things are, in tokens, and where chunks and roots come from, by their rows."""

    root_tokens: Mapping[int, int]
    chunk_tokens: Mapping[int, int]
    root_doc: Mapping[int, int]
    chunk_doc: Mapping[int, int]
    bos: int
    separator: int


class Unplaced(NamedTuple):
    """Something that found no place in a sample."""

    root: int
    kind: str
    chunk: int | None
    tokens: int
    reason: str


LeftOut = tuple[Context, str]
"""A context without a place, and why."""


@dataclass(slots=True)
class Draft:
    """A sample being packed: its roots, its positives as each root's context, its negatives with the root that brought
    them. Chunks that are ``spent`` may not be used any more.
    """

    target: int
    measures: Measures
    spent: Collection[int]
    room: int = 0
    """Tokens left; below zero, those to be cut."""
    cuttable: int = 0
    """Tokens that the negatives can lose: each keeps at least one."""
    roots: list[Bundle] = field(default_factory=list)
    positives: dict[int, list[Context]] = field(default_factory=dict)
    negatives: dict[int, int] = field(default_factory=dict)
    _root_docs: set[int] = field(default_factory=set)
    _chunk_docs: set[int] = field(default_factory=set)
    """Documents that chunks were added from; one that was given back stays: no root joins after that."""
    _barred: set[int] = field(default_factory=set)
    """What may not become a negative: negatives, and contexts of the roots, those that found no place included."""

    def __post_init__(self) -> None:
        # The first segment has no separator before it.
        self.room = self.target - self.measures.bos + self.measures.separator

    @property
    def used(self) -> int:
        """Tokens taken."""
        return self.target - self.room

    def root_cost(self, bundle: Bundle) -> int:
        """Tokens that a root takes with the separator before it."""
        return self.measures.root_tokens[bundle.root] + self.measures.separator

    def chunk_cost(self, chunk: int) -> int:
        """Tokens that a chunk takes with the separator before it."""
        return self.measures.chunk_tokens[chunk] + self.measures.separator

    def contexts_for(self, bundle: Bundle) -> tuple[list[Context], list[LeftOut]] | None:
        """A root's contexts that may stand here, and the others with the reason; None when the root may not join.

        It may when a context is left for it, no chunk here comes from its document and no negative here is a context of
        its own.
        """
        docs, roots, spent = self.measures.chunk_doc, self._root_docs, self.spent
        if self.measures.root_doc[bundle.root] in self._chunk_docs:
            return None
        contexts: list[Context] = []
        left_out: list[LeftOut] = []
        for context in bundle.contexts:
            chunk = context.chunk
            if chunk in self.negatives:
                return None
            if docs[chunk] in roots:
                left_out.append((context, "root-document"))
            elif chunk in spent and chunk not in self.positives:
                left_out.append((context, "reuse-cap"))
            else:
                contexts.append(context)
        return (contexts, left_out) if contexts else None

    def add_root(self, bundle: Bundle) -> None:
        """Adds a root without its contexts."""
        self.roots.append(bundle)
        self._root_docs.add(self.measures.root_doc[bundle.root])
        self._barred.update([context.chunk for context in bundle.contexts])
        self.room -= self.root_cost(bundle)

    def add_positive(self, context: Context) -> bool:
        """Adds a positive for its root if there is room; one that is there already gains a dependent."""
        chunk = context.chunk
        users = self.positives.get(chunk)
        if users is not None:
            users.append(context)
            return True
        cost = self.chunk_cost(chunk)
        if cost > self.room:
            return False
        self.room -= cost
        self.positives[chunk] = [context]
        self._chunk_docs.add(self.measures.chunk_doc[chunk])
        return True

    def add_negative(self, root: int, chunk: int, most: int | None = None) -> bool:
        """Adds a negative that ``root`` brought, if it may stand here and costs no more than ``most`` tokens.

        A negative stands once, is no context of any root here and comes from none of their documents.
        """
        if chunk in self._barred or chunk in self.spent:
            return False
        doc = self.measures.chunk_doc[chunk]
        if doc in self._root_docs:
            return False
        tokens = self.measures.chunk_tokens[chunk]
        cost = tokens + self.measures.separator
        if most is not None and cost > most:
            return False
        self.room -= cost
        self.cuttable += tokens - 1
        self.negatives[chunk] = root
        self._barred.add(chunk)
        self._chunk_docs.add(doc)
        return True

    def give_back(self) -> list[Context]:
        """Takes out the positive of least gain, never a root's last; returns the contexts that it was."""
        helped: dict[int, int] = {}
        for users in self.positives.values():
            for context in users:
                helped[context.root] = helped.get(context.root, 0) + 1
        for chunk in sorted(self.positives, key=lambda c: (max(x.best_gain for x in self.positives[c]), c)):
            users = self.positives[chunk]
            if all(helped[context.root] > 1 for context in users):
                del self.positives[chunk]
                self.room += self.chunk_cost(chunk)
                return users
        return []


@dataclass(slots=True)
class Packer:
    """Packs bundles into drafts. ``spent``: chunks that may not be used any more (cap on reuse across samples)."""

    target: int
    negatives_per_positive: int
    measures: Measures
    spent: Collection[int]
    unplaced: list[Unplaced] = field(default_factory=list)
    _sizes: dict[int, int] = field(default_factory=dict)
    """Tokens of each root that waits, with its positives."""
    _waiting: int = 0

    def has_enough(self, queue: list[Bundle]) -> bool:
        """Whether the waiting roots and positives would fill two samples, so that there is a choice when one is
        filled.
        """
        for bundle in reversed(queue):  # new ones stand at the end
            if bundle.root in self._sizes:
                break
            sizes = self.measures.chunk_tokens
            contexts = sum([sizes[context.chunk] for context in bundle.contexts])
            self._sizes[bundle.root] = self.measures.root_tokens[bundle.root] + contexts
            self._waiting += self._sizes[bundle.root]
        return self._waiting >= 2 * self.target

    def pack_one(self, queue: list[Bundle]) -> Draft | None:
        """The next full sample, its roots taken out of the queue; None when what is left can't fill one.

        The queue should hold more roots than a sample takes: they are tried in order until the sample is full.
        """
        while queue:
            draft = Draft(self.target, self.measures, self.spent)
            taken: list[tuple[Bundle, list[LeftOut]]] = []
            for bundle in queue:
                joined = self._try_root(draft, bundle)
                if joined is None:
                    continue
                taken.append((bundle, joined))
                if draft.room <= 0 or any(reason == "sample-full" for _, reason in joined):
                    break
            given_back = _fill(draft) if taken else None
            if given_back is None:
                left = queue.pop(0)
                self._waiting -= self._sizes.pop(left.root, 0)
                self.report_root(left, "sample-not-filled")
                continue
            for bundle, left_out in taken:
                queue.remove(bundle)
                self._waiting -= self._sizes.pop(bundle.root, 0)
                for context, reason in left_out:
                    self._report(context, reason)
            for context in given_back:
                self._report(context, "sample-full")
            return draft
        return None

    def _try_root(self, draft: Draft, bundle: Bundle) -> list[LeftOut] | None:
        """Adds a root with the contexts that fit; returns those left out with the reason, or None when the root can't
        join.
        """
        cost = draft.root_cost(bundle)
        if cost > draft.room or (found := draft.contexts_for(bundle)) is None:
            return None
        contexts, left_out = found
        first = contexts[0].chunk
        if first not in draft.positives and cost + draft.chunk_cost(first) > draft.room:
            return None
        draft.add_root(bundle)
        for number, context in enumerate(contexts):
            if not draft.add_positive(context):
                return left_out + [(rest, "sample-full") for rest in contexts[number:]]
            wanted = self.negatives_per_positive
            for chunk in context.negatives:
                if not wanted:
                    break
                if draft.add_negative(bundle.root, chunk, draft.room):
                    wanted -= 1
        return left_out

    def report_empty(self, bundle: Bundle) -> None:
        """Reports a root without positives."""
        self.report_root(bundle, "no-positive")

    def report_root(self, bundle: Bundle, reason: str) -> None:
        """Reports a root and all its positives as left out."""
        self.unplaced.append(Unplaced(bundle.root, "root", None, self.measures.root_tokens[bundle.root], reason))
        for context in bundle.contexts:
            self._report(context, reason)

    def _report(self, context: Context, reason: str) -> None:
        tokens = self.measures.chunk_tokens[context.chunk]
        self.unplaced.append(Unplaced(context.root, "positive", context.chunk, tokens, reason))


def _fill(draft: Draft) -> list[Context] | None:
    """Fills the rest with spare negatives; returns the contexts given back for it, None when it can't."""
    given_back: list[Context] = []
    while True:
        for root, chunk in _spares(draft):
            if draft.room <= 0:
                break
            draft.add_negative(root, chunk)
        if draft.room > 0:
            return None
        if draft.cuttable >= -draft.room:
            return given_back
        removed = draft.give_back()
        if not removed:
            return None
        given_back.extend(removed)


def _spares(draft: Draft) -> Iterator[tuple[int, int]]:
    """(root, negative) in order of closeness: every context's first neighbour, then every context's second, …"""
    contexts = [context for users in draft.positives.values() for context in users]
    for rank in range(max((len(context.negatives) for context in contexts), default=0)):
        for root, _, _, _, chunks in contexts:
            if rank < len(chunks):
                yield root, chunks[rank]
