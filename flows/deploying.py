"""Deploying: ``deploy/prefect.yaml`` to a Prefect server, with the forms of ``flows.deployments``.

The file is what ``prefect deploy`` reads as well. Here its deployments are made in a few requests, and what somebody
changed in Prefect's pages is kept: default parameters, and the schedules of a deployment that has any.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from flows.overrides import configured
from flows.standing.versions import own_version
from storage.errors import ConfigError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

FILE = Path(__file__).resolve().parent.parent / "deploy" / "prefect.yaml"
_VERSION = re.compile(r"\{\{ *\$POLICYLONG_VERSION *\}\}")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WorkPool(_Entry):
    """Where a deployment runs; pools are of type process and made when they are not there."""

    name: str


class Limit(_Entry):
    """How many runs of a deployment run at a time, and what becomes of the others."""

    limit: int = Field(ge=1)
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"


class Schedule(_Entry):
    """When a deployment runs by itself."""

    slug: str
    cron: str
    timezone: str = "UTC"
    active: bool = False
    parameters: dict[str, Any] = {}


class Deployment(_Entry):
    """One deployment of the file."""

    name: str
    entrypoint: str = Field(description="Module path of the flow.")
    description: str
    version: str
    tags: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}
    work_pool: WorkPool
    concurrency_limit: Limit | None = None
    schedules: tuple[Schedule, ...] = ()


class DeploymentFile(BaseModel):
    """``deploy/prefect.yaml``; ``definitions`` is for its anchors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    prefect_version: str | None = Field(None, alias="prefect-version")
    pull: tuple[dict[str, Any], ...] = ()
    definitions: dict[str, Any] = {}
    deployments: tuple[Deployment, ...]

    @property
    def pools(self) -> tuple[str, ...]:
        """Names of the work pools, in order of appearance."""
        return tuple(dict.fromkeys(deployment.work_pool.name for deployment in self.deployments))


def read_deployments(path: Path = FILE, version: str | None = None) -> DeploymentFile:
    """The file with the version of policylong filled in (by default this one's); raises ``ConfigError``."""
    text = _VERSION.sub(version or own_version(), path.read_text(encoding="utf-8"))
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name} is not valid YAML ({str(error).splitlines()[0]}).") from error
    return configured(DeploymentFile, values, where=path.name, hint=f"Look at {path}.")


def chosen_pools(names: Sequence[str]) -> tuple[str, ...]:
    """The work pools of these names, or all; raises ``ConfigError`` for one that nothing is deployed to."""
    known = read_deployments().pools
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no work pool {name!r}.", hint=f"Known: {', '.join(known)}.")
    return tuple(dict.fromkeys(names)) or known


def deploy_all(path: Path = FILE, version: str | None = None) -> list[str]:
    """Deploys everything to the Prefect server of the settings; returns ``flow/deployment`` names."""
    from prefect.client.orchestration import get_client
    from prefect.flows import Flow, load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    file = read_deployments(path, version)
    made = []
    with get_client(sync_client=True) as client:
        for pool in file.pools:
            _make_pool(client, pool)
        for deployment in file.deployments:
            flow: Flow[..., Any] = load_flow_from_entrypoint(deployment.entrypoint, use_placeholder_flow=False)
            full = f"{flow.name}/{deployment.name}"
            before = _deployed(client, full)
            schema = parameter_schema(flow).model_dump_for_openapi()
            kept = before.parameters if before else {}
            client.create_deployment(
                flow_id=client.create_flow(flow),
                name=deployment.name,
                version=deployment.version,
                entrypoint=deployment.entrypoint,
                description=deployment.description,
                tags=list(deployment.tags),
                work_pool_name=deployment.work_pool.name,
                parameters=deployment.parameters | {k: v for k, v in kept.items() if k in schema["properties"]},
                parameter_openapi_schema=schema,
                enforce_parameter_schema=True,
                schedules=_schedules(deployment, before),
                concurrency_limit=deployment.concurrency_limit.limit if deployment.concurrency_limit else None,
                concurrency_options=_options(deployment),
                pull_steps=list(file.pull),
            )
            made.append(full)
    return made


def _make_pool(client: SyncPrefectClient, name: str) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


def _deployed(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def _schedules(deployment: Deployment, before: DeploymentResponse | None) -> list[Any]:
    """The file's schedules, or those that the deployment has: they are their owner's once they were made."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    if before is not None and before.schedules:
        names = ("schedule", "active", "parameters", "slug")
        return [DeploymentScheduleCreate(**{n: getattr(known, n) for n in names}) for known in before.schedules]
    return [
        DeploymentScheduleCreate(
            schedule=CronSchedule(cron=schedule.cron, timezone=schedule.timezone),
            active=schedule.active,
            parameters=schedule.parameters,
            slug=schedule.slug,
        )
        for schedule in deployment.schedules
    ]


def _options(deployment: Deployment) -> Any:
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions

    if deployment.concurrency_limit is None:
        return None
    return ConcurrencyOptions(
        collision_strategy=ConcurrencyLimitStrategy(deployment.concurrency_limit.collision_strategy)
    )
