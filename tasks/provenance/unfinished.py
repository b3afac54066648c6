"""Where a document stands outside of finished versions: in a round that was not finished, and in what steps left.

Read are samples, whose segments name documents, and the roots that were screened. A table that a finished version has
too is not counted again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from storage.corpora import Corpus
from storage.home import Home
from storage.manifests import MANIFEST
from tasks.retention.tables import StepRecord, step_records


class UnfinishedReach(BaseModel):
    """A folder or table of the home that holds a document and belongs to no finished version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str = Field(description="versions/<version16> without a manifest, or a table of a step, below the home.")
    samples: int = Field(0, description="Samples that hold tokens of it.")
    tokens: int = 0
    roots: int = Field(0, description="Roots of it that were screened, where the table says that.")


def unfinished(
    home: Home, documents: list[str], corpora: Iterable[Corpus], published: Collection[str], unread: list[str]
) -> Iterator[UnfinishedReach]:
    """What holds these documents; ``published`` are the digests of all files of finished versions.

    What could not be read is added to ``unread``.
    """
    for folder in sorted((home / "versions").glob("*")):
        if folder.is_dir() and not (folder / MANIFEST).exists():
            uri = f"versions/{folder.name}"
            yield from _samples(uri, sorted(folder.glob("samples/*.parquet")), documents, unread)
    records, broken = step_records(home)
    unread += [f"the step's record {uri} can't be read." for uri in broken]
    rows = {corpus.documents.sha256: _rows(home, corpus, documents) for corpus in corpora}
    roots = {ref.sha256: (record, ref.uri) for record in records for ref in record.refs if ref.table == "roots"}
    for record in records:
        for ref in record.refs:
            path = home / ref.uri
            if ref.sha256 in published or not path.is_file():
                continue
            if ref.table == "samples":
                yield from _samples(ref.uri, [path], documents, unread)
            elif ref.table == "screened":
                yield from _screened(home, ref.uri, record, roots, rows, unread)


def _rows(home: Home, corpus: Corpus, documents: list[str]) -> list[int]:
    """Rows of the documents in a corpus."""
    numbered = pl.scan_parquet(home / corpus.documents.uri, row_index_name="doc").select("doc", "doc_id")
    return numbered.filter(pl.col("doc_id").is_in(documents)).collect(engine="streaming")["doc"].to_list()


def _samples(uri: str, files: list[Path], documents: list[str], unread: list[str]) -> Iterator[UnfinishedReach]:
    samples = tokens = 0
    for path in files:
        try:
            spans = pl.scan_parquet(path).select("segments").with_row_index("row")
            spans = spans.filter(pl.col("segments").list.len() > 0).explode("segments").unnest("segments")
            here = spans.filter(pl.col("doc_id").is_in(documents))
            length = (pl.col("end") - pl.col("start")).cast(pl.Int64).sum()
            found = here.select(pl.col("row").n_unique().alias("samples"), length.alias("tokens"))
            row = found.collect(engine="streaming").row(0, named=True)
        except (pl.exceptions.PolarsError, OSError) as error:
            unread.append(f"{uri}/{path.name} can't be read ({' '.join(str(error).split())[:100]}).")
            continue
        samples, tokens = samples + row["samples"], tokens + row["tokens"]
    if samples:
        yield UnfinishedReach(uri=uri, samples=samples, tokens=tokens)


def _screened(
    home: Home,
    uri: str,
    record: StepRecord,
    roots: Mapping[str, tuple[StepRecord, str]],
    rows: Mapping[str, list[int]],
    unread: list[str],
) -> Iterator[UnfinishedReach]:
    """The screened roots of a shard that were cut from the documents; its record names the table of roots, and that
    table's record the corpus.
    """
    made, table = next((roots[digest] for digest in sorted(record.inputs & roots.keys())), (None, ""))
    wanted = [row for digest in sorted(made.inputs & rows.keys()) for row in rows[digest]] if made else []
    if made is None or not wanted:
        return
    try:
        cut = pl.scan_parquet(home / table, row_index_name="root").filter(pl.col("doc").is_in(wanted))
        cut = cut.select(pl.col("root").cast(pl.Int32))
        here = pl.scan_parquet(home / uri).select("root").join(cut, on="root", how="semi")
        count = int(here.select(pl.len()).collect(engine="streaming").item())
    except (pl.exceptions.PolarsError, OSError) as error:
        unread.append(f"{uri} can't be read beside its roots ({' '.join(str(error).split())[:100]}).")
        return
    if count:
        yield UnfinishedReach(uri=uri, roots=count)
