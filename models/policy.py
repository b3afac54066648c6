"""A policy: a causal language model with its tokenizer, in one folder of safetensors, known by a digest.

    policy = load_policy(Path("policies/0a1b…"), device="auto", dtype="bfloat16")
    policy.model(input_ids).logits        # the model is in eval mode

Nothing is downloaded, nothing is unpickled, no code of the folder runs unless ``remote_code`` says so in so many words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from models.policy_files import policy_digest, tokenizer_files
from models.quiet import quiet_transformers
from storage.errors import PolicyError, ResourceError

__all__ = [
    "Policy",
    "check_finite",
    "load_config",
    "load_model",
    "load_policy",
    "load_tokenizer",
    "native_context",
    "pick_device",
    "policy_digest",
    "quiet_transformers",
    "stored_dtype",
    "vocabulary_rows",
]

DTypeName = Literal["float32", "bfloat16", "float16"]
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_REMOTE_HINT = "Set policy.remote_code: true only if you trust the folder's code."
_PLAIN_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len", "max_sequence_length")
# What transformers, safetensors and the configuration classes raise for files that are damaged or do not fit.
_LOAD_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
    AttributeError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A loaded checkpoint. Compare policies by ``digest``."""

    folder: Path
    digest: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    context: int
    """Native context, tokens."""
    device: torch.device
    dtype: torch.dtype

    @property
    def vocabulary(self) -> int:
        """Entries of the model's output, at least as many as the tokenizer has."""
        return vocabulary_rows(self.model)

    @property
    def parameters(self) -> int:
        """Number of parameters; tied ones count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def load_tokenizer(folder: Path, *, remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in a policy's folder; raises ``PolicyError`` when it is missing or damaged.

    A tokenizer saved as a plain ``tokenizer.json`` is loaded as it stands: transformers 5 would put the pre-tokenizer
    of the model's family in place of its own (a Qwen2 model with its own BPE would read other tokens than it was
    trained on).
    """
    if not folder.is_dir() or not tokenizer_files(folder):
        raise PolicyError(
            f"{folder} has no tokenizer files.", hint="Save the tokenizer there with tokenizer.save_pretrained(folder)."
        )
    kind = _tokenizer_class(folder)
    if kind is None and not remote_code:
        # transformers would put the tokenizer of the model's family in its place, and read other tokens.
        raise PolicyError(f"the tokenizer in {folder} is of code of its own.", hint=_REMOTE_HINT)
    plain = kind in _PLAIN_TOKENIZERS and (folder / "tokenizer.json").is_file()
    loader: Any = PreTrainedTokenizerFast if plain else AutoTokenizer
    options = {} if plain else {"trust_remote_code": remote_code}
    try:
        with quiet_transformers():
            tokenizer = loader.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # the tokenizers library raises Exception itself for damaged files
        raise PolicyError(
            f"the tokenizer in {folder} can't be read: {_one_line(error)}.", hint=_remote_hint(error)
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise PolicyError(f"{folder} holds no tokenizer that transformers can load.")
    return tokenizer


def _tokenizer_class(folder: Path) -> str | None:
    """The class that a tokenizer names, "" where it names none; ``None`` for one that only the folder's code has."""
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return ""
    try:
        found = json.loads(config.read_bytes())
    except ValueError as error:
        raise PolicyError(f"{config} is not valid JSON ({error}).", hint="Copy the tokenizer's files again.") from error
    name = str(found.get("tokenizer_class") or "") if isinstance(found, dict) else ""
    own = name and "AutoTokenizer" in (found.get("auto_map") or {}) and tokenizer_class_from_name(name) is None
    return None if own else name


def load_policy(
    folder: Path,
    *,
    device: str = "auto",
    dtype: DTypeName = "float32",
    remote_code: bool = False,
    digest: str | None = None,
    config: PreTrainedConfig | None = None,
) -> Policy:
    """Loads a checkpoint for inference.

    ``device`` is "auto" (the GPU when there is one) or a torch device; ``dtype`` is that of the weights in memory. With
    ``digest``, the files must have it. ``config`` stands in for the folder's own (an extended context, say).

    Raises ``PolicyError`` for a missing folder, missing or damaged files, weights that lack a tensor, a weight that is
    NaN or infinite (it is named), a vocabulary smaller than the tokenizer's, another digest; ``ResourceError`` when the
    memory does not suffice.
    """
    found = policy_digest(folder)
    if digest is not None and found != digest:
        raise PolicyError(
            f"the policy in {folder} has digest {found[:12]}, expected {digest[:12]}.",
            hint="policylong audit names what changed.",
        )
    target = pick_device(device)
    config = config or load_config(folder, remote_code=remote_code)
    tokenizer = load_tokenizer(folder, remote_code=remote_code)
    try:
        model = load_model(folder, config, DTYPES[dtype], remote_code).to(target)  # type: ignore[arg-type]
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"the policy {folder} does not fit into the memory of {target}.",
            hint="Use dtype bfloat16 or another device.",
        ) from error
    model.eval()
    check_finite(folder, model)
    _check_vocabulary(folder, model, tokenizer)
    return Policy(folder, found, model, tokenizer, native_context(model.config), target, DTYPES[dtype])


def stored_dtype(config: PreTrainedConfig) -> DTypeName:
    """The type a checkpoint's weights are stored in, by its configuration; float32 where that names none of ours."""
    stored = getattr(config, "dtype", None)
    names: dict[torch.dtype, DTypeName] = {
        torch.float32: "float32",
        torch.bfloat16: "bfloat16",
        torch.float16: "float16",
    }
    return names.get(stored, "float32") if isinstance(stored, torch.dtype) else "float32"


def pick_device(device: str) -> torch.device:
    """The torch device of a name; "auto" is the GPU when there is one. Raises ``PolicyError`` for one not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise PolicyError(f"{device!r} is not a device of torch.", hint="Use auto, cpu or cuda:0.") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise PolicyError(
            f"device {device} was asked for, torch sees no GPU.", hint="Use --device cpu; see policylong doctor."
        )
    return chosen


def native_context(config: Any) -> int:
    """The context a model's configuration declares, tokens; raises ``PolicyError`` when it declares none."""
    text = config.get_text_config()
    for name in _CONTEXT_NAMES:
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    raise PolicyError(
        f"the configuration of {text.model_type} declares no context length.",
        hint="Set max_position_embeddings in config.json.",
    )


def load_config(folder: Path, *, remote_code: bool = False) -> PreTrainedConfig:
    """The model configuration in a policy's folder; raises ``PolicyError`` when it can't be understood."""
    try:
        with quiet_transformers():
            config: PreTrainedConfig = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=remote_code
            )
    except _LOAD_ERRORS as error:
        raise PolicyError(
            f"the configuration in {folder} can't be used: {_one_line(error)}.", hint=_remote_hint(error)
        ) from error
    return config


def load_model(folder: Path, config: PreTrainedConfig, dtype: torch.dtype, remote_code: bool) -> PreTrainedModel:
    """The weights of a folder in a model of the given configuration, on the CPU.

    Raises ``PolicyError`` when they are damaged, or a tensor is missing or has another shape (it would be random).
    """
    loaded: Any
    try:
        with quiet_transformers():
            loaded = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=remote_code,
                output_loading_info=True,
            )
    except torch.OutOfMemoryError:
        raise
    except _LOAD_ERRORS as error:
        raise PolicyError(
            f"the policy {folder} can't be loaded: {_one_line(error)}.", hint=_remote_hint(error)
        ) from error
    model, loading = loaded
    misfits = [str(key[0] if isinstance(key, tuple) else key) for key in loading["mismatched_keys"]]
    for what, names in (("lack", sorted(loading["missing_keys"])), ("have another shape in", sorted(misfits))):
        if names:
            raise PolicyError(
                f"the weights in {folder} {what} {len(names)} tensors of its configuration"
                f" ({config.model_type}; first: {names[0]}).",
                hint="Save the whole model again with model.save_pretrained(folder).",
            )
    assert isinstance(model, PreTrainedModel)
    return model


def check_finite(folder: Path, model: PreTrainedModel) -> None:
    """Raises ``PolicyError`` naming the first weight with a value that is NaN or infinite."""
    for name, tensor in model.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise PolicyError(
                f"weight {name} in {folder} has {count} values that are NaN or infinite as {tensor.dtype}.",
                hint="Use the checkpoint before it, or a wider --dtype.",
            )


def _check_vocabulary(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = vocabulary_rows(model)
    needed = max(tokenizer.get_vocab().values(), default=-1) + 1
    if rows < needed:
        raise PolicyError(
            f"the tokenizer in {folder} has ids up to {needed - 1}, the model's vocabulary ends at {rows - 1}.",
            hint="Use the tokenizer that the model was trained with.",
        )


def vocabulary_rows(model: PreTrainedModel) -> int:
    """Token ids the model knows."""
    embedding: Any = model.get_input_embeddings()
    return int(embedding.weight.shape[0])


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300].rstrip(".")


def _remote_hint(error: BaseException) -> str:
    return _REMOTE_HINT if "trust_remote_code" in str(error) else ""
