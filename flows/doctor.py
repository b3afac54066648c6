"""``policylong doctor``: whether this machine can do the work, and what to do about each thing that is not right."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil
from packaging.requirements import Requirement
from rich.console import Console
from rich.text import Text

from storage.digests import short
from storage.errors import PolicylongError

if TYPE_CHECKING:
    from flows.presets import Preset
    from models.embedders import EmbedderConfig
    from storage.vectors import IndexConfig
    from tasks.training.base_policy import BasePolicyConfig

GIB = 1 << 30
DISK_WARNING, DISK_PROBLEM = 10 * GIB, 2 * GIB
MEMORY_WARNING = 4 * GIB
TIMEOUT = 3.0
"""Seconds to wait for the hub or a Qdrant server."""
PORTS = {4200: "prefect server start", 5000: "mlflow server"}
HUB = "https://huggingface.co"

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at; ``remedy`` is what to do about it."""

    level: Level
    subject: str
    found: str
    remedy: str = ""


def examine(home: Path, preset: Preset) -> Iterator[Check]:
    """All checks, in order; Qdrant, embedder and base model are the preset's."""
    yield _python()
    yield from versions()
    yield _disk(home)
    yield _memory()
    yield _processors()
    yield from _accelerators()
    yield from (_port(port, command) for port, command in PORTS.items())
    yield _hub()
    yield _qdrant(preset.index)
    yield embedder(preset.corpus.embedder)
    yield base_model(preset.policy)


def show_checks(console: Console, checks: Iterator[Check]) -> int:
    """Prints each check as it is done and gives the exit code: 1 when there is a problem."""
    styles = {"ok": "green", "warning": "yellow", "problem": "bold red"}
    worst = 0
    for check in checks:
        worst |= check.level == "problem"
        line = Text.assemble((f"{check.level:<8}", styles[check.level]), f"{check.subject}: {check.found}")
        console.print(line, highlight=False, soft_wrap=True)
        if check.remedy:
            console.print(f"        → {check.remedy}", highlight=False, markup=False, soft_wrap=True)
    return int(worst)


def versions(distribution: str = "policylong") -> Iterator[Check]:
    """Every library that policylong requires, against the range it was tested with."""
    try:
        required = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        yield Check("problem", distribution, "not installed", "pip install -e . in the project's folder")
        return
    fitting = []
    for line in required:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Check("problem", requirement.name, "not installed", f'pip install "{wanted}"')
            continue
        if requirement.specifier.contains(found, prereleases=True):
            fitting.append(f"{requirement.name} {found}")
        else:
            yield Check(
                "problem", requirement.name, f"{found}, tested with {requirement.specifier}", f'pip install "{wanted}"'
            )
    if fitting:
        yield Check("ok", "libraries", f"{len(fitting)} in their tested ranges ({', '.join(fitting)})")


def _python() -> Check:
    found = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    return Check("ok", "Python", f"{found} in {sys.prefix}")


def _disk(home: Path) -> Check:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / GIB:.1f} GiB free for {home}"
    if not os.access(place, os.W_OK):
        return Check(
            "problem", "disk", f"{place} can't be written", "Give another folder with --home or POLICYLONG_HOME."
        )
    if free < DISK_WARNING:
        level: Level = "problem" if free < DISK_PROBLEM else "warning"
        return Check(level, "disk", found, "Free space, or put the home elsewhere with --home or POLICYLONG_HOME.")
    return Check("ok", "disk", found)


def _memory() -> Check:
    memory = psutil.virtual_memory()
    found = f"{memory.available / GIB:.1f} GiB available of {memory.total / GIB:.1f}"
    if memory.available < MEMORY_WARNING:
        return Check("warning", "memory", found, "The quickstart is made for 4 GiB: close other programs.")
    return Check("ok", "memory", found)


def _processors() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS")
    found = f"{usable} usable" + (f", OMP_NUM_THREADS={limit}" if limit else "")
    if usable < 2:
        return Check("warning", "processors", found, "Everything works, about half as fast as on two.")
    return Check("ok", "processors", found)


def _accelerators() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(number)
            yield Check("ok", f"GPU {number}", f"{found.name}, {found.total_memory / GIB:.0f} GiB")
    elif shutil.which("nvidia-smi"):
        remedy = "Install a CUDA build of torch that fits the driver: https://pytorch.org/get-started/locally"
        yield Check("warning", "GPU", f"there is a driver, but torch {torch.__version__} can't use it", remedy)
    else:
        yield Check("ok", "GPU", "none; the quickstart runs on the processor")


def _port(port: int, command: str) -> Check:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return Check("warning", f"port {port}", "in use", f"{command} needs --port with another number.")
    return Check("ok", f"port {port}", f"free for {command}")


def _hub() -> Check:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return Check("ok", "model hub", "HF_HUB_OFFLINE is set: models come from folders and packages only")
    if _answers(HUB):
        return Check("ok", "model hub", f"{HUB} answers")
    remedy = "The presets that come along need no hub; for others give folders of downloaded checkpoints."
    return Check("warning", "model hub", f"{HUB} does not answer", remedy)


def _qdrant(config: IndexConfig) -> Check:
    if config.engine == "embedded" or not config.url:
        return Check("ok", "Qdrant", "embedded engine, needs no server")
    if _answers(config.url):
        return Check("ok", "Qdrant", f"{config.url} answers")
    return Check(
        "problem", "Qdrant", f"{config.url} does not answer", "Start the server, or set index.engine=embedded."
    )


def _answers(url: str) -> bool:
    import httpx

    try:
        httpx.get(url, timeout=TIMEOUT)
    except httpx.HTTPError:
        return False
    return True


def embedder(config: EmbedderConfig) -> Check:
    """The embedder can be loaded; the one that comes as a package has the weights that upstream published."""
    from models.embedders import load_embedder

    return _judged("embedder", f"{config.model}, digest", lambda: load_embedder(config).digest)


def base_model(config: BasePolicyConfig) -> Check:
    """The base model can be loaded, and its digest."""
    from models.policy import load_policy
    from tasks.training.base_policy import base_folder

    return _judged(
        "base model", f"{config.base}, digest", lambda: load_policy(base_folder(config), device="cpu").digest
    )


def _judged(subject: str, what: str, digest: Callable[[], str]) -> Check:
    try:
        return Check("ok", subject, f"{what} {short(digest())}")
    except PolicylongError as error:
        return Check("problem", subject, " ".join(error.message.split()), error.hint)
