"""A trace for people: text with the asked tokens marked, who asked for them, and the model behind it.

Everything is built of ``rich.text.Text``, which knows no markup, so a document's brackets are brackets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from storage.digests import short
from tasks.provenance.lineage import Ancestor
from tasks.provenance.traces import Link, Origin, Piece, Seed, Trace
from tasks.reporting.visible import visible, visible_line

SHOWN = 8
"""Links of a piece that are shown; ``--json`` has all."""
CONTEXT = 300
"""Characters of a helping chunk that are shown."""
_ASKED, _HELPED, _QUIET = "bold red", "bold green", "dim"


def trace_lines(trace: Trace) -> Iterator[RenderableType]:
    """The whole trace, block by block."""
    yield Text(f"version {short(trace.version)} · round {trace.round} · {trace.recipe}", style="bold")
    asked = "" if trace.span is None else f" · {tokens(*trace.span)} asked"
    yield Text(f"sample {trace.row} · {short(trace.sample_id)} · {trace.tokens:,} tokens{asked}")
    if trace.span is None:
        yield Text()
        yield _segments(trace.segments)
        if trace.dependencies:
            yield Text()
            yield _dependencies(trace.dependencies)
    for piece in trace.pieces:
        yield Text()
        yield from _piece(piece)
    yield Text()
    yield from _behind(trace)
    for note in trace.unknown:
        yield Text(f"not known here: {note}", style="yellow")


def tokens(start: int, end: int) -> str:
    """Tokens ``[start, end)`` as they are asked for: both ends included."""
    return f"token {start}" if end == start + 1 else f"tokens {start}-{end - 1}"


def marked(before: str | None, text: str | None, after: str | None, style: str) -> Text:
    """Text with a marked part."""
    if text is None:
        return Text("the text is not known here", style=_QUIET)
    inside = visible_line(text) or "␣"
    return Text.assemble((visible(before or ""), _QUIET), (f"⟦{inside}⟧", style), (visible(after or ""), _QUIET))


def _segments(segments: Iterable[Origin]) -> Table:
    table = Table("", "tokens", "kind", "helps", "id", "document", "characters", box=None, header_style="bold")
    for origin in segments:
        own = origin.chunk_id or origin.root_id
        place = "–" if origin.char_start is None else f"{origin.char_start}-{origin.char_end}"
        table.add_row(
            str(origin.segment),
            f"{origin.start}-{origin.end - 1}",
            Text(origin.kind),
            str(origin.helps or ""),
            short(own) if own else "–",
            Text(visible_line(origin.title or origin.source or short(origin.doc_id))),
            place,
        )
    return table


def _dependencies(links: Iterable[Link]) -> Table:
    table = Table("position", "token", "helped by", "distance", "rank", "cosine", "entropy", "ΔI", box=None)
    table.header_style = "bold"
    for link in links:
        there = "–" if link.chunk_start is None else f"{link.chunk_start}-{(link.chunk_end or 0) - 1}"
        table.add_row(
            _number(link.position),
            Text(visible_line(link.token or "–")),
            there,
            _number(link.distance),
            _number(link.rank),
            _number(link.score),
            f"{_number(link.entropy_before)} → {_number(link.entropy_after)}",
            _number(link.gain),
        )
    return table


def _piece(piece: Piece) -> Iterator[RenderableType]:
    origin = piece.origin
    if origin is None:
        yield Text.assemble((tokens(piece.start, piece.end), "bold"), f" · {piece.kind}, of no document")
        return
    own = f" of segment {origin.segment} ({tokens(origin.start, origin.end)})"
    yield Text.assemble((tokens(piece.start, piece.end), "bold"), f" · {origin.kind}{own}")
    yield Text(f"  document {short(origin.doc_id)}  {_called(origin)}")
    if origin.kind == "tag":
        yield Text(f"  it points at part {origin.source_start + 1} of this document")
    if origin.char_start is not None:
        named = "chunk " + short(origin.chunk_id) if origin.chunk_id else "root " + short(origin.root_id or "")
        what = named if origin.chunk_id or origin.root_id else "the whole document"
        yield Text(f"  {what}: characters {origin.char_start}-{origin.char_end} of the document")
    if piece.characters is not None:
        yield Text(f"  these tokens: characters {piece.characters[0]}-{piece.characters[1]} of the document")
    yield Text()
    yield marked(piece.before, piece.text, piece.after, _ASKED if origin.kind == "root" else _HELPED)
    if piece.root is not None:
        yield Text()
        yield from _root(piece)
    if piece.seeds:
        yield Text()
        yield from (_seed(seed, origin.kind) for seed in piece.seeds[:SHOWN])
        yield from _more(len(piece.seeds))
    for neighbour in piece.neighbours:
        yield Text(
            f"neighbour {neighbour.rank} of document {short(neighbour.doc_id)}, cosine {_number(neighbour.score)}"
        )
    if piece.links:
        yield Text()
        of_context = "who asked for this chunk" if origin.kind == "positive" else "as a candidate it was found by"
        yield Text("what helped these tokens" if piece.root else of_context, style="bold")
        for link in piece.links[:SHOWN]:
            yield from _link(link, of_root=piece.root is not None)
        yield from _more(len(piece.links))


def _root(piece: Piece) -> Iterator[Text]:
    root = piece.root
    assert root is not None
    which = tokens(root.first_t, root.stop_t)
    if root.threshold is None:
        yield Text(f"{which} of the root; this recipe asks no model about it")
        return
    yield Text(
        f"{which} of the root; its threshold is {_number(root.threshold)} nats (mean {_number(root.mean)}, deviation"
        f" {_number(root.std)}), {root.selected} of its tokens lie above"
    )
    if not root.positions:
        yield Text("none of the asked tokens lies above the threshold: nothing was asked for them")
    for position in root.positions:
        yield Text(
            f"token {position.position} ⟦{visible_line(position.token or '')}⟧ (t = {position.t}): entropy"
            f" {_number(position.entropy)} nats, nll {_number(position.nll)}; {position.candidates} candidates,"
            f" {position.excluded} excluded, {position.kept} kept"
        )
        yield Text(f"  query: {visible_line(position.query)}")


def _seed(seed: Seed, kind: str) -> Text:
    place = tokens(seed.start, seed.end) if seed.start is not None and seed.end is not None else "not in this sample"
    how = "a random chunk" if seed.score is None else f"neighbour {seed.rank}, cosine {_number(seed.score)}"
    judged = "not verified" if seed.max_gain is None else f"largest ΔI {_number(seed.max_gain)}"
    beside = "drawn beside" if seed.score is None else "found beside"
    return Text(
        f"{kind} {beside} positive {short(seed.chunk_id)} ({place}) of root {short(seed.root_id)}: {how}, {judged}"
    )


def _link(link: Link, *, of_root: bool) -> Iterator[Text]:
    place = f"token {link.position}" if link.position is not None else "not in this sample"
    if of_root and link.chunk_start is not None and link.chunk_end is not None:
        head = f"chunk {short(link.chunk_id)} ({tokens(link.chunk_start, link.chunk_end)}) for t = {link.t} ({place})"
    else:
        head = f"root {short(link.root_id)} at t = {link.t} ({place})"
    away = f", {link.distance} tokens behind it" if link.distance is not None else ""
    yield Text.assemble("• ", (head, "bold"), f"{away}: ", (_verdict(link), _HELPED if link.helped else _QUIET))
    facts = [
        "" if link.rank is None else f"rank {link.rank}, cosine {_number(link.score)}",
        ""
        if link.entropy_after is None
        else f"entropy {_number(link.entropy_before)} → {_number(link.entropy_after)} nats",
        "" if link.gain is None else f"ΔI {_number(link.gain)}",
        "" if link.nll_after is None else f"nll {_number(link.nll_before)} → {_number(link.nll_after)}",
        "copied bigram" if link.literal else "",
        "" if link.placebo_gain is None else f"placebo ΔI {_number(link.placebo_gain)}",
    ]
    said = " · ".join(fact for fact in facts if fact)
    if said:
        yield Text(f"  {said}")
    if link.context is not None:
        context = Text(f"  {visible_line(link.context[:CONTEXT])}", style="green")
        if link.literal and link.token:
            context.highlight_words([visible_line(link.token)], _HELPED)
        yield context
    elif link.query is not None:
        yield Text(f"  query: {visible_line(link.query)}")
    if link.helped and link.token is not None and link.context is None:
        yield Text("  ").append_text(_flat(marked(link.before, link.token, link.after, _ASKED)))


def _verdict(link: Link) -> str:
    if link.helped:
        return "helped"
    if link.excluded:
        return f"found, excluded: {link.excluded}"
    if link.kept is None:
        return "found, by its rank"
    return "helped it too, but not in this sample" if link.kept else f"found, not kept: {link.reason}"


def _flat(text: Text) -> Text:
    """The same text on one line."""
    joined = text.blank_copy()
    for part in text.split("\n", include_separator=False):
        joined = joined.append("⏎").append_text(part) if joined.plain else part
    return joined


def _behind(trace: Trace) -> Iterator[Text]:
    how = {
        "on-policy": "the policy that was trained next",
        "lagged": f"an ancestor of the policy that was trained next, {trace.lag} rounds back",
        "given": "a policy that was given",
        "unscreened": "asked nothing; its tokenizer cut the tokens",
    }
    yield Text("the model behind it", style="bold")
    for number, ancestor in enumerate(trace.policies):
        label = "policy" if number == 0 else "its parent"
        yield Text(f"  {label} {short(ancestor.digest)}: {_past(ancestor)}")
        if number == 0:
            yield Text(f"    {trace.relation}: {how.get(trace.relation, trace.relation)}")
    steps = ", ".join(f"{name} {version}" for name, version in sorted(trace.code_versions.items()))
    yield Text(f"  configuration {short(trace.config_digest)} · corpus {short(trace.corpus)} · code: {steps or '–'}")


def _past(ancestor: Ancestor) -> str:
    if ancestor.trained_on:
        return f"trained on version {short(ancestor.trained_on)}"
    return "base model" if ancestor.known else "not registered in this home: its parents are not known"


def _called(origin: Origin) -> str:
    names = [name for name in (origin.source, origin.title) if name]
    return visible_line(" · ".join(dict.fromkeys(names))) or short(origin.doc_id)


def _more(count: int) -> Iterator[Text]:
    if count > SHOWN:
        yield Text(f"… and {count - SHOWN} more (--json has all)", style=_QUIET)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value}" if isinstance(value, int) else f"{value:.3f}"
