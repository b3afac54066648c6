"""Which files make up a policy, and the digest over them."""

from __future__ import annotations

import re
from pathlib import Path

from storage.digests import digest_files, digest_listing
from storage.errors import PolicyError

CONFIG_FILE = "config.json"
# What makes a policy behave as it does; README, licence, optimizer states and other formats of the weights do not.
_IDENTITY = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json"
    r"|.+\.safetensors(\.index\.json)?|merges\.txt|vocab\.txt|tokenizer\.model|spiece\.model|.+\.tiktoken"
    r"|chat_template\.(jinja|json)|(?!__init__).+\.py"
)
_TOKENIZER = re.compile(
    r"tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt"
    r"|tokenizer\.model|spiece\.model|.+\.tiktoken|chat_template\.(jinja|json)|tokenization_.+\.py"
)
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.gguf", "*.h5", "*.msgpack")


def policy_files(folder: Path) -> list[str]:
    """Names of the files that make up a policy's identity: config, safetensors, tokenizer, own code; sorted.

    Raises ``PolicyError`` when the folder, its config or its safetensors are missing.
    """
    if not folder.is_dir():
        raise PolicyError(
            f"the policy folder {folder} does not exist.",
            hint="Give the folder of a Hugging Face checkpoint, or see: policylong policy list.",
        )
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and _IDENTITY.fullmatch(path.name))
    if CONFIG_FILE not in names:
        raise PolicyError(
            f"{folder} has no {CONFIG_FILE}: not a checkpoint of transformers.", hint="Give the folder that holds it."
        )
    if not any(name.endswith(".safetensors") for name in names):
        others = sorted({path.name for pattern in _OTHER_WEIGHTS for path in folder.glob(pattern)})
        found = f" (found {', '.join(others[:3])})" if others else ""
        raise PolicyError(
            f"{folder} has no *.safetensors{found}; weights in other formats are not read.",
            hint="Save it again with model.save_pretrained(folder).",
        )
    return names


def tokenizer_files(folder: Path) -> list[str]:
    """Names of the tokenizer's files in a policy folder, sorted; empty when there are none."""
    return sorted(path.name for path in folder.iterdir() if path.is_file() and _TOKENIZER.fullmatch(path.name))


def extra_files(folder: Path) -> list[str]:
    """Names of the identity's files that training does not change: tokenizer and code, sorted."""
    return sorted({*tokenizer_files(folder), *(name for name in policy_files(folder) if name.endswith(".py"))})


def policy_listing(folder: Path) -> dict[str, str]:
    """{file name: sha256} of the files that make up a policy; raises ``PolicyError`` as ``policy_files`` does."""
    return digest_files(folder, policy_files(folder))


def policy_digest(folder: Path) -> str:
    """The policy's digest: SHA-256 over the canonical JSON of ``policy_listing``."""
    return digest_listing(policy_listing(folder))
