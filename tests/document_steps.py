"""What tests of document recipes share: inputs of their steps on the small world, and documents of numbered tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from transformers import AutoTokenizer

from storage.refs import Ref
from storage.tables import read_table
from tasks.corpus.splitting import unit_hash
from tasks.rounds.building import policy_inputs
from tasks.samples.spans import Form
from tasks.whole_documents.document_order import TokenDocument
from tests.world import World

SEPARATOR = "\n\n"


def document_inputs(world: World, **changes: Any) -> dict[str, Any]:
    """Fields of ``DocumentInputs`` for the first of two rounds of samples of 128 tokens."""
    fields: dict[str, Any] = {
        "corpus": "world",
        "tokenizer": "a" * 64,
        "separator": SEPARATOR,
        "target_tokens": 128,
        "samples": None,
        "round": 1,
        "rounds": 2,
        "policy": policy_inputs(world.policy, world.folder, world.config.numeric),
    }
    return {**fields, **changes}


def rows_of(world: World, ref: Ref) -> list[dict[str, Any]]:
    """A table's rows."""
    return read_table(world.home.path, ref).to_dicts()


def tokenise(world: World, text: str) -> list[int]:
    """A text's tokens when it stands alone."""
    return list(AutoTokenizer.from_pretrained(world.folder)(text, add_special_tokens=False)["input_ids"])


def literal_order(world: World, number: int, rounds: int = 2, seed: int = 0) -> list[int]:
    """Rows of the documents of a round, in order."""
    rows = [row for row, document in enumerate(world.documents) if document["part"] == "screen"]
    rows.sort(key=lambda row: unit_hash("document-order", seed, world.documents[row]["doc_id"]))
    return [row for place, row in enumerate(rows) if place % rounds == number - 1]


def numbered_documents(lengths: list[int]) -> list[TokenDocument]:
    """Documents whose tokens are 1000, 1001, … through all of them, so a token says where it comes from."""
    documents, first = [], 1000
    for row, length in enumerate(lengths):
        ids = np.arange(first, first + length, dtype=np.int32)
        documents.append(TokenDocument(row, f"{row:08d}", ids))
        first += length
    return documents


def check_spans(samples: list[dict[str, Any]], documents: list[TokenDocument], form: Form) -> None:
    """Every sample has its length, and every document span its document's tokens, with separators between spans."""
    by_id = {document.doc_id: document.ids.tolist() for document in documents}
    for sample in samples:
        ids = sample["input_ids"]
        assert len(ids) == sample["length"] == form.target
        end = None
        for segment in sample["segments"]:
            assert ids[end or 0 : segment["start"]] == list(form.bos if end is None else form.separator)
            end = segment["end"]
            assert segment["start"] < end
            if segment["kind"] == "document":
                length = end - segment["start"]
                origin = by_id[segment["doc_id"]][segment["source_start"] : segment["source_start"] + length]
                assert ids[segment["start"] : end] == origin
        rest = ids[end:]
        assert rest == list(form.separator[: len(rest)]), "a sample ends in something else than a separator"


lengths = st.lists(st.integers(1, 90), min_size=1, max_size=12)
forms = st.builds(
    Form,
    target=st.integers(12, 60),
    bos=st.sampled_from([(), (1,)]),
    separator=st.sampled_from([(), (2,), (2, 3, 4)]),
)
