"""Roots that are long and uncertain in a fifth of their tokens: as many as the threshold mean + 2 sigma can ever select
(1 / (1 + 2^2), Cantelli).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.scoring import Context
from storage.digests import digest_json
from storage.errors import InputError
from storage.refs import Ref
from storage.schemas import POSITIONS, ROOTS
from storage.tables import RowReader, read_table, write_table
from tasks.benchmarks.scene import Reader, Scene
from tasks.screening.entropy import query_window

SHARE = 0.2
CHARACTERS_PER_TOKEN = 12
FOLDER = "work/bench"


def stress_roots(scene: Scene, reader: Reader, count: int, tokens: int) -> Ref:
    """A roots table of the first ``tokens`` tokens of the first ``count`` documents that are as long.

    Raises ``InputError`` when the corpus has fewer.
    """
    documents = RowReader(scene.home.path, scene.corpus.documents, ["doc_id", "text"])
    rows: list[dict[str, Any]] = []
    for doc in range(documents.rows):
        row = documents[doc]
        text = row["text"][: tokens * CHARACTERS_PER_TOKEN]
        encoded = reader.policy.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = encoded["input_ids"][:tokens]
        if len(ids) == tokens:
            end = int(encoded["offset_mapping"][tokens - 1][1])
            identity = digest_json([row["doc_id"], 0, end, ids])
            rows.append(
                {"root_id": identity, "doc": doc, "role": "train", "char_start": 0, "char_end": end, "input_ids": ids}
            )
        if len(rows) == count:
            break
    documents.close()
    if len(rows) < count:
        raise InputError(f"the corpus has {len(rows)} documents of {tokens} tokens, {count} are needed.")
    name = digest_json([row["root_id"] for row in rows])[:16]
    return write_table(scene.home.path, f"{FOLDER}/stress-roots-{name}.parquet", ROOTS, rows)


def selected_positions(scene: Scene, reader: Reader, roots: Ref) -> Ref:
    """A positions table of the ``SHARE`` most uncertain tokens of each root."""
    rows: list[dict[str, Any]] = []
    bos = reader.bos
    for number, ids in enumerate(read_table(scene.home.path, roots, ["input_ids"])["input_ids"].to_list()):
        context = Context((*bos, *ids), [len(bos) + t for t in range(1, len(ids))])
        score = reader.scorer.score([context])[0]
        entropies, losses = score.entropy.numpy(), score.nll.numpy()
        chosen = np.sort(np.argsort(-entropies, kind="stable")[: round(SHARE * len(ids))])
        statistics = {
            "mean": float(entropies.mean()),
            "std": float(entropies.std()),
            "threshold": float(entropies[chosen].min()),
        }
        for place in chosen.tolist():
            t = place + 1
            window = list(query_window(ids, t, scene.build.entropy.query_radius))
            rows.append(
                {
                    "root": number,
                    "t": t,
                    "token_id": ids[t],
                    "entropy": float(entropies[place]),
                    "nll": float(losses[place]),
                    "query": reader.policy.tokenizer.decode(window),
                    **statistics,
                }
            )
    uri = f"{FOLDER}/stress-positions-{roots.sha256[:16]}-{scene.policy.digest[:16]}.parquet"
    return write_table(scene.home.path, uri, POSITIONS, rows)
