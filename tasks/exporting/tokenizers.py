"""The tokenizer that an export is packed with anew: a folder, one that comes with policylong, or a hub id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.policy_files import tokenizer_files
from storage.digests import digest_files, digest_listing
from storage.errors import PolicyError
from tasks.provenance.token_origins import Offsets, Tokens

_FETCHED = ["tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "config.json"]


@dataclass(frozen=True, slots=True)
class OtherTokenizer:
    """A tokenizer with its files."""

    name: str
    digest: str
    folder: Path
    files: tuple[str, ...]
    bos: tuple[int, ...]
    unknown: int | None
    tokens: Tokens


def open_tokenizer(name: str) -> OtherTokenizer:
    """Opens a tokenizer given as a folder, ``embedded:…`` or hub id.

    Raises ``PolicyError`` when it is not to be had, damaged, or gives no characters for its tokens.
    """
    folder = _folder(name)
    return tokenizer_in(folder, folder.resolve().name if Path(name).expanduser().is_dir() else name)


def tokenizer_in(folder: Path, name: str) -> OtherTokenizer:
    """The tokenizer of a folder; ``name`` is what people call it."""
    from transformers import PreTrainedTokenizerFast

    from models.policy import load_tokenizer
    from tasks.resources import bos_ids

    tokenizer = load_tokenizer(folder)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise PolicyError(
            f"the tokenizer {name} gives no character offsets, so nothing can be carried over to its tokens.",
            hint="Give one that has a tokenizer.json.",
        )
    bos, backend = bos_ids(tokenizer), tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()

    def encode(text: str) -> tuple[Sequence[int], Offsets]:
        found = backend.encode(text, add_special_tokens=False)
        return found.ids, found.offsets

    def decode(ids: Sequence[int]) -> str:
        return str(backend.decode(list(ids), skip_special_tokens=False))

    identity = tokenizer_files(folder)
    files = [*identity, *(["config.json"] if (folder / "config.json").is_file() else [])]
    unknown = tokenizer.unk_token_id
    return OtherTokenizer(
        name=name,
        digest=digest_listing(digest_files(folder, identity)),
        folder=folder,
        files=tuple(files),
        bos=bos,
        unknown=unknown if isinstance(unknown, int) else None,
        tokens=Tokens(encode, decode),
    )


def _folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.startswith("embedded:"):
        from tasks.training.base_policy import BasePolicyConfig, base_folder

        return base_folder(BasePolicyConfig(base=name))
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise PolicyError(f"the tokenizer folder {name} does not exist.", hint="Give a folder or a hub id.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(name, allow_patterns=_FETCHED))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        raise PolicyError(
            f"the tokenizer {name!r} is neither a folder here nor to be had from the hub ({type(error).__name__}).",
            hint="Check the name and the network, or give the folder of a downloaded tokenizer.",
        ) from error
