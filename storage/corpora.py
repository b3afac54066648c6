"""Corpora: documents, chunks and vectors that belong together, under one digest.

    corpora/<digest16>/documents.parquet  chunks.parquet  tokens.arrow  vectors-00000.parquet …  quarantine.parquet
                       corpus.json
    corpora/names/<name>.json             {"digest": …}, moved when the name is given to another corpus

``corpus.json`` is the manifest. It is written last, so a folder without one is not a corpus. The corpus's digest is the
SHA-256 of the manifest in canonical JSON; it holds no time, host or path, and not the name, so the same inputs have the
same digest in every home.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict

from storage.digests import digest_file, digest_json, short
from storage.errors import ConfigError, InputError, IntegrityError
from storage.files import place, read_json, write_json
from storage.home import Home
from storage.refs import Ref
from storage.tables import check_ref, check_unchanged

MANIFEST = "corpus.json"
DIGITS = 16


class Corpus(BaseModel):
    """A complete corpus; the tables are refs into its own folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    name: str
    documents: Ref
    chunks: Ref
    vectors: tuple[Ref, ...]
    quarantine: Ref
    tokens: Ref | None = None
    """The chunks' tokens (storage.chunk_tokens); a corpus may be without."""
    manifest: dict[str, Any]

    @property
    def folder(self) -> str:
        """The corpus's folder relative to the home."""
        return corpus_folder(self.digest)

    @property
    def embedder_digest(self) -> str:
        """Digest of the embedder that made the vectors."""
        return str(self.manifest["embedder"]["digest"])

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.manifest["embedder"]["dimension"])

    @property
    def refs(self) -> tuple[Ref, ...]:
        """Every table of the corpus."""
        tokens = () if self.tokens is None else (self.tokens,)
        return (self.documents, self.chunks, self.quarantine, *tokens, *self.vectors)


def corpus_folder(digest: str) -> str:
    """The folder of a corpus relative to the home."""
    return f"corpora/{short(digest, DIGITS)}"


def publish_corpus(home: Home, description: Mapping[str, Any], tables: Mapping[str, Ref]) -> str:
    """Puts finished tables into the corpus's folder, then writes the manifest; returns the corpus's digest.

    ``tables`` has ``documents``, ``chunks``, ``quarantine``, where there are any ``tokens``, and ``vectors-00000`` … in
    order. ``description`` is the
    rest of the manifest (source, config, embedder, counts). May be repeated; a file of the folder that is damaged is
    put right.
    """
    places = {name: name + PurePosixPath(ref.uri).suffix for name, ref in tables.items()}
    files = {places[name]: {"sha256": r.sha256, "rows": r.rows, "table": r.table} for name, r in tables.items()}
    manifest = {**description, "format": 1, "files": files}
    digest = digest_json(manifest)
    folder = home.folder(corpus_folder(digest))
    for name, ref in tables.items():
        target = folder / places[name]
        source = check_ref(home.path, ref)
        if target.exists() and digest_file(target) != ref.sha256:
            target.unlink()
        place(source, target)
    write_json(folder / MANIFEST, manifest)
    return digest


def name_corpus(home: Home, name: str, digest: str) -> None:
    """Lets a name point at a corpus."""
    check_name(name)
    write_json(home.folder("corpora/names") / f"{name}.json", {"digest": digest})


def check_name(name: str) -> None:
    """Raises ``ConfigError`` unless the name is made of letters, digits, dots, dashes and underscores."""
    if not name or name.startswith(".") or not all(c.isalnum() or c in "._-" for c in name):
        raise ConfigError(f"{name!r} can't be a corpus name: letters, digits, '.', '-' and '_' only.")


def open_corpus(home: Home, name_or_digest: str) -> Corpus:
    """The corpus of a name, a digest or an unambiguous beginning of one (at least 6 characters).

    Raises ``InputError`` when there is none and ``IntegrityError`` when its manifest was changed.
    """
    pointer = home / f"corpora/names/{name_or_digest}.json"
    if _could_be_a_name(name_or_digest) and pointer.is_file():
        return _load(home, str(read_json(pointer)["digest"]), name_or_digest)
    found = sorted(
        path.parent.name
        for path in (home / "corpora").glob(f"*/{MANIFEST}")
        if len(name_or_digest) >= 6
        and (path.parent.name.startswith(name_or_digest) or name_or_digest.startswith(path.parent.name))
    )
    if len(found) == 1:
        corpus = _load(home, found[0], _name_of(home, found[0]))
        if corpus.digest.startswith(name_or_digest):
            return corpus
    names = ", ".join(sorted(path.stem for path in (home / "corpora/names").glob("*.json"))) or "none"
    problem = "is ambiguous" if len(found) > 1 else "is not in this home"
    raise InputError(
        f"corpus {name_or_digest!r} {problem} (there: {names}).",
        hint="Make one with: policylong ingest PATH --name NAME",
    )


def corpus_to_read(home: Home, name_or_digest: str) -> Corpus:
    """``open_corpus`` for work whose output rests on the texts: raises as it and, for documents and chunks,
    ``check_corpus_table`` do.
    """
    corpus = open_corpus(home, name_or_digest)
    for ref in (corpus.documents, corpus.chunks):
        check_corpus_table(home, ref)
    return corpus


def check_corpus_table(home: Home, ref: Ref) -> None:
    """Hashes a table of a corpus, once in a process while the file system shows no change.

    Raises ``IntegrityError`` when it is not what the corpus was published with.
    """
    try:
        check_unchanged(home.path, ref)
    except IntegrityError as error:
        raise IntegrityError(error.message, hint="Run policylong ingest again to put it right.") from error


def list_corpora(home: Home) -> list[Corpus]:
    """Every complete corpus of the home, sorted by name and digest."""
    corpora = [
        _load(home, p.parent.name, _name_of(home, p.parent.name)) for p in (home / "corpora").glob(f"*/{MANIFEST}")
    ]
    return sorted(corpora, key=lambda corpus: (corpus.name, corpus.digest))


def _could_be_a_name(text: str) -> bool:
    return bool(text) and "/" not in text and "\\" not in text and not text.startswith(".")


def _load(home: Home, digest_or_folder: str, name: str) -> Corpus:
    folder = corpus_folder(digest_or_folder)
    manifest = read_json(home / folder / MANIFEST)
    digest = digest_json(manifest)
    if not digest.startswith(short(digest_or_folder, 64)):
        raise IntegrityError(
            f"{folder}/{MANIFEST} was changed: its digest is {short(digest)}, expected {short(digest_or_folder)}.",
            hint="Run policylong ingest again to put it right.",
        )
    refs = dict(_refs(folder, manifest["files"]))
    return Corpus(
        digest=digest,
        name=name,
        documents=refs.pop("documents"),
        chunks=refs.pop("chunks"),
        quarantine=refs.pop("quarantine"),
        tokens=refs.pop("tokens", None),
        vectors=tuple(refs[key] for key in sorted(refs)),
        manifest=manifest,
    )


def _refs(folder: str, files: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Ref]]:
    for file, facts in files.items():
        yield PurePosixPath(file).stem, Ref(uri=f"{folder}/{file}", **facts)


def _name_of(home: Home, folder: str) -> str:
    """The first name that points at the corpus of this folder, or the folder's name."""
    for path in sorted((home / "corpora/names").glob("*.json")):
        if short(str(read_json(path)["digest"]), DIGITS) == folder:
            return path.stem
    return folder
