"""The dataset card of a version: README.md with the front matter that ``datasets.load_dataset(folder)`` reads.

It is part of the version, so it holds neither the version's own digest nor a time: the same round has the same card.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import yaml

from storage.manifests import Manifest
from storage.schemas import TABLES, TableSchema
from tasks.rounds.funnel import FUNNEL, TOKENS

README = "README.md"
TAGS = ("long-context", "policylong", "verified-dependencies", "hard-negatives")
SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)
"""Numbers of samples below which a version is of a size, as the hub names sizes."""


def dataset_card(manifest: Manifest) -> bytes:
    """The card as UTF-8, from the manifest of a round whose ``files`` may lack the card itself."""
    tables = [name for name in TABLES if manifest.names(name)]
    front = yaml.safe_dump(_front_matter(manifest, tables), sort_keys=False, allow_unicode=True)
    body = "\n\n".join(_sections(manifest, tables))
    return f"---\n{front}---\n\n{body}\n".encode()


def _front_matter(manifest: Manifest, tables: Sequence[str]) -> dict[str, object]:
    rows = manifest.funnel.get("samples", 0)
    size = next((name for limit, name in SIZES if rows < limit), "1B<n<10B")
    configs: list[dict[str, object]] = []
    for table in sorted(tables, key=lambda name: (name != "samples", name)):
        pattern = manifest.names(table)[0].replace("-00000.parquet", "-*.parquet")
        config: dict[str, object] = {"config_name": table}
        if table == "samples":
            config["default"] = True
        configs.append({**config, "data_files": [{"split": "train", "path": pattern}]})
    return {
        "pretty_name": f"{manifest.recipe}, round {manifest.round}",
        "task_categories": ["text-generation"],
        "size_categories": [size],
        "tags": [*TAGS, manifest.recipe] if manifest.recipe not in TAGS else list(TAGS),
        "configs": configs,
    }


def _sections(manifest: Manifest, tables: Sequence[str]) -> Iterator[str]:
    yield f"# Round {manifest.round} of recipe `{manifest.recipe}`"
    yield (
        "Long-context training samples built from a corpus of short documents by the language model that is being"
        " trained. Each sample holds *roots* (windows of documents), the *positives* whose presence lowered the"
        " model's uncertainty at named tokens of a root, and *hard negatives* that look alike. Every dependency is"
        " listed with the entropies that prove it."
    )
    yield _loading()
    yield "## Origin\n\n" + _table(("what", "which"), _origin(manifest))
    yield "## From roots to samples\n\n" + _table(("count", "number", "meaning"), _counts(manifest.funnel, FUNNEL))
    yield "## Tokens\n\n" + _table(("tokens", "number", "meaning"), _counts(manifest.tokens, TOKENS))
    if manifest.figures:
        figures = ((name, f"{value:.6g}") for name, value in sorted(manifest.figures.items()))
        yield "## Figures\n\n" + _table(("figure", "value"), figures)
    yield "## Columns\n\nEntropies are in nats over the full vocabulary, lengths and places in tokens."
    for table in sorted(tables, key=lambda name: (name != "samples", name)):
        yield _columns(TABLES[table], len(manifest.names(table)))
    yield _environment(manifest)


def _loading() -> str:
    return (
        "## Loading\n\n"
        "```python\n"
        "from datasets import load_dataset\n\n"
        'samples = load_dataset("FOLDER", split="train")              # this folder, or its copy on a hub\n'
        'verdicts = load_dataset("FOLDER", "verdicts", split="train")\n'
        'samples = load_dataset("parquet", data_files="FOLDER/samples/*.parquet", split="train")\n'
        "```\n\n"
        "`policylong audit` recomputes every digest and follows every row to its origin. `config.json` is the whole"
        " configuration, `manifest.json` names every file with its SHA-256; the SHA-256 of `manifest.json` is the"
        " dataset version. The texts are the corpus's: its licences apply."
    )


def _origin(manifest: Manifest) -> Iterator[tuple[str, str]]:
    for name, digest in (
        ("policy that screened", manifest.policy),
        ("policy before it", manifest.parent_policy),
        ("version it was trained on", manifest.parent_version),
        ("corpus", manifest.corpus),
        ("embedder", manifest.embedder),
        ("configuration", manifest.config_digest),
    ):
        yield name, f"`{digest}`" if digest else "none: a base model"
    yield "lag in rounds", str(manifest.lag)
    for name, seed in sorted(manifest.seeds.items()):
        yield f"seed of {name}", str(seed)


def _counts(counts: Mapping[str, int], meanings: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    order = [name for name in meanings if name in counts] + sorted(counts.keys() - meanings.keys())
    for name in order:
        yield name, f"{counts[name]:,}", meanings.get(name, "")


def _columns(schema: TableSchema, shards: int) -> str:
    files = f"{shards} file{'s' if shards > 1 else ''}, key: {', '.join(schema.key)}"
    rows = ((f"`{c.name}`", f"`{_type(str(c.type))}`", c.meaning) for c in schema.columns)
    return f"### {schema.name}\n\n{schema.meaning} ({files})\n\n" + _table(("column", "type", "meaning"), rows)


def _type(text: str) -> str:
    """An Arrow type for people."""
    return text.replace(" not null", "").replace("element: ", "").replace("item: ", "")


def _environment(manifest: Manifest) -> str:
    numeric = manifest.numeric
    versions = ", ".join(f"{name} {version}" for name, version in sorted(numeric.versions.items()))
    threads = f"{numeric.threads} thread{'s' if numeric.threads > 1 else ''}"
    return (
        "## Numeric environment\n\n"
        f"{numeric.device}, {numeric.dtype}, {threads} per task{numeric.ways}; {versions}. In the same environment the"
        " same inputs give the same version bit for bit; in another one entropies agree to a tolerance."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
