"""Scoring shards on the nodes of a Ray cluster, as tasks of Prefect's runner for Ray; all other steps stay here.

A shard whose node or worker process is lost is computed again elsewhere; one that had been finished is found finished.
Every worker process loads the policy with its first shard and keeps it for the next.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from prefect.settings import get_current_settings
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options
from pydantic import BaseModel

from storage.checkpoints import finished
from storage.errors import ConfigError, ResourceError, ServiceError
from storage.home import Home
from storage.refs import Ref
from tasks.checkpointed import Step, tally
from tasks.engines.carrying import Carrier, Load
from tasks.engines.cluster import Cluster, api_address
from tasks.engines.engine import EngineConfig
from tasks.engines.nodes import Wanted, wanted_here
from tasks.engines.shipping import Shipped
from tasks.progress import Advance, progress

UNDER_WAY = 1024
"""Shards that Ray holds at a time, running or queued: what each was told stays in the memory of this process. Ours."""
LOOK_SECONDS = 5.0
"""Between two looks whether the cluster is still there."""
SEEN_SECONDS = 60.0
"""Longest that a network file system may take to show what a node wrote; NFS believes what it knew for so long."""


@dataclass(eq=False)
class _Shard:
    step: Step[Any, Any]
    home: Home
    inputs: BaseModel
    config: BaseModel
    label: str
    future: Any = None
    refs: dict[str, Ref] | None = None


class RayEngine:
    """Sends scoring shards to a cluster that is reached with the first of them."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._cluster: Cluster | None = None
        self._wanted: Wanted | None = None
        self._carrier = Carrier(config.shared_storage) if config.shared_storage else None
        self._waiting: deque[_Shard] = deque()
        self._running: dict[Any, _Shard] = {}
        self._open, self._shown = ExitStack(), ExitStack()
        self._runner: RayTaskRunner[Any] | None = None
        self._advance: Advance | None = None

    def submit(
        self, step: Step[Any, Any], home: Home, inputs: BaseModel, config: BaseModel, *, label: str
    ) -> Callable[[], dict[str, Ref]]:
        """Takes a shard and sends it at once where Ray has room; the flow keeps what is finished or asks no policy."""
        if not step.scores or finished(home, step.key(inputs, config)) is not None:
            return step.submit(home, inputs, config, label=label)
        shard = _Shard(step, home, inputs, config, label)
        self._waiting.append(shard)
        self._fill()
        return partial(self._wait, shard)

    def close(self) -> None:
        """Leaves the cluster; what is under way there ends."""
        self._waiting.clear()
        self._running.clear()
        self._shown.close()
        self._open.close()

    def _wait(self, shard: _Shard) -> dict[str, Ref]:
        while shard.refs is None:
            self._turn()
        return shard.refs

    def _fill(self) -> None:
        while self._waiting and len(self._running) < UNDER_WAY:
            shard = self._waiting.popleft()
            self._running[self._send(shard)] = shard

    def _turn(self) -> None:
        """Keeps the cluster busy, waits for the next shard that ends, and looks now and then whether it is there."""
        if self._advance is None:
            self._advance = self._shown.enter_context(progress("scoring on Ray", total=None, unit="shards"))
        self._fill()
        done, _ = ray.wait(list(self._running), num_returns=1, timeout=LOOK_SECONDS)
        for reference in done:
            self._take(self._running.pop(reference))
        self._advance(len(done))
        if not done and self._cluster is not None:
            self._cluster.check_alive()
        if not self._running and not self._waiting:
            self._shown.close()
            self._advance = None

    def _send(self, shard: _Shard) -> Any:
        wanted, runner = self._ready(shard)
        load: Load | None = self._carrier.load(shard.home, shard.inputs) if self._carrier else None
        parameters = {
            "home": str(shard.home.path),
            "inputs": shard.inputs,
            "config": shard.config,
            "label": shard.label,
            "load": load,
        }
        assert self._cluster is not None
        with remote_options(
            num_cpus=self._cluster.cpus,
            num_gpus=self._cluster.gpus,
            max_retries=self._config.retries,
            # Ray ends a process that has had a GPU after one task unless it is told not to: the policy would go too.
            max_calls=0,
            scheduling_strategy="SPREAD",
        ):
            shard.future = runner.submit(Shipped(shard.step, wanted).task, parameters)
        return shard.future.wrapped_future

    def _ready(self, shard: _Shard) -> tuple[Wanted, RayTaskRunner[Any]]:
        if self._wanted is None or self._runner is None:
            policy: Any = getattr(shard.inputs, "policy")  # noqa: B009  inputs are of any step that scores
            config = self._config
            cpus = float(config.cpus if config.cpus is not None else policy.threads)
            gpus = float(config.gpus if config.gpus is not None else policy.device == "cuda")
            url = get_current_settings().api.url
            seen = None if self._carrier else shard.home
            variables = {"PREFECT_API_URL": url} if url else {}
            if seen is not None:
                variables["PREFECT_HOME"] = str(get_current_settings().home)
            self._cluster = Cluster(config, cpus, gpus, variables)
            self._open.callback(self._cluster.close)
            wanted = wanted_here(seen, None if config.address == "local" else api_address(url), policy.device)
            if seen is not None:
                self._open.callback((seen / wanted.mark).unlink, missing_ok=True)
            self._wanted = self._cluster.check_nodes(wanted)
            self._runner = self._open.enter_context(RayTaskRunner())
        return self._wanted, self._runner

    def _take(self, shard: _Shard) -> None:
        try:
            answer: Mapping[str, Any] = shard.future.result()
        except ray.exceptions.RayTaskError as error:
            raise ConfigError(
                f"{shard.step.name} {shard.label} can't run on its Ray node: {_last_line(error)}.",
                hint="Install the same policylong[ray] on every node.",
            ) from error
        except ray.exceptions.RayError as error:
            raise ServiceError(
                f"{shard.step.name} {shard.label} was lost with its Ray node or worker process"
                f" {self._config.retries + 1} times (engine.retries): {type(error).__name__}.",
                hint="ray status and the logs of the nodes say why; the same command carries on.",
            ) from error
        refs = {name: Ref.model_validate(ref) for name, ref in answer["refs"].items()}
        if self._carrier:
            self._carrier.take(shard.home, shard.step, shard.inputs, shard.config, answer)
        else:
            for ref in refs.values():
                _see(shard.home / ref.uri, str(answer["node"]))
        tally["computed"] += 1
        key = shard.step.key(shard.inputs, shard.config)
        shard.home.journal({"event": "placed", "step": key.step, "key": key.digest, "node": answer["node"]})
        shard.refs, shard.future = refs, None


def _see(path: Path, node: str) -> None:
    """Waits until this machine sees what a node wrote into the home; raises ``ResourceError`` when it never does."""
    end = time.monotonic() + SEEN_SECONDS
    while not path.exists():
        if path.parent.exists():
            # Listing a folder makes a network file system ask its server again.
            next(path.parent.iterdir(), None)
        if time.monotonic() > end:
            raise ResourceError(
                f"node {node} wrote {path}, and this machine does not see it.",
                hint="The home has to be one shared folder on all machines; or give --shared-storage URL.",
            )
        time.sleep(0.2)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-1].split()).rstrip(".") if lines else type(error).__name__
