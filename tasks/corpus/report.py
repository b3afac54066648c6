"""What an ingest did, in Markdown: for the Prefect artifact and for people."""

from __future__ import annotations

from collections.abc import Iterable

from storage.corpora import Corpus
from storage.digests import short
from tasks.corpus.quarantine import REASONS


def ingest_report(corpus: Corpus, name: str) -> str:
    """A page with the corpus's documents, parts, chunks and every reason for a refusal."""
    counts = corpus.manifest["counts"]
    embedder = corpus.manifest["embedder"]
    parts = [(part, f"{n['documents']:,}", f"{n['characters']:,}") for part, n in counts["parts"].items()]
    refused = [(reason, f"{n:,}", REASONS[reason]) for reason, n in counts["quarantine"].items() if n]
    chunks = [
        ("chunks", f"{counts['chunks']:,}"),
        ("tokens in chunks", f"{counts['chunk_tokens']:,}"),
        (
            "pieces too small to index",
            f"{counts['crumbs']:,} ({counts['crumb_tokens']:,} tokens, {counts['crumb_characters']:,} characters)",
        ),
        (
            "chunks the embedder cuts off",
            f"{counts['truncated_chunks']:,} ({counts['truncated_pieces']:,} word pieces)",
        ),
        (
            "embedder",
            f"{short(embedder['digest'])}, {embedder['dimension']} dimensions, reads {embedder['limit']} pieces",
        ),
    ]
    heldout = (
        f"{counts['heldout_removed_characters']:,} characters were taken out of {counts['heldout_changed']:,} held-out"
        f" documents because they also stand in another part; {counts['heldout_refused']:,} were refused for it."
    )
    return "\n\n".join(
        [
            f"# Corpus {name}",
            f"Digest `{corpus.digest}`. {counts['rows']:,} rows read = {counts['documents']:,} documents"
            f" + {corpus.quarantine.rows:,} refused.",
            _table(("part", "documents", "characters"), parts),
            heldout,
            _table(("chunks", ""), chunks),
            _table(("refused because", "rows", "meaning"), refused) if refused else "No row was refused.",
        ]
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
