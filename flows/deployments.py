"""The flows as they are deployed: forms of plain parameters around the flows of this package.

    flows.deployments.campaign    in Prefect's page: preset, name, rounds, approval, …
    flows.campaign.campaign       the flow itself, with a whole ``Preset``

Each runs the flow's function in its own run, so that a campaign is one run in Prefect with its rounds below it. The
home is the worker's (``POLICYLONG_HOME``). A run that failed because a service did not answer is tried again; any other
error would be the same the next time. Prefect takes the forms' texts from ``Args:``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from pydantic import Field

from flows.audit import audit as audit_version
from flows.build import ONE_AT_A_TIME, build_round
from flows.campaign import campaign as run_campaign
from flows.corpus_options import ingest_config
from flows.evaluate import evaluate_policy
from flows.ingest import ingest as ingest_files
from flows.presets import Preset, load_preset, preset_names
from flows.rounds import policy_to_train, round_inputs
from flows.train import train_round
from models.training import TrainingConfig
from storage.digests import short
from storage.errors import BusyError, ConfigError, PolicylongError, ServiceError
from storage.home import Home
from storage.policies import policy_record
from storage.versions import resolve_version
from tasks.recipes import all_recipes

RETRIES, RETRY_SECONDS = 3, 60
"""How often a run is tried again whose service did not answer, and how long after. Ours."""
_WORTH_A_RETRY = (ServiceError, BusyError)

PresetName = Annotated[str, Field(json_schema_extra={"enum": list(preset_names())})]
RecipeName = Annotated[str, Field(json_schema_extra={"enum": list(all_recipes())})]
AtLeastOne = Annotated[int, Field(ge=1)]
QUICKSTART = "quickstart"


def deployed_home() -> Home:
    """The worker's home, made the working directory: paths in a preset that are relative are below it.

    Raises ``ConfigError`` in a worker that has none.
    """
    path = os.environ.get("POLICYLONG_HOME")
    if not path:
        raise ConfigError("POLICYLONG_HOME is not set for this worker.", hint="Start it with policylong worker POOL.")
    home = Home.open(Path(path))
    os.chdir(home.path)
    return home


def chosen(preset: str, preset_file: str | None, changes: list[str] | None, **settings: Any) -> Preset:
    """A preset of this name, or the file, with changes; ``settings`` (``section__field``) that are None are left."""
    given = [f"{key.replace('__', '.')}={value}" for key, value in settings.items() if value is not None]
    return load_preset(preset_file or preset, [*(changes or []), *given])


@contextmanager
def only_services_again() -> Iterator[None]:
    """Takes the retries from the current run when its error would be the same the next time."""
    try:
        yield
    except PolicylongError as error:
        context = FlowRunContext.get()
        if not isinstance(error, _WORTH_A_RETRY) and context is not None and context.flow_run is not None:
            with get_client(sync_client=True) as client:
                policy = client.read_flow_run(context.flow_run.id).empirical_policy
                client.update_flow_run(context.flow_run.id, empirical_policy=policy.model_copy(update={"retries": 0}))
        raise


def _campaign_name() -> str:
    given: dict[str, Any] = flow_run.parameters
    return str(given.get("name") or Path(str(given.get("preset_file") or given.get("preset"))).stem)


def _named_campaign() -> str:
    return f"campaign {_campaign_name()}"


def _named_build() -> str:
    return f"build {_campaign_name()} round {flow_run.parameters.get('number')}"


def _named_ingest() -> str:
    return f"ingest {_campaign_name()}"


def _named_training() -> str:
    given: dict[str, Any] = flow_run.parameters
    return f"train {given.get('label') or given.get('version')}"


@flow(name="ingest", flow_run_name=_named_ingest, retries=RETRIES, retry_delay_seconds=RETRY_SECONDS)
def ingest(
    preset: PresetName = QUICKSTART,
    preset_file: str | None = None,
    paths: list[str] | None = None,
    name: str | None = None,
    changes: list[str] | None = None,
) -> str:
    """Turns files into a corpus and returns its digest.

    Args:
        preset: Whose corpus section says what is ingested and how.
        preset_file: A preset of one's own in its place: path of a YAML file on the worker's machine.
        paths: Parquet, JSONL, text or Markdown files, or folders of them, on the worker's machine; none: the preset's.
        name: Name of the corpus in the home.
        changes: Changes of the corpus section, one KEY=VALUE a line, such as chunking.max_tokens=120.
    """
    home = deployed_home()
    with only_services_again():
        config = ingest_config(
            [Path(path) for path in paths or []],
            name=name,
            columns={},
            benchmarks=[],
            preset=preset_file or preset,
            changes=changes or [],
        )
        return ingest_files.fn(str(home.path), config)


@flow(
    name="build",
    flow_run_name=_named_build,
    task_runner=ONE_AT_A_TIME,
    retries=RETRIES,
    retry_delay_seconds=RETRY_SECONDS,
)
def build(
    preset: PresetName = QUICKSTART,
    preset_file: str | None = None,
    name: str | None = None,
    number: AtLeastOne = 1,
    recipe: RecipeName | None = None,
    tokens: AtLeastOne | None = None,
    corpus: str | None = None,
    screener: str | None = None,
    changes: list[str] | None = None,
) -> str:
    """Builds one round and returns its dataset version.

    Args:
        preset: What is built and how.
        preset_file: A preset of one's own in its place: path of a YAML file on the worker's machine.
        name: Name of the campaign; none: the preset's, with the recipe's name where one is given.
        number: Which round of the campaign.
        recipe: A method; none: the preset's.
        tokens: Budget of the round, in tokens.
        corpus: A corpus that was ingested, by name or digest; none: the preset's.
        screener: Policy that screens, for recipes that want one given.
        changes: Changes of the preset, one KEY=VALUE a line.
    """
    home = deployed_home()
    with only_services_again():
        settings = {"build__recipe": recipe, "build__tokens": tokens}
        wanted = chosen(preset, preset_file, changes, campaign__name=name, **settings)
        if recipe and not name:
            own = f"{wanted.campaign.name}-{recipe}"
            wanted = chosen(preset, preset_file, changes, campaign__name=own, **settings)
        inputs = round_inputs(home, wanted, number, corpus, screener)
        return build_round.fn(str(home.path), inputs, wanted.build)


@flow(name="train", flow_run_name=_named_training, retries=RETRIES, retry_delay_seconds=RETRY_SECONDS)
def train(
    version: str,
    policy: str | None = None,
    config: TrainingConfig | None = None,
    preset: PresetName = QUICKSTART,
    preset_file: str | None = None,
    changes: list[str] | None = None,
    label: str = "",
    campaign: str | None = None,
) -> dict[str, Any]:
    """Trains a policy on a dataset version and returns the result as JSON.

    Args:
        version: Round number, dataset version or its first characters.
        policy: Policy to train; none: the one whose turn it is in the campaign.
        config: The whole training configuration; none: the preset's. Campaigns give it.
        preset: Whose training section is used.
        preset_file: A preset of one's own in its place: path of a YAML file on the worker's machine.
        changes: Changes of the preset, one KEY=VALUE a line, such as training.learning_rate=0.0001.
        label: What the run is called.
        campaign: Name of the campaign, for MLflow.
    """
    home = deployed_home()
    with only_services_again():
        full = resolve_version(home, version)
        settings = config or chosen(preset, preset_file, changes).training
        who = policy_to_train(home, full, policy)
        return train_round.fn(str(home.path), full, who, settings, label or f"version {short(full)}", campaign)


@flow(name="evaluate", flow_run_name="evaluate {policy}", retries=RETRIES, retry_delay_seconds=RETRY_SECONDS)
def evaluate(
    policy: str,
    corpus: str | None = None,
    preset: PresetName = QUICKSTART,
    preset_file: str | None = None,
    changes: list[str] | None = None,
) -> dict[str, Any]:
    """Measures the context gain of a policy and returns it as JSON.

    Args:
        policy: Digest of a policy or its first characters.
        corpus: Corpus whose held-out part is used; none: the preset's.
        preset: Whose evaluation section is used.
        preset_file: A preset of one's own in its place: path of a YAML file on the worker's machine.
        changes: Changes of the preset, one KEY=VALUE a line.
    """
    home = deployed_home()
    with only_services_again():
        wanted = chosen(preset, preset_file, changes)
        digest = policy_record(home, policy).digest
        return evaluate_policy.fn(str(home.path), digest, corpus or wanted.corpus.name, wanted.evaluation)


@flow(name="campaign", flow_run_name=_named_campaign, retries=RETRIES, retry_delay_seconds=RETRY_SECONDS)
def campaign(
    preset: PresetName = QUICKSTART,
    preset_file: str | None = None,
    name: str | None = None,
    recipe: RecipeName | None = None,
    rounds: AtLeastOne | None = None,
    tokens: AtLeastOne | None = None,
    approve: bool = False,
    hand_off: Literal["deployment", "direct"] = "deployment",
    changes: list[str] | None = None,
) -> dict[str, Any]:
    """Runs or carries on a campaign; returns its record as JSON.

    Args:
        preset: What the campaign is.
        preset_file: A preset of one's own in its place: path of a YAML file on the worker's machine.
        name: Name of the campaign; another name starts another campaign.
        recipe: A method; none: the preset's.
        rounds: Number of rounds; none: the preset's.
        tokens: Budget of a round, in tokens; none: the preset's.
        approve: Wait for a person after each dataset version, with its report in view.
        hand_off: Where versions are trained on. deployment: in work pool policylong-train; direct: in this run.
        changes: Changes of the preset, one KEY=VALUE a line.
    """
    home = deployed_home()
    with only_services_again():
        settings = {"build__recipe": recipe, "build__rounds": rounds, "build__tokens": tokens}
        standing = {"campaign__approve": "true" if approve else None, "campaign__hand_off": hand_off}
        wanted = chosen(preset, preset_file, changes, campaign__name=name, **settings, **standing)
        result = run_campaign.fn(str(home.path), wanted)
        return result.campaign.model_dump(mode="json", include={"name", "rounds"})


@flow(name="audit", flow_run_name="audit {version}", retries=RETRIES, retry_delay_seconds=RETRY_SECONDS)
def audit(version: str, deep: Annotated[int, Field(ge=0)] = 0, seed: int = 0) -> dict[str, Any]:
    """Audits a version or a campaign and returns the report as JSON; one that differs is a failed run.

    Args:
        version: Round number, CAMPAIGN:ROUND, a dataset version, or a campaign's name.
        deep: Verdicts of each round that are drawn and scored again.
        seed: Which verdicts are drawn.
    """
    home = deployed_home()
    with only_services_again():
        return audit_version.fn(str(home.path), version, deep, seed)
