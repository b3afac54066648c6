"""The text a base model is pretrained on, as one array of token ids with an index of what names what.

The index answers: where else, inside the same distribution, does this rare name stand? Rows that put a chunk in front
of a text are made from it.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from models.pretrain_config import PretrainText
from storage.errors import InputError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{5,}")
LONG_LINE = 40
"""Characters from which a line says where it comes from; shorter ones (``return self``) stand everywhere."""


@dataclass(frozen=True, slots=True)
class PretrainCorpus:
    """Token ids of all documents, an end-of-text token behind each, and the places of rare names.

    ``ids``: uint16 [tokens]. ``starts``: int64 [documents + 1], where each document begins. ``places``: int64 [n],
    token positions at which a rare name begins, grouped by name; ``name_starts``: int64 [names + 1], the groups'
    borders. A name belongs to one distribution and stands in 2 to 8 of its documents. ``digest``: over sources and
    texts. ``refused``: how many documents were left out, by reason.
    """

    ids: npt.NDArray[np.uint16]
    starts: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    name_starts: npt.NDArray[np.int64]
    characters: int
    digest: str
    refused: dict[str, int]

    def document_of(self, position: int) -> int:
        """The number of the document in which a token stands."""
        return int(np.searchsorted(self.starts, position, side="right")) - 1


class DuplicateFilter:
    """Refuses a text that was seen before, whole or in most of its long lines.

    ``reserve`` marks lines of text that must stay unseen (what will be screened or evaluated on): a text with more than
    ``reserved_share`` of its long lines among them is refused as well.
    """

    def __init__(self, seen_share: float = 0.6, reserved_share: float = 0.2) -> None:
        self._texts: set[bytes] = set()
        self._seen: set[int] = set()
        self._reserved: set[int] = set()
        self._limits = seen_share, reserved_share
        self.refused: Counter[str] = Counter()

    def reserve(self, text: str) -> None:
        """Remember the long lines of a text that has to stay unseen."""
        self._reserved.update(_long_lines(text))

    def accept(self, text: str) -> bool:
        """Whether the text is new; if so it is remembered, if not the reason is counted in ``refused``."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        lines = _long_lines(text)
        size = max(1, len(lines))
        if digest in self._texts:
            reason = "duplicate"
        elif len(lines & self._reserved) / size > self._limits[1]:
            reason = "reserved"
        elif len(lines & self._seen) / size > self._limits[0]:
            reason = "near-duplicate"
        else:
            self._texts.add(digest)
            self._seen |= lines
            return True
        self.refused[reason] += 1
        return False


def encode_corpus(
    documents: Sequence[PretrainText],
    tokenizer: PreTrainedTokenizerFast,
    refused: Mapping[str, int],
    rarest: int = 2,
    commonest: int = 8,
) -> PretrainCorpus:
    """Tokenize the documents and index the names that stand in ``rarest`` to ``commonest`` documents of their group."""
    if not documents:
        raise InputError("there is no document to pretrain on", hint="Check the parts and limits of the corpus.")
    names = _rare_names(documents, rarest, commonest)
    ids: list[npt.NDArray[np.uint16]] = []
    starts = [0]
    found: list[tuple[int, int]] = []
    digest = hashlib.sha256()
    eos = tokenizer.convert_tokens_to_ids(str(tokenizer.eos_token))
    for batch in _batches(documents, 64):
        encodings = tokenizer.backend_tokenizer.encode_batch([document.text for document in batch])
        for document, encoding in zip(batch, encodings, strict=True):
            begins = [begin for begin, _ in encoding.offsets]
            for match in NAME.finditer(document.text):
                name = names.get((document.group, match.group()))
                if name is not None:
                    found.append((name, starts[-1] + bisect_right(begins, match.start()) - 1))
            ids.append(np.asarray([*encoding.ids, eos], dtype=np.uint16))
            starts.append(starts[-1] + len(ids[-1]))
            digest.update(f"{document.source}\x00{document.text}\x00".encode("utf-8", "surrogatepass"))
    pairs = np.asarray(sorted(found), dtype=np.int64).reshape(-1, 2)
    name_starts = np.searchsorted(pairs[:, 0], np.arange(len(names) + 1))
    return PretrainCorpus(
        ids=np.concatenate(ids),
        starts=np.asarray(starts, dtype=np.int64),
        places=np.ascontiguousarray(pairs[:, 1]),
        name_starts=name_starts.astype(np.int64),
        characters=sum(len(document.text) for document in documents),
        digest=digest.hexdigest(),
        refused=dict(refused),
    )


def save_corpus(corpus: PretrainCorpus, folder: Path) -> None:
    """Write ``corpus.npz`` and then ``corpus.json``; without the latter the former does not count."""
    with (folder / "corpus.npz").open("wb") as file:
        np.savez(
            file,
            ids=corpus.ids,
            starts=corpus.starts,
            places=corpus.places,
            name_starts=corpus.name_starts,
            allow_pickle=False,
        )
    facts = {"characters": corpus.characters, "digest": corpus.digest, "refused": corpus.refused}
    (folder / "corpus.json").write_text(json.dumps(facts), encoding="utf-8")


def load_corpus(folder: Path) -> PretrainCorpus | None:
    """The corpus saved in ``folder``, if there is one."""
    if not (folder / "corpus.json").is_file():
        return None
    facts = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    with np.load(folder / "corpus.npz", allow_pickle=False) as arrays:
        return PretrainCorpus(**{name: arrays[name] for name in arrays.files}, **facts)


def _rare_names(documents: Iterable[PretrainText], rarest: int, commonest: int) -> dict[tuple[str, str], int]:
    """(group, name) → number, for names in the given range of document frequencies, in a fixed order."""
    frequency: Counter[tuple[str, str]] = Counter()
    for document in documents:
        frequency.update((document.group, name) for name in set(NAME.findall(document.text)))
    rare = sorted(key for key, count in frequency.items() if rarest <= count <= commonest)
    return {key: number for number, key in enumerate(rare)}


def _long_lines(text: str) -> set[int]:
    lines = (line.strip() for line in text.split("\n"))
    return {
        int.from_bytes(hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        for line in lines
        if len(line) >= LONG_LINE
    }


def _batches(documents: Sequence[PretrainText], size: int) -> Iterator[Sequence[PretrainText]]:
    for start in range(0, len(documents), size):
        yield documents[start : start + size]
