"""The Ray cluster behind an engine: reached, looked over before work begins, watched meanwhile, left at the end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from storage.errors import ConfigError, PolicylongError, ServiceError
from tasks.engines.engine import EngineConfig
from tasks.engines.nodes import Unfit, Wanted, here, processor_here, unfit

CONNECT_SECONDS = 10.0
LOST_SECONDS = 30.0
"""Silence after which a cluster counts as gone. Ray itself ends the process after 60."""
NODE_SECONDS = 600.0
"""Longest wait for a node's answer before the first shard: its process imports torch meanwhile. Ours."""
FORWARDED = (
    "DO_NOT_TRACK",
    "HF_HUB_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY",
    "HF_HUB_DISABLE_PROGRESS_BARS",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS",
    "TRANSFORMERS_VERBOSITY",
    "TOKENIZERS_PARALLELISM",
    "OMP_WAIT_POLICY",
    "PREFECT_LOGGING_LEVEL",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW",
)
"""Variables of this process that nodes get as well. Credentials are none of them."""
ALWAYS = {
    # See tasks.engines.nodes.take_gpu.
    "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


class Cluster:
    """A connection to a Ray cluster whose nodes are fit for shards of a home."""

    def __init__(self, config: EngineConfig, cpus: float, gpus: float, variables: Mapping[str, str]) -> None:
        self.cpus, self.gpus = cpus, gpus
        self._silent_since: float | None = None
        address = _address(config)
        given = {name: os.environ[name] for name in FORWARDED if name in os.environ} | dict(variables) | ALWAYS
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with _signals_kept():
            try:
                ray.init(
                    address=address,
                    namespace="policylong",
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    include_dashboard=False if address == "local" else None,
                    runtime_env={"env_vars": given},
                )
            except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
                ray.shutdown()
                raise _unreachable(address, error) from error
        self.address = str(ray.get_runtime_context().gcs_address)

    def check_nodes(self, wanted: Wanted) -> Wanted:
        """Looks at every node that could take a shard; gives what late ones have to be like.

        Raises ``ConfigError`` for the first that is not fit.
        """
        look = ray.remote(max_retries=0, num_cpus=0)(_look)
        asked: dict[Any, dict[str, Any]] = {}
        for node in self._check_capacity():
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[look.options(scheduling_strategy=there).remote(wanted)] = node
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_SECONDS)
        if silent:
            raise ServiceError(
                f"Ray node {_name(asked[silent[0]])} did not answer in {NODE_SECONDS:.0f} s.",
                hint="ray status shows the nodes; run the same command again.",
            )
        processors: dict[str, str] = {}
        for reference in answered:
            node, found = asked[reference], _answer(reference, asked[reference])
            if isinstance(found, Unfit):
                raise ConfigError(f"Ray {found.message}", hint=found.hint)
            processors.setdefault(found, _name(node))
        if len(processors) > 1:
            (one, first), (other, second), *_ = processors.items()
            raise ConfigError(
                f"Ray node {first} computes on {one}, node {second} on {other}.",
                hint="Use nodes of one kind: the version would depend on where a shard ran.",
            )
        return wanted.model_copy(update={"processor": next(iter(processors))})

    def check_alive(self) -> None:
        """Raises ``ServiceError`` when the cluster, or its last node for shards, has been away for a while."""
        host, port = self.address.rsplit(":", 1)
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
            able = bool(self._able())
        except OSError:
            able = False
        if able:
            self._silent_since = None
            return
        self._silent_since = self._silent_since or time.monotonic()
        if time.monotonic() - self._silent_since > LOST_SECONDS:
            raise ServiceError(
                f"the Ray cluster at {self.address} is gone, or has no node left for shards.",
                hint="Start it again (ray start); the same command carries on.",
            )

    def close(self) -> None:
        """Leaves the cluster; its worker processes of this run end. One of our own ends as a whole."""
        with _signals_kept():
            ray.shutdown()

    def _able(self) -> list[dict[str, Any]]:
        def fits(node: dict[str, Any]) -> bool:
            has = node["Resources"]
            return bool(node["Alive"] and has.get("CPU", 0) >= self.cpus and has.get("GPU", 0) >= self.gpus)

        return [node for node in _nodes() if fits(node)]

    def _check_capacity(self) -> list[dict[str, Any]]:
        able = self._able()
        if able:
            return able
        most = {
            kind: max((node["Resources"].get(kind, 0) for node in _nodes() if node["Alive"]), default=0)
            for kind in ("CPU", "GPU")
        }
        raise ConfigError(
            f"no Ray node has the {self.cpus:g} CPUs and {self.gpus:g} GPUs of a shard (engine.cpus, engine.gpus): the"
            f" most that one has are {most['CPU']:g} and {most['GPU']:g}.",
            hint="Set engine.cpus and engine.gpus, or start nodes with more.",
        )


def _nodes() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return found


def _look(wanted: Wanted) -> Unfit | str:
    """Runs on a node: why it is not fit, or what it computes on."""
    problem = unfit(wanted)
    if problem is None:
        return processor_here(wanted.device)
    return Unfit(message=f"{here()} {problem.message}", hint=problem.hint)


def _answer(reference: Any, node: dict[str, Any]) -> Unfit | str:
    try:
        found: Unfit | str = ray.get(reference)
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(getattr(error, "cause", None) or error).splitlines() if line.strip()]
        said = " ".join(lines[-1].split()) if lines else type(error).__name__
        return Unfit(
            message=f"node {_name(node)} can't run policylong: {said.rstrip('.')}.",
            hint="Install policylong[ray] there, and start Ray in its environment.",
        )
    return found


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"


def _address(config: EngineConfig) -> str:
    address = config.address or os.environ.get("RAY_ADDRESS") or "auto"
    if "://" in address:
        raise ConfigError(
            f"the Ray address {address} (engine.address) is that of a Ray client; shards are sent by a node.",
            hint="Make this machine a node (with --num-cpus=0 it takes no shards) and give the cluster's HOST:PORT.",
        )
    if address in ("auto", "local"):
        return address
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"{address!r} is not the address of a Ray cluster (engine.address).", hint="Give HOST:PORT.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise _unreachable(address, error) from error
    return address


def _unreachable(address: str, error: Exception) -> PolicylongError:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    said = getattr(error, "strerror", None) or (lines[0].strip() if lines else type(error).__name__)
    where = "on this machine" if address == "auto" else f"at {address}"
    return ServiceError(
        f"no Ray cluster answers {where}: {' '.join(str(said).split()).rstrip('.')}.",
        hint="Start one: ray start --head here, ray start --address=HOST:PORT on the other machines.",
    )


def api_address(url: str | None) -> tuple[str, int] | None:
    """Host and port of Prefect's API; None without an address."""
    if not url:
        return None
    parts = urlsplit(url)
    return (parts.hostname or "127.0.0.1", parts.port or (443 if parts.scheme == "https" else 80))


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts its own handler of SIGTERM in place; ours stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
