"""Rules that hold inside every sample, whatever the round looks like."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.samples.bundles import Bundle, Context, Dependencies
from tasks.samples.packing import Draft, Measures, Packer

CHUNKS, ROOTS = 40, 12
NOTHING = Dependencies([], [], [], [])


def measures(separator: int, bos: int) -> Measures:
    """Root r has 20 + 7 * (r % 5) tokens and document r; chunk c has 5 + c % 11 tokens and document 100 + c % 17."""
    return Measures(
        root_tokens={r: 20 + 7 * (r % 5) for r in range(ROOTS)},
        chunk_tokens={c: 5 + c % 11 for c in range(CHUNKS)},
        root_doc={r: r if r % 3 else 100 + r % 17 for r in range(ROOTS)},  # every third root's is of chunks too
        chunk_doc={c: 100 + c % 17 for c in range(CHUNKS)},
        bos=bos,
        separator=separator,
    )


@st.composite
def rounds(draw: st.DrawFn) -> list[Bundle]:
    bundles = []
    m = measures(1, 0)
    for root in range(draw(st.integers(1, ROOTS))):
        own = m.root_doc[root]
        eligible = [c for c in range(CHUNKS) if m.chunk_doc[c] != own]
        positives = draw(st.lists(st.sampled_from(eligible), max_size=6, unique=True))
        contexts = []
        for chunk in positives:
            gain = draw(st.floats(0.4, 1.0))
            others = [c for c in eligible if c not in positives]
            negatives = draw(st.lists(st.sampled_from(others), max_size=8, unique=True))
            contexts.append(Context(root, chunk, gain, range(0), tuple(negatives)))
        contexts.sort(key=lambda c: (-c.best_gain, c.chunk))
        bundles.append(Bundle(root, tuple(contexts), NOTHING))
    return bundles


def length_before_cuts(draft: Draft, m: Measures) -> int:
    """Tokens of a draft counted from its parts."""
    parts = [m.root_tokens[b.root] for b in draft.roots]
    parts += [m.chunk_tokens[c] for c in (*draft.positives, *draft.negatives)]
    return m.bos + sum(parts) + m.separator * (len(parts) - 1)


@given(
    bundles=rounds(),
    target=st.integers(60, 300),
    per=st.integers(0, 2),
    sep=st.integers(0, 2),
    bos=st.integers(0, 1),
    cap=st.integers(1, 3),
)
@settings(max_examples=300, deadline=None)
def test_every_sample_keeps_the_rules(
    bundles: list[Bundle], target: int, per: int, sep: int, bos: int, cap: int
) -> None:
    m = measures(sep, bos)
    uses: Counter[int] = Counter()
    spent: set[int] = set()
    packer = Packer(target, per, m, spent)
    queue = [b for b in bundles if b.contexts]
    placed_roots: Counter[int] = Counter()
    placed: set[tuple[int, int]] = set()
    while (draft := packer.pack_one(queue)) is not None:
        uses.update([*draft.positives, *draft.negatives])
        spent.update(chunk for chunk, times in uses.items() if times == cap)
        assert draft.used == length_before_cuts(draft, m)
        surplus = draft.used - target
        cuttable = sum(m.chunk_tokens[c] - 1 for c in draft.negatives)
        assert 0 <= surplus <= cuttable
        assert not set(draft.positives) & set(draft.negatives)
        documents = {m.root_doc[b.root] for b in draft.roots}
        assert all(m.chunk_doc[c] not in documents for c in (*draft.positives, *draft.negatives))
        all_positives = {c.chunk for b in draft.roots for c in b.contexts}
        assert not all_positives & set(draft.negatives)
        helped = {context.root for users in draft.positives.values() for context in users}
        assert helped == {b.root for b in draft.roots}
        placed_roots.update(b.root for b in draft.roots)
        placed |= {(context.root, chunk) for chunk, users in draft.positives.items() for context in users}
    assert not queue
    assert max(uses.values(), default=0) <= cap
    assert max(placed_roots.values(), default=0) <= 1

    unplaced_roots = {u.root for u in packer.unplaced if u.kind == "root"}
    assert unplaced_roots | set(placed_roots) == {b.root for b in bundles if b.contexts}
    assert not unplaced_roots & set(placed_roots)
    left_out = {(u.root, u.chunk) for u in packer.unplaced if u.kind == "positive"}
    everything = {(b.root, c.chunk) for b in bundles for c in b.contexts}
    assert left_out | placed == everything, "a positive is neither in a sample nor reported"
    assert not left_out & placed


def test_the_largest_gains_are_placed_first() -> None:
    contexts = [Context(1, c, g, range(0), ()) for c, g in ((1, 0.9), (2, 0.8), (3, 0.5))]
    spare = Context(1, 4, 0.95, range(0), (20, 21, 22))
    m = measures(1, 0)
    target = m.root_tokens[1] + sum(m.chunk_tokens[c] + 1 for c in (4, 1, 2)) + 3
    packer = Packer(target, 0, m, ())
    draft = packer.pack_one([Bundle(1, (spare, *contexts), NOTHING)])
    assert draft is not None
    assert list(draft.positives) == [4, 1, 2]
    assert [(u.chunk, u.reason) for u in packer.unplaced] == [(3, "sample-full")]
