"""Tags: short texts before parts of documents that say where a part comes from (docs/method.md 3)."""

from __future__ import annotations


def tag_text(doc_id: str, part: int) -> str:
    """The tag before a part: the beginning of its document's digest, and its number (from 0; in the text from 1)."""
    return f"[document {doc_id[:8]}, part {part + 1}]"
