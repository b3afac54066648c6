"""The card of an export that is not the version's own files: README.md with the hub's front matter."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from storage.manifests import Manifest
from storage.schemas import SAMPLES, TableSchema
from tasks.exporting.formats import SUFFIXES
from tasks.exporting.record import Counts, ExportOptions, Lengths
from tasks.exporting.repacking import REPACKED
from tasks.rounds.dataset_card import TAGS

CARD = "README.md"


def export_card(manifest: Manifest, options: ExportOptions, counts: Counts, tokenizer: str | None) -> bytes:
    """The card as UTF-8; ``tokenizer`` names the one that the samples were packed with anew, if any."""
    front: dict[str, object] = {
        "pretty_name": f"{manifest.recipe}, round {manifest.round}",
        "task_categories": ["text-generation"],
        "tags": list(dict.fromkeys([*TAGS, manifest.recipe])),
    }
    if options.format != "datasets":
        files = {"split": "train", "path": f"samples/samples-*{SUFFIXES[options.format]}"}
        front["configs"] = [{"config_name": "samples", "default": True, "data_files": [files]}]
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    body = "\n\n".join(_sections(manifest, options, counts, tokenizer))
    return f"---\n{text}---\n\n{body}\n".encode()


def _sections(manifest: Manifest, options: ExportOptions, counts: Counts, tokenizer: str | None) -> Iterator[str]:
    yield f"# Samples of round {manifest.round}, recipe `{manifest.recipe}`"
    yield (
        f"An export of dataset version `{manifest.version}`. `export.json` names every file with its SHA-256,"
        " `manifest.json` is the version's own (its SHA-256 is the version), and `policylong audit FOLDER` checks both."
        " The texts are the corpus's: its licences apply."
    )
    load = {
        "datasets": 'from datasets import load_from_disk\n\nsamples = load_from_disk("FOLDER")',
        "jsonl": 'from datasets import load_dataset\n\nsamples = load_dataset("FOLDER", split="train")',
        "parquet": 'from datasets import load_dataset\n\nsamples = load_dataset("FOLDER", split="train")',
    }
    yield f"```python\n{load[options.format]}\n```"
    lengths = Lengths.of(counts.lengths)
    if lengths is not None:
        rows = sum(counts.lengths.values())
        share = ", ".join(f"{name}: {length:,}" for name, length in sorted(lengths.quantiles.items()))
        yield (f"{rows:,} samples of {lengths.least:,} to {lengths.most:,} tokens, mean {lengths.mean:,.1f} ({share}).")
    if tokenizer is not None:
        left = ", ".join(f"{reason}: {number:,}" for reason, number in sorted(counts.not_carried.items())) or "none"
        yield (
            f"The tokens are those of `{tokenizer}`, whose files are in `tokenizer/`: the version's segments in the"
            " version's order, read from the corpus and tokenised anew. Samples have different lengths and are not"
            f" padded. {counts.carried:,} of {counts.dependencies:,} dependencies were carried over (left out: {left};"
            " listed in `not-carried/`); their entropies are those of the model that built the version, at its own"
            " tokens."
        )
    yield _columns(SAMPLES if tokenizer is None else REPACKED)


def _columns(schema: TableSchema) -> str:
    rows = "\n".join(f"| `{column.name}` | {column.meaning} |" for column in schema.columns)
    return f"| column | meaning |\n| --- | --- |\n{rows}"
