"""What runs on a node of a cluster: is it fit to compute shards of this home, and which of its GPUs is the shard's?

A node is fit when its policylong, libraries and home are those of the process that runs the flow. The same look is
taken before the first shard and again in every process that gets one, since nodes come and go.
"""

from __future__ import annotations

import os
import platform
import socket
import uuid
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from storage.digests import digest_file, digest_listing, short
from storage.errors import ConfigError, PolicylongError
from storage.files import write_bytes
from storage.home import Home
from tasks.resources import release

LIBRARIES = (
    "policylong",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "polars",
    "pyarrow",
    "prefect",
)
"""Packages whose versions have to be equal: those that make a shard's tables, and the one that calls it."""
GPU_LIBRARIES = ("triton", "flash-attn")
"""The same where shards are computed on GPUs: what scores there beside torch. On neither side is equal too."""
PACKAGES = ("models", "storage", "tasks")
"""Our packages whose code makes a shard."""
REACH_SECONDS = 5.0


class Wanted(BaseModel):
    """What every node has to be like."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    versions: dict[str, str]
    code: str = Field(description="SHA-256 of our packages' Python files.")
    home: str | None = Field(description="Folder that the node has to see; null: files come by shared storage.")
    mark: str = Field(description="Name of a file in that folder which the flow's process wrote.")
    api: tuple[str, int] | None = Field(description="Host and port of Prefect's API, to which tasks report.")
    device: str = Field(description="Kind of device that shards are computed on: cpu or cuda.")
    processor: str | None = Field(None, description="Which processor that is; null: not known yet.")


class Unfit(BaseModel):
    """Why a node can't compute shards, in the words of an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    message: str
    hint: str


def wanted_here(home: Home | None, api: tuple[str, int] | None, device: str) -> Wanted:
    """What nodes have to be like to compute shards for this process; leaves a mark in the home by which it is known."""
    mark = f"locks/cluster-{uuid.uuid4().hex}.mark"
    if home is not None:
        write_bytes(home.folder("locks") / Path(mark).name, b"policylong\n")
    return Wanted(
        versions=versions_here(device),
        code=code_here(),
        home=str(home.path) if home else None,
        mark=mark,
        api=api,
        device=device,
    )


def unfit(wanted: Wanted) -> Unfit | None:
    """Why this process can't compute shards; None when it can."""
    return _other_program(wanted) or _without_home(wanted) or _without_prefect(wanted) or _other_processor(wanted)


def check_here(wanted: Wanted) -> None:
    """Raises ``ConfigError`` when this process can't compute shards."""
    problem = unfit(wanted)
    if problem is not None:
        raise ConfigError(f"{here()} {problem.message}", hint=problem.hint)


def here() -> str:
    """This node by name, as messages begin."""
    return f"node {node_name()}"


def node_name() -> str:
    """Ray's address of the node this process runs on."""
    import ray

    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return f"{address} ({short(ray.get_runtime_context().get_node_id(), 8)})"


def named_here(error: PolicylongError) -> PolicylongError:
    """The same error with the node's name in front."""
    return type(error)(f"{here()}: {error.message}", hint=error.hint)


@lru_cache(maxsize=2)
def versions_here(device: str) -> dict[str, str]:
    """Versions of the libraries that matter on a kind of device; "none" for one that is not installed."""
    return {name: _version(name) for name in (LIBRARIES + GPU_LIBRARIES if device == "cuda" else LIBRARIES)}


@lru_cache(maxsize=1)
def code_here() -> str:
    """SHA-256 over the Python files of our packages, as this process finds them."""
    root = Path(__file__).resolve().parents[2]
    files = (path for package in PACKAGES for path in sorted((root / package).rglob("*.py")))
    return digest_listing({path.relative_to(root).as_posix(): digest_file(path) for path in files})


@lru_cache(maxsize=2)
def processor_here(device: str) -> str:
    """What computes on this node: the GPU's model, or the CPU's maker with the vector instructions that torch uses.

    Others round differently, so that a round would depend on where its shards ran.
    """
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    facts = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace") if Path("/proc/cpuinfo").exists() else ""
    )
    maker = next((line.partition(":")[2].strip() for line in facts.splitlines() if line.startswith("vendor_id")), "")
    return f"{maker or platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def take_gpu(assigned: list[str], environment: Mapping[str, str]) -> int | None:
    """Makes the shard's GPU the current one and gives its number among those torch sees; None without a GPU.

    ``assigned`` are Ray's ids. Ray may give a process another GPU with its next task, and torch can't change which
    GPUs it sees once it has begun; so all stay visible (``RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES``), and a policy
    on another GPU than the shard's is let go.
    """
    if not assigned:
        return None
    number = gpu_number(assigned[0], environment.get("CUDA_VISIBLE_DEVICES"))
    import torch

    if torch.cuda.current_device() != number:
        release()
        torch.cuda.set_device(number)
    return number


def gpu_number(assigned: str, visible: str | None) -> int:
    """torch's number of a GPU that Ray names, where only some are visible: its place among them."""
    ids = [name.strip() for name in visible.split(",")] if visible else []
    return ids.index(assigned) if assigned in ids else int(assigned)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _other_program(wanted: Wanted) -> Unfit | None:
    own = versions_here(wanted.device)
    other = next((name for name in wanted.versions if own.get(name) != wanted.versions[name]), None)
    hint = "Install the same versions on every node: others can give other numbers under the same name."
    if other is not None:
        return Unfit(
            message=f"has {other} {own.get(other, 'none')}, the flow's process has {wanted.versions[other]}.", hint=hint
        )
    if code_here() != wanted.code:
        return Unfit(
            message=f"runs other code of policylong ({short(code_here())}) than the flow's process"
            f" ({short(wanted.code)}).",
            hint=hint,
        )
    return None


def _without_home(wanted: Wanted) -> Unfit | None:
    if wanted.home is None:
        return None
    folder = Path(wanted.home)
    hint = (
        "Mount it there under the same path, or give an fsspec URL that every node reaches:"
        " --shared-storage (engine.shared_storage)."
    )
    if not folder.is_dir():
        return Unfit(message=f"does not see the home {folder}.", hint=hint)
    if not (folder / wanted.mark).is_file():
        return Unfit(message=f"has another folder in place of the home {folder}.", hint=hint)
    if not os.access(folder, os.W_OK):
        return Unfit(message=f"may not write into the home {folder}.", hint="Run Ray there as the home's owner.")
    return None


def _without_prefect(wanted: Wanted) -> Unfit | None:
    if wanted.api is None:
        return None
    host, port = wanted.api
    try:
        socket.create_connection((host, port), timeout=REACH_SECONDS).close()
    except OSError as error:
        return Unfit(
            message=f"can't reach Prefect at {host}:{port} ({error.strerror or error}).",
            hint="Set PREFECT_API_URL to a Prefect server that every node reaches.",
        )
    return None


def _other_processor(wanted: Wanted) -> Unfit | None:
    own = processor_here(wanted.device)
    if wanted.processor is None or own == wanted.processor:
        return None
    return Unfit(
        message=f"computes on {own}, other nodes on {wanted.processor}.",
        hint="Use nodes of one kind: the version would depend on where a shard ran.",
    )
