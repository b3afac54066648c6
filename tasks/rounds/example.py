"""One dependency of a round to look at, picked by rule: the certainty gained in nats, not a copied bigram where
possible.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from transformers import PreTrainedTokenizerBase

from storage.corpora import Corpus
from storage.home import Home
from storage.manifests import Manifest
from storage.schemas import NEGATIVES, POSITIONS, VERDICTS
from storage.tables import RowReader, read_tables
from storage.versions import table_refs
from tasks.screening.passages import Passages


@dataclass(frozen=True, slots=True)
class Example:
    """A verified dependency with its texts; entropies in nats, titles for people."""

    round: int
    root_before: str
    token: str
    root_after: str
    query: str
    context: str
    entropy_before: float
    entropy_after: float
    gain: float
    negative: str | None
    root_title: str
    context_title: str
    negative_title: str


def pick_example(
    home: Home, version: str, manifest: Manifest, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, probe_roots: int
) -> Example | None:
    """The round's dependency with the largest fall of entropy (nats); None when nothing was kept.

    Dependencies whose bigram stands in the chunk and those without a hard negative come last; ties go by row.
    """
    refs = {name: table_refs(version, manifest, name) for name in ("roots", "verdicts", "negatives", "positions")}
    kept = read_tables(home.path, refs["verdicts"], VERDICTS).filter(pl.col("kept") & (pl.col("root") >= probe_roots))
    if not len(kept):
        return None
    negatives = read_tables(home.path, refs["negatives"], NEGATIVES).filter(pl.col("kept"))
    nearest = negatives.sort("rank", "chunk").unique(["root", "seed_chunk"], keep="first", maintain_order=True)
    nearest = nearest.select("root", pl.col("seed_chunk").alias("chunk"), pl.col("chunk").alias("negative"))
    ranked = (
        kept.join(nearest, on=["root", "chunk"], how="left")
        .with_columns(
            (pl.col("entropy_before") - pl.col("entropy_after")).alias("fall"),
            pl.col("negative").is_null().alias("alone"),
        )
        .sort(["literal", "alone", "fall", "root", "t", "chunk"], descending=[False, False, True, False, False, False])
    )
    best = ranked.row(0, named=True)
    positions = read_tables(home.path, refs["positions"], POSITIONS)
    query = positions.filter((pl.col("root") == best["root"]) & (pl.col("t") == best["t"]))["query"].item()
    passages = Passages(home, roots=refs["roots"][0], chunks=corpus.chunks, documents=corpus.documents)
    titles = RowReader(home.path, corpus.documents, ["title"], kept_bytes=2**27)
    root, context = passages.root(best["root"]), passages.chunk(best["chunk"])
    negative = passages.chunk(best["negative"]) if best["negative"] is not None else None
    ids, t = list(root.ids), best["t"]
    example = Example(
        round=manifest.round,
        root_before=str(tokenizer.decode(ids[:t])),
        token=str(tokenizer.decode(ids[t : t + 1])),
        root_after=str(tokenizer.decode(ids[t + 1 :])),
        query=query,
        context=context.text,
        entropy_before=best["entropy_before"],
        entropy_after=best["entropy_after"],
        gain=best["gain"],
        negative=negative.text if negative else None,
        root_title=titles[root.doc]["title"],
        context_title=titles[context.doc]["title"],
        negative_title=titles[negative.doc]["title"] if negative else "",
    )
    passages.close()
    titles.close()
    return example
