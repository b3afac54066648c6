"""What a trace says: where tokens of a sample come from and why they are there. Entropies in nats, gains as shares."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tasks.provenance.lineage import Ancestor


class Facts(BaseModel):
    """Base of all parts: frozen, JSON as it stands; null is what is not known or does not apply.

    An infinite number (the nll of a token that the policy can't produce) is the text "Infinity" in JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Origin(Facts):
    """A segment of a sample and where its text lies."""

    segment: int = Field(description="Its number in the sample, from 0.")
    kind: str = Field(description="root, positive, negative, filler, document or tag.")
    start: int = Field(description="First token in the sample.")
    end: int = Field(description="Token after the last.")
    source_start: int = Field(description="First token taken from the origin; for a tag the number of its part.")
    root_id: str | None
    chunk_id: str | None
    doc_id: str
    source: str | None = Field(description="Where the document came from.")
    title: str | None
    part: str | None = Field(description="Part of the corpus: pretrain, screen, probe or heldout.")
    char_start: int | None = Field(description="First character of the chunk, root or document in the document.")
    char_end: int | None = Field(description="Character after the last.")
    helps: int = Field(description="Recorded dependencies on it; of a root: of its positions.")


class Link(Facts):
    """A root's position, and a chunk that was an answer to its question."""

    root_id: str
    t: int = Field(description="Token index in the root.")
    position: int | None = Field(description="The same token in the sample.")
    chunk_id: str
    chunk_start: int | None = Field(description="First token of the chunk in the sample.")
    chunk_end: int | None
    helped: bool = Field(description="Whether the sample records it as a dependency.")
    distance: int | None = Field(description="Tokens from the chunk's end to the position, for a dependency.")
    token: str | None = Field(description="Text of the position's token.")
    before: str | None = Field(description="Text of the root before it.")
    after: str | None
    context: str | None = Field(description="Beginning of the chunk's text.")
    query: str | None
    entropy: float | None = Field(description="Of the prediction of the token, without any context, nats.")
    threshold: float | None = Field(description="Of its root, nats.")
    rank: int | None = Field(description="Of the chunk among the candidates, from 0.")
    score: float | None = Field(description="Cosine of query and chunk.")
    excluded: str | None = Field(description="Why it was not verified.")
    entropy_before: float | None
    entropy_after: float | None
    nll_before: float | None
    nll_after: float | None
    gain: float | None
    literal: bool | None = Field(description="Whether the bigram up to the token stands in the chunk.")
    placebo_gain: float | None = Field(description="Gain from a random chunk of equal length.")
    kept: bool | None
    reason: str | None = Field(description="Why it was not kept.")


class Seed(Facts):
    """The positive that brought a negative or filler."""

    root_id: str
    chunk_id: str
    start: int | None = Field(description="First token of the positive in the sample; null when it has no place there.")
    end: int | None
    rank: int
    score: float | None = Field(description="Cosine to the positive; null for a random chunk.")
    max_gain: float | None = Field(description="Largest gain at a selected position; null when not verified.")


class Neighbour(Facts):
    """A document of the sample that brought another as its neighbour."""

    doc_id: str
    rank: int
    score: float | None


class Position(Facts):
    """A token of a root whose prediction was uncertain."""

    t: int
    position: int = Field(description="The token in the sample.")
    token: str | None = Field(description="Its text.")
    entropy: float
    nll: float
    threshold: float
    query: str
    candidates: int = Field(description="Chunks that were found for it.")
    excluded: int = Field(description="Of these, not verified.")
    kept: int = Field(description="Of these, verified and kept.")


class RootFacts(Facts):
    """The statistics of a root, and those of the asked tokens whose prediction was uncertain."""

    role: str
    first_t: int = Field(description="First asked token, as an index in the root.")
    stop_t: int = Field(description="Index after the last.")
    mean: float | None = Field(description="Mean entropy, nats.")
    std: float | None
    threshold: float | None
    selected: int | None = Field(description="Positions of the root above the threshold.")
    positions: tuple[Position, ...] = Field(description="Those among the asked tokens.")


class Piece(Facts):
    """Asked tokens that lie together in one segment, or between two."""

    start: int
    end: int
    kind: str = Field(description="The segment's kind; bos or separator between segments.")
    origin: Origin | None
    text: str | None
    before: str | None = Field(description="The segment's text before these tokens.")
    after: str | None
    characters: tuple[int, int] | None = Field(description="Their characters [start, end) in the document's text.")
    links: tuple[Link, ...] = Field((), description="Who asked for this chunk, or what helped these root tokens.")
    root: RootFacts | None = None
    seeds: tuple[Seed, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()


class Trace(Facts):
    """A sample, or some of its tokens, traced back to documents, questions and the model that asked them."""

    version: str
    round: int
    recipe: str
    row: int = Field(description="The sample's number in the version, from 0.")
    sample_id: str
    tokens: int = Field(description="Length of the sample.")
    span: tuple[int, int] | None = Field(description="The asked tokens [start, end); null for the whole sample.")
    segments: tuple[Origin, ...] = Field(description="Of the whole sample; empty when tokens were asked for.")
    dependencies: tuple[Link, ...] = Field(description="Of the whole sample; empty when tokens were asked for.")
    pieces: tuple[Piece, ...] = Field(description="The asked tokens, in order.")
    corpus: str
    embedder: str
    policies: tuple[Ancestor, ...] = Field(description="Who screened, then parent by parent to the base model.")
    relation: str
    lag: int
    config_digest: str
    code_versions: dict[str, int] = Field(description="Step → version of its code.")
    unknown: tuple[str, ...] = Field(description="What can't be said here, and why.")
