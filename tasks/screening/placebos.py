"""Placebos: random chunks of the same length, since any prefix can lower the entropy at a root's start (docs/method.md
2.5, ours).
"""

from __future__ import annotations

import hashlib

from tasks.screening.passages import Passages
from tasks.screening.retrieval import exclusion


def placebo_ids(passages: Passages, root: int, chunk: int, *, seed: int, copy_characters: int) -> tuple[int, ...]:
    """Tokens of random chunks, as many as the chunk has, drawn by hash under the same exclusion rules."""
    wanted = len(passages.chunk_ids(chunk))
    salt = f"{seed}:{passages.root(root).root_id}:{passages.chunk(chunk).chunk_id}"
    ids: list[int] = []
    for draw in range(64 * (1 + wanted)):
        number = int.from_bytes(hashlib.sha256(f"{salt}:{draw}".encode()).digest()[:8], "big") % passages.chunk_count
        if number != chunk and exclusion(passages, root, number, copy_characters) is None:
            ids.extend(passages.chunk_ids(number))
        if len(ids) >= wanted:
            break
    return tuple(ids[:wanted])
