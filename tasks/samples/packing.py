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

from collections.abc import Callable
from dataclasses import dataclass, field

from tasks.samples.bundles import Bundle, Context


@dataclass(frozen=True, slots=True)
class Measures:
    """How large things are, in tokens, and where chunks and roots come from."""

    root_tokens: Callable[[int], int]
    chunk_tokens: Callable[[int], int]
    root_doc: Callable[[int], int]
    chunk_doc: Callable[[int], int]
    bos: int
    separator: int


@dataclass(frozen=True, slots=True)
class Unplaced:
    """Something that found no place in a sample."""

    root: int
    kind: str
    chunk: int | None
    tokens: int
    reason: str


@dataclass(slots=True)
class Draft:
    """A sample being packed: its roots, its positives with those they help, its negatives with the root that brought
    them.
    """

    target: int
    measures: Measures
    used: int = 0
    roots: list[Bundle] = field(default_factory=list)
    positives: dict[int, list[tuple[int, Context]]] = field(default_factory=dict)
    negatives: dict[int, int] = field(default_factory=dict)
    _root_docs: set[int] = field(default_factory=set)
    _chunk_docs: set[int] = field(default_factory=set)
    """Documents that chunks were added from; one that was given back stays: no root joins after that."""
    _wanted: set[int] = field(default_factory=set)
    """Contexts of the roots, those that found no place included."""

    def __post_init__(self) -> None:
        self.used = self.measures.bos - self.measures.separator  # the first segment has no separator before it

    @property
    def room(self) -> int:
        """Tokens left."""
        return self.target - self.used

    def cost(self, tokens: int) -> int:
        """Tokens that a segment takes with the separator before it."""
        return tokens + self.measures.separator

    def chunk_cost(self, chunk: int) -> int:
        """Tokens that a chunk takes with its separator; nothing when it is there already."""
        there = chunk in self.positives or chunk in self.negatives
        return 0 if there else self.cost(self.measures.chunk_tokens(chunk))

    def stands_beside(self, chunk: int) -> bool:
        """Whether a chunk comes from the document of a root here."""
        return self.measures.chunk_doc(chunk) in self._root_docs

    def add_root(self, bundle: Bundle) -> None:
        """Adds a root without its contexts."""
        self.roots.append(bundle)
        self._root_docs.add(self.measures.root_doc(bundle.root))
        self._wanted.update(context.chunk for context in bundle.contexts)
        self.used += self.cost(self.measures.root_tokens(bundle.root))

    def add_positive(self, root: int, context: Context) -> None:
        """Adds a positive for a root; one that is there already gains a dependent."""
        self.used += self.chunk_cost(context.chunk)
        self._chunk_docs.add(self.measures.chunk_doc(context.chunk))
        self.positives.setdefault(context.chunk, []).append((root, context))

    def add_negative(self, chunk: int, root: int) -> None:
        """Adds a negative that ``root`` brought."""
        self.used += self.chunk_cost(chunk)
        self._chunk_docs.add(self.measures.chunk_doc(chunk))
        self.negatives[chunk] = root

    def may_be_negative(self, chunk: int, usable: Callable[[int], bool]) -> bool:
        """A negative stands once, is no positive of any root here and comes from none of their documents."""
        if chunk in self.positives or chunk in self.negatives or chunk in self._wanted or not usable(chunk):
            return False
        return not self.stands_beside(chunk)

    def admits(self, bundle: Bundle) -> bool:
        """Whether a root may join: no chunk here comes from its document, no negative here is a positive of its own."""
        if self.measures.root_doc(bundle.root) in self._chunk_docs:
            return False
        return not any(context.chunk in self.negatives for context in bundle.contexts)

    @property
    def can_be_cut(self) -> bool:
        """Whether the negatives are long enough to lose what exceeds the target (each keeps at least one token)."""
        return sum(self.measures.chunk_tokens(chunk) - 1 for chunk in self.negatives) >= -self.room


@dataclass(slots=True)
class Packer:
    """Packs bundles into drafts. ``usable`` says whether a chunk may still be used (cap on reuse across samples)."""

    target: int
    negatives_per_positive: int
    measures: Measures
    usable: Callable[[int], bool]
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
            contexts = sum(self.measures.chunk_tokens(context.chunk) for context in bundle.contexts)
            self._sizes[bundle.root] = self.measures.root_tokens(bundle.root) + contexts
            self._waiting += self._sizes[bundle.root]
        return self._waiting >= 2 * self.target

    def pack_one(self, queue: list[Bundle]) -> Draft | None:
        """The next full sample, its roots taken out of the queue; None when what is left can't fill one.

        The queue should hold more roots than a sample takes: they are tried in order until the sample is full.
        """
        while queue:
            draft = Draft(self.target, self.measures)
            taken: list[tuple[Bundle, list[tuple[Context, str]]]] = []
            for bundle in queue:
                joined = self._try_root(draft, bundle)
                if joined is None:
                    continue
                taken.append((bundle, joined))
                if draft.room <= 0 or any(reason == "sample-full" for _, reason in joined):
                    break
            given_back = self._fill(draft) if taken else None
            if given_back is None:
                left = queue.pop(0)
                self._waiting -= self._sizes.pop(left.root, 0)
                self.report_root(left, "sample-not-filled")
                continue
            for bundle, left_out in taken:
                queue.remove(bundle)
                self._waiting -= self._sizes.pop(bundle.root, 0)
                for context, reason in left_out:
                    self._report(bundle.root, context.chunk, reason)
            for root, chunk in given_back:
                self._report(root, chunk, "sample-full")
            return draft
        return None

    def _try_root(self, draft: Draft, bundle: Bundle) -> list[tuple[Context, str]] | None:
        """Adds a root with the contexts that fit; returns those left out with the reason, or None when the root can't
        join.
        """
        if draft.cost(self.measures.root_tokens(bundle.root)) > draft.room:
            return None
        left_out: list[tuple[Context, str]] = []
        contexts: list[Context] = []
        for context in bundle.contexts:
            if draft.stands_beside(context.chunk):
                left_out.append((context, "root-document"))
            elif context.chunk not in draft.positives and not self.usable(context.chunk):
                left_out.append((context, "reuse-cap"))
            else:
                contexts.append(context)
        if not contexts or not draft.admits(bundle):
            return None
        if draft.cost(self.measures.root_tokens(bundle.root)) + draft.chunk_cost(contexts[0].chunk) > draft.room:
            return None
        draft.add_root(bundle)
        for number, context in enumerate(contexts):
            if draft.chunk_cost(context.chunk) > draft.room:
                return left_out + [(rest, "sample-full") for rest in contexts[number:]]
            draft.add_positive(bundle.root, context)
            self._add_negatives(draft, bundle.root, context)
        return left_out

    def _add_negatives(self, draft: Draft, root: int, context: Context) -> None:
        wanted = self.negatives_per_positive
        for chunk in context.negatives:
            if not wanted:
                break
            if draft.may_be_negative(chunk, self.usable) and draft.chunk_cost(chunk) <= draft.room:
                draft.add_negative(chunk, root)
                wanted -= 1

    def _fill(self, draft: Draft) -> list[tuple[int, int]] | None:
        """Fills the rest with spare negatives; returns the (root, positive) pairs given back for it, None when it
        can't.
        """
        given_back: list[tuple[int, int]] = []
        while True:
            for root, chunk in _spares(draft):
                if draft.room <= 0:
                    break
                if draft.may_be_negative(chunk, self.usable):
                    draft.add_negative(chunk, root)
            if draft.room > 0:
                return None
            if draft.can_be_cut:
                return given_back
            removed = self._give_back(draft)
            if not removed:
                return None
            given_back.extend(removed)

    def _give_back(self, draft: Draft) -> list[tuple[int, int]]:
        """Takes out the positive of least gain, never a root's last; returns its (root, chunk) pairs."""
        helped: dict[int, int] = {}
        for users in draft.positives.values():
            for root, _ in users:
                helped[root] = helped.get(root, 0) + 1
        for chunk in sorted(draft.positives, key=lambda c: (max(x.best_gain for _, x in draft.positives[c]), c)):
            users = draft.positives[chunk]
            if all(helped[root] > 1 for root, _ in users):
                del draft.positives[chunk]
                draft.used -= draft.cost(self.measures.chunk_tokens(chunk))
                return [(root, chunk) for root, _ in users]
        return []

    def report_empty(self, bundle: Bundle) -> None:
        """Reports a root without positives."""
        self.report_root(bundle, "no-positive")

    def report_root(self, bundle: Bundle, reason: str) -> None:
        """Reports a root and all its positives as left out."""
        self.unplaced.append(Unplaced(bundle.root, "root", None, self.measures.root_tokens(bundle.root), reason))
        for context in bundle.contexts:
            self._report(bundle.root, context.chunk, reason)

    def _report(self, root: int, chunk: int, reason: str) -> None:
        self.unplaced.append(Unplaced(root, "positive", chunk, self.measures.chunk_tokens(chunk), reason))


def _spares(draft: Draft) -> list[tuple[int, int]]:
    """(root, negative) in order of closeness: every context's first neighbour, then every context's second, …"""
    columns = [(root, context.negatives) for users in draft.positives.values() for root, context in users]
    deepest = max((len(chunks) for _, chunks in columns), default=0)
    return [(root, chunks[rank]) for rank in range(deepest) for root, chunks in columns if rank < len(chunks)]
