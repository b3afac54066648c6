"""What an engine is, how one is configured and opened, and the default one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal, Protocol

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import BaseModel, ConfigDict, Field, model_validator

from storage.errors import ConfigError
from storage.home import Home
from storage.refs import Ref
from tasks.checkpointed import Step

EngineKind = Literal["threads", "ray"]


class EngineConfig(BaseModel):
    """Where scoring shards run. It is no part of a version or of a campaign's identity: both engines give the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: EngineKind = Field(
        "threads", description="threads: in this process; ray: on the nodes of a Ray cluster (policylong[ray])."
    )
    overlap: bool = Field(
        False,
        description="Steps that ask no policy (retrieval, negatives) run beside those that do, where the shards they"
        " need are finished: keeps a GPU busy meanwhile.",
    )
    address: str | None = Field(
        None,
        description="HOST:PORT of the Ray cluster that this machine is a node of; null: RAY_ADDRESS, else the one that"
        " runs here; local: one of its own on this machine, for its GPUs, which ends with the command.",
    )
    cpus: float | None = Field(None, gt=0, description="CPUs of a shard; null: build.numeric.threads.")
    gpus: float | None = Field(
        None, ge=0, description="GPUs of a shard; null: one where the policy runs on cuda. 0.5: two shards share one."
    )
    retries: int = Field(
        5, ge=0, description="How often a shard is computed again when its node or worker process is lost."
    )
    shared_storage: str | None = Field(
        None,
        description="fsspec URL of a folder or bucket through which shards reach nodes that don't mount the home;"
        " null: every node sees the home under the same path.",
    )

    @model_validator(mode="after")
    def _of_ray_only(self) -> EngineConfig:
        given = [name for name in ("address", "cpus", "gpus", "shared_storage") if getattr(self, name) is not None]
        if given and self.kind != "ray":
            raise ValueError(f"{given[0]} is an option of kind ray, not of {self.kind}")
        return self


class Engine(Protocol):
    """Runs shards."""

    def submit(
        self, step: Step[Any, Any], home: Home, inputs: BaseModel, config: BaseModel, *, label: str
    ) -> Callable[[], dict[str, Ref]]:
        """Takes a shard; call what it returns to wait for the shard's refs."""
        ...


class Threads:
    """The default: the task runner of the flow; with ``beside``, that one for steps that ask no policy."""

    def __init__(self, beside: TaskRunner[Any] | None = None) -> None:
        self._beside = beside

    def submit(
        self, step: Step[Any, Any], home: Home, inputs: BaseModel, config: BaseModel, *, label: str
    ) -> Callable[[], dict[str, Ref]]:
        """Submits the step as a task of the current flow."""
        return step.submit(home, inputs, config, label=label, runner=None if step.scores else self._beside)


THREADS = Threads()


def check_engine(config: EngineConfig) -> None:
    """Raises ``ConfigError`` where the engine's packages are not installed."""
    missing = [name for name in ("ray", "prefect_ray") if config.kind == "ray" and find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"engine ray needs the package {missing[0].replace('_', '-')}, which is not installed.",
            hint="pip install 'policylong[ray]', here and on every node.",
        )


@contextmanager
def opened(config: EngineConfig) -> Iterator[Engine]:
    """The engine for the time of the block. A cluster is asked only once there is a shard to compute."""
    check_engine(config)
    if config.kind == "threads":
        runner: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=1)
        with runner as beside:
            yield Threads(beside) if config.overlap else THREADS
        return
    from tasks.engines.ray_engine import RayEngine

    engine = RayEngine(config)
    try:
        yield engine
    finally:
        engine.close()
