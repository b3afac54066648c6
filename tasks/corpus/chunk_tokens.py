"""The tokens of all chunks, made once: a round's samples are put together from them without the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from models.policy import load_tokenizer
from storage.checkpoints import work_uri
from storage.chunk_tokens import TokenRow, write_chunk_tokens
from storage.home import Home
from storage.refs import Ref
from storage.tables import open_table
from tasks.checkpointed import step
from tasks.corpus.tokenizing import batch_encoder
from tasks.progress import progress

_CHUNKS_AT_ONCE = 1024


class TokenInputs(BaseModel):
    """The chunks, and the digest of the tokenizer that counted them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chunks: Ref
    tokenizer: str
    tokenizer_folder: str = Field(exclude=True)


class TokenOptions(BaseModel):
    """Nothing decides what a chunk's tokens are but the chunk and the tokenizer."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@step("ingest-tokens", code_version=1)
def tokenise_chunks(home: Home, inputs: TokenInputs, config: TokenOptions) -> dict[str, Ref]:
    """Writes ``tokens``: each chunk's ids when tokenised alone, special tokens left out."""
    uri = str(Path(work_uri(tokenise_chunks.key(inputs, config), "tokens")).with_suffix(".arrow"))
    encode = batch_encoder(load_tokenizer(Path(inputs.tokenizer_folder)))
    with (
        open_table(home.path, inputs.chunks) as file,
        progress("tokenising chunks", total=inputs.chunks.rows, unit="chunks") as advance,
    ):

        def rows() -> Iterator[TokenRow]:
            for batch in file.iter_batches(batch_size=_CHUNKS_AT_ONCE, columns=["chunk_id", "doc", "text"]):
                names, docs, texts = (column.to_pylist() for column in batch.columns)
                yield from zip(names, docs, encode(texts), strict=True)
                advance(len(texts))

        return {"tokens": write_chunk_tokens(home.path, uri, rows())}
