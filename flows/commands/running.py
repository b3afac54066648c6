"""The commands that run something. Each opens the home, calls one flow and prints what came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.journal import journal_size, steps_done
from flows.session import Session, messages, results
from storage.digests import short

if TYPE_CHECKING:
    from flows.presets import Preset

PresetName = Annotated[
    str, typer.Option("--preset", "-p", help="A preset that comes along, or the path of a YAML file.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE", help="Change one value of the preset; may be given several times."
    ),
]
CampaignName = Annotated[
    str | None, typer.Option("--name", help="Name of the campaign; another name starts another campaign.")
]
EngineName = Annotated[
    str | None,
    typer.Option("--engine", metavar="threads|ray", help="Where scoring runs; changes no version.  [default: threads]"),
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="HOST:PORT of the Ray cluster; local: one of its own.  [default: the one that runs here]"),
]
SharedStorageUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", help="fsspec URL by which shards reach Ray nodes that don't mount the home."),
]
QUICKSTART = "quickstart"


def register(app: typer.Typer) -> None:
    """Adds the commands to the application, in the order of the help page."""
    for command in (run, ingest, pretrain, build, train, evaluate, status, doctor):
        app.command()(command)


def run(
    context: typer.Context,
    preset: PresetName = QUICKSTART,
    changes: Changes = None,
    name: CampaignName = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check what can be checked without weights and print what it will take.")
    ] = False,
    peak_tflops: Annotated[
        float | None, typer.Option(help="Of the plan: FLOPs of one GPU, 10^12 a second.  [default: the preset's]")
    ] = None,
    utilisation: Annotated[
        float | None, typer.Option(help="Of the plan: share of the peak that is reached.  [default: the preset's]")
    ] = None,
    engine: EngineName = None,
    ray_address: RayAddress = None,
    shared_storage: SharedStorageUrl = None,
) -> None:
    """Run a whole campaign: ingest, then round after round build, train and evaluate.

    What is finished is not done again: after a stop the same command carries on.
    """
    session: Session = context.obj
    planned = {"peak_tflops": peak_tflops, "utilisation": utilisation}
    given = [f"plan.{key}={value}" for key, value in planned.items() if value is not None]
    given += engine_changes(engine, ray_address, shared_storage)
    chosen = chosen_preset(session, preset, [*(changes or []), *given], name)
    if dry_run:
        from flows.plan import show_plan

        show_plan(results(), session.home, chosen)
        return
    with session.running() as home:
        from flows.campaign import campaign

        before = journal_size(home)
        result = campaign(str(home.path), chosen)
        done = steps_done(home, since=before)
    from flows.views.console import show_campaign

    show_campaign(results(), home.path, result.rows, result.example)
    if not done:
        messages().print("Nothing was left to do: every step had been finished before.", style="bold green")
    if result.waiting_for:
        command = f"policylong policy add PATH --trained-on {short(result.waiting_for)}"
        messages().print(
            f"The campaign waits for a checkpoint trained on {short(result.waiting_for)}: {command}, then this again."
        )


def ingest(
    context: typer.Context,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Parquet, JSONL (plain, .gz, .zst), text or Markdown files, or folders of them."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the corpus in the home.  [default: corpus]")] = None,
    text: Annotated[str | None, typer.Option(help="Column that holds the text.  [default: text]")] = None,
    title: Annotated[str | None, typer.Option(help="Column that holds the title.")] = None,
    group: Annotated[str | None, typer.Option(help="Column whose values are kept on one side of the split.")] = None,
    benchmark: Annotated[
        list[Path] | None,
        typer.Option(help="Benchmark file or folder: documents that share text with it are left out."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", "-p", help="Take everything that is not given from a preset's corpus.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a value, such as chunking.max_tokens=120."),
    ] = None,
) -> None:
    """Turn files into a corpus: normalised, deduplicated, cut into chunks, embedded.

    Broken rows are set aside with their reason and counted. A stopped run is carried on by the same command.
    """
    session: Session = context.obj
    session.prepared()
    from flows.corpus_options import ingest_config

    config = ingest_config(
        paths or [],
        name=name,
        columns={"text": text, "title": title, "group": group},
        benchmarks=benchmark or [],
        preset=preset,
        changes=changes or [],
    )
    with session.running() as home:
        from flows.ingest import ingest as ingest_files
        from flows.status import corpus_line
        from storage.corpora import open_corpus

        corpus = open_corpus(home, ingest_files(str(home.path), config))
    results().print(corpus_line(corpus), highlight=False, markup=False, soft_wrap=True)


def pretrain(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Argument(help="Folder for the finished model.  [default: base-model in the home]")
    ] = None,
    measure_only: Annotated[
        bool, typer.Option("--measure-only", help="Measure the model in OUT, train nothing.")
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-s", metavar="KEY=VALUE", help="Change a value, such as pretraining.total_tokens=1000000."
        ),
    ] = None,
) -> None:
    """Train the small base model that comes along anew, on the Python documentation of this machine; takes hours.

    Use the result with --set policy.base=OUT. A stopped run is carried on by the same command.
    """
    session: Session = context.obj
    session.prepared()
    from flows.overrides import configured
    from tasks.pretraining.base_model import BaseModelConfig

    config = configured(BaseModelConfig, {}, changes or [], where="pretrain", hint="See: policylong pretrain --help")
    with session.running() as home:
        from flows.pretrain import pretrain as pretrain_base

        figures = pretrain_base(str(home.path), str(out or home / "base-model"), config, measure_only)
    results().print_json(data=figures)


def build(
    context: typer.Context,
    preset: PresetName = QUICKSTART,
    changes: Changes = None,
    name: CampaignName = None,
    number: Annotated[int, typer.Option("--round", min=1, help="Which round of the campaign.")] = 1,
    recipe: Annotated[str | None, typer.Option(help="A method; policylong recipes lists them.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Budget of the round, in tokens.")] = None,
    corpus: Annotated[
        str | None, typer.Option(help="A corpus that was ingested, by name or digest; the preset's by default.")
    ] = None,
    screener: Annotated[
        str | None, typer.Option(metavar="POLICY", help="Policy that screens, for recipes that want one given.")
    ] = None,
    engine: EngineName = None,
    ray_address: RayAddress = None,
    shared_storage: SharedStorageUrl = None,
) -> None:
    """Build one round: screen roots with the current policy and publish a dataset version; no training.

    Every recipe has a campaign of its own: with --recipe it is called NAME-RECIPE unless --name says otherwise.
    """
    session: Session = context.obj
    given = [*([f"build.recipe={recipe}"] if recipe else []), *([f"build.tokens={tokens}"] if tokens else [])]
    given += engine_changes(engine, ray_address, shared_storage)
    chosen = chosen_preset(session, preset, [*(changes or []), *given], name)
    if recipe and not name:
        chosen = chosen_preset(session, preset, [*(changes or []), *given], f"{chosen.campaign.name}-{recipe}")
    with session.running() as home:
        from flows.build import build_round
        from flows.rounds import round_inputs

        inputs = round_inputs(home, chosen, number, corpus, screener)
        version = build_round(str(home.path), inputs, chosen.build)
        from storage.versions import load_manifest
        from tasks.rounds.summary import round_summary

        for line in round_summary(load_manifest(home, version), version):
            messages().print(line, highlight=False, markup=False, soft_wrap=True)
    results().print(version, highlight=False, soft_wrap=True)


def train(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="Round number, dataset version or its first characters.")],
    policy: Annotated[
        str | None, typer.Option(help="Policy to train; by default the one whose turn it is in the campaign.")
    ] = None,
    preset: PresetName = QUICKSTART,
    changes: Changes = None,
) -> None:
    """Train a policy on the dataset version that was built for it; prints the next policy's digest."""
    session: Session = context.obj
    chosen = chosen_preset(session, preset, changes, None)
    with session.running() as home:
        from flows.rounds import policy_to_train
        from flows.train import train_round
        from storage.versions import resolve_version

        full = resolve_version(home, version)
        trained = train_round(
            str(home.path), full, policy_to_train(home, full, policy), chosen.training, label=f"version {short(full)}"
        )
    results().print_json(data=trained)


def evaluate(
    context: typer.Context,
    policy: Annotated[
        str, typer.Argument(help="Digest of a policy or its first characters (see: policylong policy list).")
    ],
    corpus: Annotated[
        str | None, typer.Option(help="Corpus whose held-out part is used; the preset's by default.")
    ] = None,
    preset: PresetName = QUICKSTART,
    changes: Changes = None,
) -> None:
    """Measure how much a longer context helps a policy on held-out text, in nats per token."""
    session: Session = context.obj
    chosen = chosen_preset(session, preset, changes, None)
    with session.running() as home:
        from flows.evaluate import evaluate_policy
        from storage.policies import policy_record

        digest = policy_record(home, policy).digest
        measured = evaluate_policy(str(home.path), digest, corpus or chosen.corpus.name, chosen.evaluation)
    results().print_json(data=measured)


def status(context: typer.Context) -> None:
    """Show what is in the home, what is running, and the next command."""
    session: Session = context.obj
    session.prepared()
    from flows.status import show_status

    show_status(results(), session.home)


def doctor(context: typer.Context, preset: PresetName = QUICKSTART, changes: Changes = None) -> None:
    """Check this machine: versions, disk, memory, GPU, ports, hub, models; says what to do about each."""
    session: Session = context.obj
    chosen = chosen_preset(session, preset, changes, None)
    from flows.doctor import examine, show_checks

    raise typer.Exit(show_checks(results(), examine(session.home, chosen)))


def engine_changes(kind: str | None, address: str | None, shared_storage: str | None) -> list[str]:
    """The options about the engine as changes of a preset."""
    options = {"kind": kind, "address": address, "shared_storage": shared_storage}
    return [f"engine.{name}={json.dumps(value)}" for name, value in options.items() if value is not None]


def chosen_preset(session: Session, preset: str, changes: list[str] | None, name: str | None) -> Preset:
    """A preset with changes and, where one is given, another campaign name."""
    session.prepared()
    from flows.presets import load_preset

    return load_preset(preset, [*(changes or []), *([f"campaign.name={name}"] if name else [])])
