"""The base model a campaign starts from: the one that comes with policylong, a folder, or a hub id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from storage.errors import PolicyError
from storage.home import Home
from tasks.training.handoff import add_base_policy

EMBEDDED = "embedded:"
_MODELS = Path(__file__).resolve().parents[2] / "models"


class BasePolicyConfig(BaseModel):
    """Where the base model comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = Field(
        "embedded:quickstart", description="embedded:quickstart, the folder of a Hugging Face checkpoint, or a hub id."
    )
    revision: str | None = Field(None, description="Commit of the hub repository; the main branch's newest otherwise.")
    remote_code: bool = Field(
        False, description="Run code that the checkpoint's folder brings. Off unless you trust it."
    )
    shape: dict[str, Any] | None = Field(
        None,
        description="Its sizes under the names of config.json (hidden_size, num_hidden_layers, …), for a plan"
        " (policylong run --dry-run) where the checkpoint is not at hand. Nothing else reads it.",
    )


def base_folder(config: BasePolicyConfig) -> Path:
    """The folder of the base model on this machine, fetched from the hub when it is a hub id.

    Raises ``PolicyError`` when there is no such folder and the hub does not have it or does not answer.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return _folder_here(config) or _snapshot(config, local=False)
    except (LocalEntryNotFoundError, RepositoryNotFoundError, HfHubHTTPError, OSError) as error:
        raise PolicyError(
            f"the base model {config.base!r} is neither a folder here nor to be had from the hub"
            f" ({type(error).__name__}).",
            hint="Check policy.base and the network, or give the folder of a downloaded checkpoint.",
        ) from error


def folder_at_hand(config: BasePolicyConfig) -> Path | None:
    """The folder of the base model, or what the hub's cache has of it; None when a hub id was never fetched.

    Asks nobody. Raises ``PolicyError`` when there is no such folder.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _folder_here(config) or _snapshot(config, local=True)
    except LocalEntryNotFoundError:
        return None


def _folder_here(config: BasePolicyConfig) -> Path | None:
    """The folder that is meant; None for a hub id."""
    if config.base.startswith(EMBEDDED):
        folder = _MODELS / config.base.removeprefix(EMBEDDED)
        if not folder.is_dir():
            raise PolicyError(
                f"policylong brings no model {config.base!r}.", hint="Set policy.base to a folder or a hub id."
            )
        return folder
    folder = Path(config.base).expanduser()
    if folder.is_dir():
        return folder
    if config.base.count("/") != 1 or config.base.startswith((".", "/", "~")):
        raise PolicyError(
            f"the policy folder {config.base} does not exist.", hint="Set policy.base to a folder or a hub id."
        )
    return None


def _snapshot(config: BasePolicyConfig, *, local: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"] + (["*.py"] if config.remote_code else [])
    return Path(
        snapshot_download(config.base, revision=config.revision, allow_patterns=patterns, local_files_only=local)
    )


def take_base(home: Home, config: BasePolicyConfig) -> str:
    """Registers the base model in the home, after checking that it loads, and returns its digest."""
    return add_base_policy(home, base_folder(config), remote_code=config.remote_code).digest
