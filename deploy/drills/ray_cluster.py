"""Two Ray nodes on one machine for a drill: each a process tree of its own that can be killed and started again.

Both are on this machine's addresses, or, with ``namespaces``, in two network namespaces with one cable between them
(root only). A node with ``blind`` has an empty file system of its own where the home lies, as a machine that does not
mount it (root only).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 300.0
ADDRESSES = ("10.213.0.1", "10.213.0.2")
"""Of the two namespaces."""
NAMES = ("first", "second")
SHARD_STEPS = ("entropy", "verification", "ordered-verification", "negative-verification")


@dataclass
class Node:
    """One node: how its processes are started, and what was started."""

    name: str
    address: str
    prefix: tuple[str, ...]
    environment: dict[str, str]
    arguments: tuple[str, ...]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the node; it is up once the cluster has it."""
        command = [*self.prefix, sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *self.arguments]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
                start_new_session=True,
            )

    def kill(self) -> list[str]:
        """SIGKILL to every process of the node at once; gives their names."""
        if self.process is None:
            return []
        tree = self.tree()
        names = [_name(process) for process in tree]
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.process.wait()
        psutil.wait_procs(tree, timeout=30)
        self.process = None
        return names

    def tree(self) -> list[psutil.Process]:
        """The node's processes that live."""
        if self.process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self.process.pid)
            return [leader, *leader.children(recursive=True)]
        return []

    def shards(self) -> list[str]:
        """Steps of the shards that the node's worker processes compute, as Ray titles the processes."""
        titles = [_name(process).removeprefix("ray::") for process in self.tree()]
        return [title for title in titles if title in SHARD_STEPS]


@dataclass
class TwoNodes:
    """The cluster: the first node is its head, and where the campaign runs."""

    nodes: tuple[Node, Node]
    address: str
    prefix: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)

    def wait(self, living: int) -> None:
        """Waits until so many nodes are up; raises ``SystemExit`` naming the logs when they don't come."""
        end = time.monotonic() + START_SECONDS
        while self.living() != living:
            if time.monotonic() > end or any(node.process and node.process.poll() is not None for node in self.nodes):
                raise SystemExit(
                    f"error: {living} Ray nodes did not come up; logs: {[str(n.log) for n in self.nodes]}."
                )
            time.sleep(0.5)

    def living(self) -> int:
        """Nodes that the head has for alive."""
        environment = {**os.environ, **self.variables}
        command = [*self.prefix, sys.executable, str(Path(__file__)), self.address]
        asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return int(asked.stdout) if asked.returncode == 0 and asked.stdout.strip().isdigit() else 0


@contextmanager
def two_nodes(scratch: Path, *, cpus: int, namespaces: bool, blind: Path | None) -> Iterator[TwoNodes]:
    """The cluster for the time of the block; everything is gone afterwards."""
    variables = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with _cable() if namespaces else _none() as prefixes:
        addresses = ADDRESSES if namespaces else (_own_address(), "127.0.0.2")
        port = free_port()
        address = f"{addresses[0]}:{port}"
        nodes = []
        for number, name in enumerate(NAMES):
            prefix = prefixes[number]
            if number == 1 and blind is not None:
                prefix = (*prefix, "unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(blind))
            where = (
                ["--head", f"--port={port}", "--include-dashboard=false"] if number == 0 else [f"--address={address}"]
            )
            nodes.append(
                Node(
                    name=name,
                    address=addresses[number],
                    prefix=prefix,
                    environment=_environment(variables, scratch / f"cache-{name}"),
                    arguments=(
                        *where,
                        f"--node-ip-address={addresses[number]}",
                        f"--num-cpus={cpus}",
                        "--num-gpus=0",
                        f"--object-store-memory={200 << 20}",
                        "--disable-usage-stats",
                        f"--temp-dir={_ray_folder(name)}",
                    ),
                    log=scratch / f"node-{name}.log",
                )
            )
        cluster = TwoNodes((nodes[0], nodes[1]), address, prefixes[0], variables)
        try:
            for count, node in enumerate(nodes, start=1):
                node.start()
                cluster.wait(count)
            yield cluster
        finally:
            for node in reversed(nodes):
                node.kill()
                shutil.rmtree(_ray_folder(node.name), ignore_errors=True)


def _ray_folder(name: str) -> str:
    """Ray's own files of a node; their sockets need a short path."""
    return f"{tempfile.gettempdir()}/policylong-ray-{os.getpid()}-{name}"


def _environment(variables: dict[str, str], cache: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **variables, "PYTHONPATH": path, "POLICYLONG_NODE_CACHE": str(cache)}


@contextmanager
def _none() -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    yield (), ()


@contextmanager
def _cable() -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Two network namespaces with a cable between them; gives what stands before a command that runs in each."""
    names = [f"policylong-{os.getpid()}-{name}" for name in NAMES]
    ends = [f"pl{os.getpid() % 100_000}{letter}" for letter in "ab"]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end, address in zip(names, ends, ADDRESSES, strict=True):
            _ip("link", "set", end, "netns", name)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            for device in ("lo", end):
                _ip("-n", name, "link", "set", device, "up")
            _ip("-n", name, "route", "add", "default", "dev", end)
        first, second = (("ip", "netns", "exec", name) for name in names)
        yield first, second
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"error: ip {' '.join(arguments)}: {done.stderr.strip()} (--namespaces needs root and iproute2)."
        )


def _own_address() -> str:
    """This machine's address as others see it; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with suppress(OSError):
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
    return "127.0.0.1"


def free_port() -> int:
    """A port that is free now on every address."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline()[:1]) or process.name()
    return "ended"


def _count(address: str) -> int:
    """Nodes of a cluster that are alive, asked of its head without joining it."""
    from ray._raylet import GcsClient

    nodes = GcsClient(address=address).get_all_node_info(timeout=5)
    return sum(info.state == 0 for info in nodes.values())


if __name__ == "__main__":
    print(json.dumps(_count(sys.argv[1])))
