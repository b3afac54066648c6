"""A dataset version handed to the ``train`` deployment, whose worker may be another machine's with the same home.

The flow run is found again by the version (Prefect's idempotency key): a campaign that was interrupted waits for the
training that it started, and starts no second one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flows.logs import say
from flows.standing.versions import own_version
from models.training import TrainingConfig
from storage.digests import short
from storage.errors import ConfigError, ServiceError
from storage.home import Home
from tasks.training.run import TrainingResult, recorded_training, training_key

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

TRAIN = "train/train"
_POLL_SECONDS = 2.0
_LATE_SECONDS = 60.0
_AWAY_SECONDS = 600.0
"""How long the Prefect server may be away while a training is awaited. Ours."""


def check_train_deployment() -> None:
    """Raises ``ConfigError`` unless the Prefect server that is used has the ``train`` deployment of this version."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            deployed = client.read_deployment_by_name(TRAIN)
        except ObjectNotFound as error:
            raise ConfigError(
                f"campaign.hand_off is deployment, and the Prefect server has no deployment {TRAIN}.",
                hint="policylong up (or policylong deploy) makes it; campaign.hand_off=direct trains here.",
            ) from error
    if deployed.version != own_version():
        raise ConfigError(
            f"deployment {TRAIN} is of policylong {deployed.version}, this is {own_version()}.",
            hint="policylong deploy.",
        )


def train_by_deployment(
    home: Home, version: str, policy: str, config: TrainingConfig, *, label: str, campaign: str
) -> dict[str, Any]:
    """Has ``policy`` trained on ``version`` by the ``train`` deployment and waits; returns the result as JSON.

    Returns at once what is trained already. Raises ``ServiceError`` naming the flow run when the training failed there:
    the next call has it tried again.
    """
    from prefect.client.orchestration import get_client

    key = training_key(version, policy, config)
    known = recorded_training(home, key)
    if known is not None:
        return known.model_dump(mode="json")
    parameters = {
        "version": version,
        "policy": policy,
        "config": config.model_dump(mode="json"),
        "label": label,
        "campaign": campaign,
    }
    run = _run_of(version, short(key.digest, 16), parameters, label)
    with get_client(sync_client=True) as client:
        if run.state is not None and run.state.is_final():
            _again(client, run)
        say(f"handed version {short(version)} to {TRAIN}: flow run {run_page(str(run.id))}")
        state = _awaited(client, run, label)
    result = recorded_training(home, key) if state.is_completed() else None
    if result is None:
        raise _failed(run, state, version)
    say(_trained(result))
    return result.model_dump(mode="json")


def run_page(run: str) -> str:
    """Address of a flow run's page, where Prefect's address is known; else its id."""
    from prefect.settings import PREFECT_UI_URL

    address = PREFECT_UI_URL.value()
    return f"{str(address).rstrip('/')}/runs/flow-run/{run}" if address else run


def _run_of(version: str, training: str, parameters: dict[str, Any], label: str) -> FlowRun:
    """The flow run of a version; of the version and the training where the version is another training's, too."""
    from prefect.deployments import run_deployment

    for key in (version, f"{version}-{training}"):
        made = run_deployment(
            TRAIN,
            parameters=parameters,
            timeout=0,
            as_subflow=False,
            idempotency_key=key,
            flow_run_name=f"train {label}",
            tags=["policylong", "training", f"round-version:{short(version)}"],
        )
        run: FlowRun = made  # type: ignore[assignment]  # async_dispatch: a run where nothing is awaited
        if (run.parameters.get("policy"), run.parameters.get("config")) == (parameters["policy"], parameters["config"]):
            break
    return run


def _again(client: SyncPrefectClient, run: FlowRun) -> None:
    from prefect.states import AwaitingRetry

    say(f"training run {run.name} ended without its policy before; it is tried again")
    client.set_flow_run_state(run.id, AwaitingRetry(), force=True)


def _awaited(client: SyncPrefectClient, run: FlowRun, label: str) -> State[Any]:
    import httpx

    begun = answered = time.monotonic()
    told = False
    while True:
        try:
            state = client.read_flow_run(run.id).state
            answered = time.monotonic()
        except httpx.HTTPError:
            if time.monotonic() - answered > _AWAY_SECONDS:
                raise
            state = None
        if state is not None and state.is_final():
            return state
        waits = state is not None and (state.is_scheduled() or state.is_pending())
        if waits and not told and time.monotonic() - begun > _LATE_SECONDS:
            told = True
            say(f"train {label} still waits for a worker of its work pool: policylong worker policylong-train")
        time.sleep(_POLL_SECONDS)


def _failed(run: FlowRun, state: State[Any], version: str) -> ServiceError:
    if state.is_completed():
        return ServiceError(
            f"training on version {short(version)} is finished, and this home has no record of it.",
            hint="The workers of both work pools must have the same home.",
        )
    why = " ".join((state.message or "").split())[:300].rstrip(".")
    return ServiceError(
        f"training on version {short(version)} is {state.name} in Prefect: {why or 'no reason given'}.",
        hint=f"Look at {run_page(str(run.id))}; the campaign started again has it tried again.",
    )


def _trained(result: TrainingResult) -> str:
    return (
        f"round {result.round}: trained {len(result.steps):,} steps on {result.samples:,} samples"
        f" ({result.tokens:,} tokens) in {result.seconds:,.0f} s; next policy {short(result.policy)}"
    )
