"""Untie-the-Knots data: documents cut into parts, parts of several documents shuffled among each other
(docs/method.md 3, recipe ``untie-the-knots``, arXiv 2409.04774).

Parts of one document keep their order, and a tag before each part says which document it is from and which of its parts
it is, so that a reader can trace them back. The authors' public code does this with the documents of one packed
sequence, shuffles their parts, with an option to keep their order, puts tags at the cuts and cuts the result at the
sequence's length; here what is cut off goes on in the next sample [ours].
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field

from storage.checkpoints import work_uri
from storage.errors import ConfigError
from storage.home import Home
from storage.refs import Ref
from storage.schemas import SAMPLES, UNPLACED
from storage.tables import write_table
from tasks.checkpointed import step
from tasks.progress import track
from tasks.samples.spans import Form, Span
from tasks.whole_documents.concatenation import Row, unplaced_document
from tasks.whole_documents.document_order import DocumentInputs, RoundDocuments, TokenDocument
from tasks.whole_documents.supply import Most, Stock, most_of
from tasks.whole_documents.tags import tag_text


class KnotsOptions(BaseModel):
    """Options of ``untie-the-knots``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: int = Field(
        3,
        ge=1,
        description="Parts that a document's tokens in a sample are cut into; 3 in an example of the public code."
        " [inferred 3]",
    )
    least_part_tokens: int = Field(
        64,
        ge=1,
        description="A document is cut into fewer parts rather than into smaller ones on average, tokens. [ours 3]",
    )
    documents: int = Field(
        4,
        ge=1,
        description="Least documents that share a sample while there are more: none takes more than its share, tags"
        " included. [ours 3]",
    )
    seed: int = Field(0, description="Salt of the documents' order, the cuts and the shuffles. [ours 3]")


class KnotsInputs(DocumentInputs):
    """The documents of a round."""


@dataclass(slots=True)
class _Open:
    """A document of which something is left: the next token and the next part's number."""

    document: TokenDocument
    at: int = 0
    part: int = 0

    @property
    def tokens(self) -> int:
        return len(self.document) - self.at


@dataclass(frozen=True, slots=True)
class _Part:
    """A tag and the tokens behind it."""

    origin: _Open
    tag: Span
    body: Span


TagIds = Callable[[str, int], Sequence[int]]
"""(doc_id, part) → the tag's tokens."""


def cut_places(doc_id: str, first: int, stop: int, options: KnotsOptions) -> list[int]:
    """Borders of the parts of tokens ``[first, stop)``, both ends included: random places, drawn by hash."""
    count = min(options.parts, max(1, (stop - first) // options.least_part_tokens))
    draw = random.Random(f"{options.seed}:{doc_id}:{first}:{stop}")
    return [first, *sorted(draw.sample(range(first + 1, stop), count - 1)), stop]


def shuffled_parts(parts: Sequence[Sequence[_Part]], draw: random.Random) -> list[_Part]:
    """The parts of several documents in random order, those of one document in their own."""
    turns = [number for number, own in enumerate(parts) for _ in own]
    draw.shuffle(turns)
    iterators = [iter(own) for own in parts]
    return [next(iterators[number]) for number in turns]


def knotted(
    documents: Iterable[TokenDocument],
    tag_ids: TagIds,
    form: Form,
    options: KnotsOptions,
    samples: int | None,
    left: list[Row],
) -> Iterator[Row]:
    """Rows of ``samples``, at most ``samples``; ``left`` gets what stays over."""
    source = iter(documents)
    waiting: list[_Open] = []
    made = 0
    while made != samples:
        parts = _plan(waiting, source, tag_ids, form, options)
        if parts is None:
            break
        order = shuffled_parts(parts, random.Random(f"{options.seed}:{made}:{parts[0][0].body.doc_id}"))
        laid = form.lay_out([span for part in order for span in (part.tag, part.body)])
        assert laid is not None, "the plan fills a sample"
        row, placed = laid
        for part, tokens in zip(order, placed[1::2], strict=True):
            part.origin.at += tokens
            part.origin.part += tokens > 0
        if not any(placed[1::2]):
            raise ConfigError(
                f"a sample of {form.target} tokens does not hold a tag of {len(order[0].tag.ids)} tokens and a part.",
                hint="Raise build.assembly.target_tokens.",
            )
        waiting = [document for document in waiting if document.tokens]
        yield row
        made += 1
    reason = "budget" if made == samples else "sample-not-filled"
    left.extend(unplaced_document(rest.document, rest.tokens, reason) for rest in waiting)


def _plan(
    waiting: list[_Open], source: Iterator[TokenDocument], tag_ids: TagIds, form: Form, options: KnotsOptions
) -> list[list[_Part]] | None:
    """Parts, document by document, that fill a sample with their tags; None when all that is left does not.

    Takes further documents from ``source`` into ``waiting`` as they are needed. Once there are no more, those that
    wait get larger shares.
    """
    share = first_share(form, options)
    while True:
        parts: list[list[_Part]] = []
        used = number = 0
        while used < form.room:
            if number == len(waiting):
                following = next(source, None)
                if following is None:
                    break
                waiting.append(_Open(following))
            tokens = min(waiting[number].tokens, share, form.room - used)
            own = _cut(waiting[number], tokens, tag_ids, options)
            if (excess := _cost(own, form) - share) > 0 and tokens > 1:
                own = _cut(waiting[number], max(1, tokens - excess), tag_ids, options)
            parts.append(own)
            used += _cost(own, form)
            number += 1
        if used >= form.room:
            return parts
        if all(part[-1].body.source_start + len(part[-1].body.ids) == len(part[-1].origin.document) for part in parts):
            return None
        share *= 2


def first_share(form: Form, options: KnotsOptions) -> int:
    """Tokens of a sample that a document may take while there are others, tags included."""
    return -(-form.room // options.documents)


def most_tokens(stock: Stock, form: Form, samples: int, options: KnotsOptions) -> Most:
    """Most tokens of so many samples: every document's tokens stand in them once, with a tag before each part.

    A part has a token of its document at least, so there is a tag a token at most, and one at the end of each sample.
    Where a share holds the tags of a document twice, there are fewer. A document that is cut to its share gives all of
    it but its tags. Tags of others come once a document, where it ends, and in each sample for the one that fills it
    and for those that are cut off at its end: at most ``parts`` and two.
    """
    own, tag = stock.tokens(form), tag_text("0" * 8, stock.longest)
    each = most_of(1, len(tag), form) + form.cost(0)
    tags, share = options.parts * each, first_share(form, options)
    tokens = own * (1 + each) + samples * each
    if share >= 2 * tags:
        ended, cut = stock.documents * tags, samples * tags * (options.parts + 3)
        tokens = min(tokens, own * share // (share - tags) + 1 + ended + cut)
    return Most(tokens, ", tags included")


def _cost(parts: Sequence[_Part], form: Form) -> int:
    """Tokens that parts take with their tags and separators."""
    return sum(form.cost(len(span.ids)) for part in parts for span in (part.tag, part.body))


def _cut(origin: _Open, tokens: int, tag_ids: TagIds, options: KnotsOptions) -> list[_Part]:
    doc_id, ids = origin.document.doc_id, origin.document.ids
    parts = []
    borders = cut_places(doc_id, origin.at, origin.at + tokens, options)
    for part, (first, stop) in enumerate(pairwise(borders), start=origin.part):
        tag = Span("tag", doc_id, tag_ids(doc_id, part), source_start=part)
        parts.append(_Part(origin, tag, Span("document", doc_id, ids[first:stop].tolist(), source_start=first)))
    return parts


@step("knots", code_version=1)
def tie_knots(home: Home, inputs: KnotsInputs, config: KnotsOptions) -> dict[str, Ref]:
    """Samples of shuffled, tagged parts of documents: tables ``samples`` and ``unplaced``.

    Raises ``InputError`` when the documents can't give the samples wanted, and ``ConfigError`` when a sample does not
    hold a tag.
    """
    key = tie_knots.key(inputs, config)
    documents = RoundDocuments.open(home, inputs, config.seed)
    documents.check_supply(most_tokens, config)
    left: list[Row] = []
    stream = track(documents.tokens(), len(documents.listed), "knots", "documents")

    def tag_ids(doc_id: str, part: int) -> Sequence[int]:
        return documents.encode(tag_text(doc_id, part))

    rows = knotted(stream, tag_ids, documents.form, config, inputs.samples, left)
    written = write_table(home.path, work_uri(key, "samples"), SAMPLES, rows)
    return {"samples": written, "unplaced": write_table(home.path, work_uri(key, "unplaced"), UNPLACED, left)}
