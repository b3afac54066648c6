"""The quickstart's corpus: what Python itself and the installed packages say about themselves.

It is real text that lies on every user's machine. Three kinds of document come out of a package:

- ``docs``    the long description in its metadata, and the documentation files it ships;
- ``api``     the signatures and docstrings of one module (see ``tasks/corpus/python_modules.py``);
- ``source``  the same module's code without its docstrings, so that it does not copy the ``api`` document.

Files are read one at a time, in an order that depends on names only, and nothing is ever imported or run. Left out:
tests, vendored copies, licences, changelogs, generated code, tables of numbers, anything that is not UTF-8, and this
project itself.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.corpus.documents import RawDocument
from tasks.corpus.python_modules import is_generated, render_api, strip_docstrings
from tasks.corpus.splitting import SplitConfig, part_of, unit_hash

Kind = Literal["docs", "api", "source"]

QUICKSTART_SPLIT = SplitConfig(pretrain=0.6, heldout=0.1, probe=0.05, seed=36)
"""The split under which the shipped base model was trained; seed 36 leaves torch, transformers, matplotlib and mlflow
and a good twenty modules of the standard library to screen, and numpy, datasets and pytest to evaluate on."""

OWN_DISTRIBUTION = "policylong"
SKIPPED_FOLDERS = frozenset(
    "__pycache__ test tests testing _testing idlelib lib2to3 turtledemo ensurepip site-packages encodings licenses"
    " _vendor vendor vendored _vendored vendors third_party thirdparty _third_party extern externals _externals"
    " external node_modules".split()
)
SKIPPED_STEMS = re.compile(
    r"(licen[sc]e|copying|notice|authors|contributors|changelog|changes|history|news|top_level)", re.I
)
SKIPPED_FILES = re.compile(r"(_pb2(_grpc)?\.py|_sysconfigdata.*\.py|(^|/)test_[^/]*\.py|_test\.py|conftest\.py)$")
DESCRIPTION = "METADATA"
DOC_SUFFIXES = frozenset({".rst", ".md", ".txt"})


class PythonCorpusConfig(BaseModel):
    """What is taken from the installed packages, and how much of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: tuple[Kind, ...] = Field(("docs", "api", "source"), description="Kinds of document. Ours.")
    parts: tuple[str, ...] = Field(
        (), description="Only distributions whose hash falls into these parts (see split); empty: all. Ours."
    )
    split: SplitConfig = Field(QUICKSTART_SPLIT, description="The split that `parts` refers to. Ours.")
    min_characters: int = Field(200, ge=1, description="Shorter documents are left out. Characters. Ours.")
    max_characters: int = Field(
        24_000, ge=1_000, description="A longer document is cut at a line into several. Characters. Ours."
    )
    max_characters_per_group: int = Field(
        4_000_000, ge=1_000, description="No distribution gives more than this. Characters. Ours."
    )
    budget_characters: int | None = Field(
        None,
        ge=10_000,
        description="About how much text in all; whole folders are chosen by hash. None: everything. Ours.",
    )
    folders: int = Field(
        24,
        ge=1,
        description="With a budget: a folder gives at most this part of it, so at least so many are there. Ours.",
    )
    seed: int = Field(0, description="Salt of the hash that chooses folders and, in a folder over its limit, files.")


@dataclass(frozen=True, slots=True)
class _Origin:
    """A distribution or the standard library: what its documents have in common."""

    distribution: str
    version: str
    group: str


_Package = tuple[_Origin, Path, list[tuple[str, int]]]
"""An origin, the folder its files lie in, and (path inside the folder, bytes) of each."""


def iterate_python_documents(config: PythonCorpusConfig) -> Iterator[RawDocument]:
    """Documents of the standard library, then of every installed distribution in order of its normalised name.

    The order inside a distribution is that of the paths. One file is in memory at a time. A limit per group is
    reached by leaving out files by hash, not by stopping at the letter M.
    """
    packages: Iterator[_Package] = (package for package in _packages() if _wanted(package[0].group, config))
    if config.budget_characters is not None:
        packages = _within_budget(list(packages), config, config.budget_characters)
    for origin, root, files in packages:
        share = min(
            1.0, config.max_characters_per_group / max(1, sum(size for name, size in files if name != DESCRIPTION))
        )
        for relative, _ in files:
            if relative == DESCRIPTION:
                yield from _description(origin, config)
            elif unit_hash("file", relative) < share:
                yield from _documents_of_file(origin, root / relative, relative, config)


def package_versions() -> dict[str, str]:
    """Normalised name → version of every installed distribution but this project, and ``python`` itself."""
    versions = {"python": platform.python_version()}
    versions.update((name, dist.version) for name, dist in _distributions())
    return versions


def normalise_text(raw: bytes) -> str | None:
    """UTF-8 with unix line ends, no trailing blanks and at most two empty lines in a row; None if it is not text."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    if "\x00" in text:
        return None
    lines = (line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "").split("\n"))
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip("\n")


def _within_budget(packages: list[_Package], config: PythonCorpusConfig, budget: int) -> Iterator[_Package]:
    """The packages with the files of folders drawn by hash until the budget is used up.

    Folders, not files: a chunk can help a root only if what belongs together is there together. Every group gives a
    folder before any gives its second, or the largest packages would be all there is.
    """
    folders: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for origin, _, files in packages:
        for relative, size in files:
            folders.setdefault((origin.group, str(PurePosixPath(relative).parent)), []).append((relative, size))
    turns: Counter[str] = Counter()
    order: list[tuple[int, float, str, str]] = []
    for hashed, group, folder in sorted((unit_hash("folder", config.seed, *key), *key) for key in folders):
        order.append((turns[group], hashed, group, folder))
        turns[group] += 1
    most = budget // config.folders
    chosen: set[tuple[str, str]] = set()
    left = budget
    for _, _, group, folder in sorted(order):
        room = most
        for relative, size in sorted(folders[group, folder], key=lambda file: unit_hash("file", config.seed, file[0])):
            if size <= min(room, left):
                chosen.add((group, relative))
                room -= size
                left -= size
    for origin, root, files in packages:
        kept = [(relative, size) for relative, size in files if (origin.group, relative) in chosen]
        if kept:
            yield origin, root, kept


def _packages() -> Iterator[_Package]:
    """(origin, folder, [(path inside the folder, bytes)]) of each stdlib module and each distribution."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    version = platform.python_version()
    modules: dict[str, list[str]] = {}
    for path in sorted(stdlib.rglob("*.py")):
        relative = path.relative_to(stdlib).as_posix()
        if _readable_path(relative):
            modules.setdefault(relative.split("/")[0].removesuffix(".py"), []).append(relative)
    for module, paths in sorted(modules.items()):
        yield _Origin("python", version, f"python:{module}"), stdlib, _with_sizes(stdlib, paths)
    owners: dict[str, str] = {}
    claimed: set[str] = set()
    for name, dist in _distributions():
        # Two distributions may list the same files (mlflow and mlflow-skinny): the first one has them.
        paths = [f.as_posix() for f in dist.files or () if _readable_path(f.as_posix())]
        paths = sorted(set(paths) - claimed)
        claimed.update(paths)
        root = Path(str(dist.locate_file("")))
        files = [(DESCRIPTION, len(_long_description(name))), *_with_sizes(root, paths)]
        yield _Origin(name, dist.version, f"pypi:{_owner(name, dist, owners)}"), root, files


def _owner(name: str, dist: importlib.metadata.Distribution, owners: dict[str, str]) -> str:
    """The first distribution that fills the same import package: a family must not be torn apart by the split."""
    tops = {
        f.parts[0] for f in dist.files or () if f.suffix == ".py" and len(f.parts) > 1 and f.parts[0].isidentifier()
    }
    known = [owners[top] for top in sorted(tops - SKIPPED_FOLDERS) if top in owners]
    family = known[0] if known else name
    for top in tops - SKIPPED_FOLDERS:
        owners.setdefault(top, family)
    return family


def _distributions() -> list[tuple[str, importlib.metadata.Distribution]]:
    """(normalised name, distribution), sorted by name, each name once, without this project and editable installs."""
    found: dict[str, importlib.metadata.Distribution] = {}
    for dist in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", str(dist.metadata["Name"])).lower()
        editable = '"editable": true' in (dist.read_text("direct_url.json") or "")
        if name != OWN_DISTRIBUTION and not editable:
            found.setdefault(name, dist)
    return sorted(found.items())


def _readable_path(relative: str) -> bool:
    path = PurePosixPath(relative)
    if SKIPPED_FOLDERS.intersection(path.parts[:-1]) or ".." in path.parts or path.is_absolute():
        return False
    if any(part.endswith((".dist-info", ".data", ".egg-info")) for part in path.parts) or SKIPPED_FILES.search(
        relative
    ):
        return False
    return path.suffix == ".py" or (path.suffix in DOC_SUFFIXES and not SKIPPED_STEMS.match(path.stem))


def _with_sizes(root: Path, paths: Iterable[str]) -> list[tuple[str, int]]:
    return [(path, (root / path).stat().st_size) for path in paths if (root / path).is_file()]


def _wanted(group: str, config: PythonCorpusConfig) -> bool:
    if not config.parts:
        return True
    # The probe documents are part of the screened groups; which ones is decided per document when it has an id.
    part = part_of(group, "", config.split.model_copy(update={"probe": 0.0}))
    return part in config.parts or (part == "screen" and "probe" in config.parts)


def _description(origin: _Origin, config: PythonCorpusConfig) -> Iterator[RawDocument]:
    """The long description (usually the README) in a distribution's metadata."""
    if "docs" in config.kinds:
        text = normalise_text(_long_description(origin.distribution).encode("utf-8", "replace"))
        yield from _split(text or "", "docs", DESCRIPTION, origin, config)


def _long_description(distribution: str) -> str:
    metadata = importlib.metadata.metadata(distribution)
    return str(metadata.get_payload() or metadata.get("Description") or "")  # type: ignore[attr-defined]


def _documents_of_file(origin: _Origin, path: Path, relative: str, config: PythonCorpusConfig) -> Iterator[RawDocument]:
    text = normalise_text(path.read_bytes())
    if text is None or is_generated(text):
        return
    if path.suffix != ".py":
        if "docs" in config.kinds:
            yield from _split(text, "docs", relative, origin, config)
        return
    if "api" in config.kinds:
        yield from _split(render_api(text, relative) or "", "api", relative, origin, config)
    if "source" in config.kinds:
        yield from _split(strip_docstrings(text) or "", "source", relative, origin, config)


def _split(text: str, kind: Kind, path: str, origin: _Origin, config: PythonCorpusConfig) -> Iterator[RawDocument]:
    """The text as one document, or as several numbered ones when it is longer than the limit."""
    for number, piece in enumerate(_pieces(text, config.max_characters)):
        source = f"{origin.distribution}=={origin.version}:{path}#{kind}" + (f".{number}" if number else "")
        if len(piece) < config.min_characters:
            continue
        metadata = {"kind": kind, "distribution": origin.distribution, "version": origin.version, "path": path}
        yield RawDocument(text=piece, source=source, title=f"{path} ({kind})", group=origin.group, metadata=metadata)


def _pieces(text: str, limit: int) -> Iterator[str]:
    """Consecutive pieces of at most ``limit`` characters, cut at an empty line or else at a line where there is one."""
    while len(text) > limit:
        cut = text.rfind("\n\n", limit // 2, limit)
        cut = cut if cut > 0 else text.rfind("\n", limit // 2, limit)
        cut = cut if cut > 0 else limit
        yield text[:cut].strip("\n")
        text = text[cut:].lstrip("\n")
    yield text
