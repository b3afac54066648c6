"""``policylong run --dry-run``: what a preset will take, round by round, and what could be checked before it runs."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.checks import check_fit, check_screeners, largest_chunk
from flows.presets import Preset
from models.policy import load_config, load_tokenizer
from models.policy_files import CONFIG_FILE, tokenizer_files
from storage.campaigns import list_campaigns, load_campaign
from storage.corpora import Corpus, open_corpus
from storage.digests import short
from storage.errors import ConfigError, InputError
from storage.home import Home
from storage.versions import load_manifest
from tasks.measurements.model_shape import ModelShape, model_shape
from tasks.planning.plan import Hours, RoundPlan, TrainingPlan, plan_round, vector_bytes
from tasks.planning.yields import SEPARATOR_AND_BOS, Yield, assumed_yield, measured_yield, verified_share, within_budget
from tasks.recipes import recipe_named, resolved
from tasks.resources import bos_ids
from tasks.rounds.building import BuildConfig
from tasks.screening.negative_verification import NegativeVerificationConfig
from tasks.screening.verification import separator_ids
from tasks.training.base_policy import folder_at_hand

_WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_PIPED = 140
"""Characters of a line where there is no terminal that says how long it is."""


@dataclass(frozen=True, slots=True)
class CampaignPlan:
    """A preset's plan with everything it was made from."""

    preset: Preset
    build: BuildConfig
    screens: bool
    shape: ModelShape
    shape_from: str
    given: Yield
    round: RoundPlan
    """Every round has the same plan."""
    corpus: Corpus | None
    unchecked: list[str]


def campaign_plan(path: Path, preset: Preset) -> CampaignPlan:
    """The plan of a preset for a home that may not be there yet; makes nothing, loads no weights.

    Raises ``ConfigError`` for what does not fit, and when the base model's sizes are not known.
    """
    home = Home.open(path) if (path / "home.json").is_file() else None
    build, _ = resolved(preset.build)
    recipe = recipe_named(build.recipe)
    if "negative_verification" not in recipe.sections:
        build = build.model_copy(update={"negative_verification": NegativeVerificationConfig()})
    corpus = _corpus(home, preset)
    unchecked = check_fit(home, preset, corpus)
    if home is not None:
        check_screeners(home, preset, preset.campaign.screeners)
    elif recipe.screener == "given":
        unchecked.append("whether the policies that screen are there: there is no home yet")
    sizes, where = _sizes(preset)
    shape = model_shape(sizes)
    given = _yield(home, preset, build, largest_chunk(preset, corpus), corpus)
    screens = recipe.screener != "none"
    planned = plan_round(build, given, shape, _training(preset, sizes), screens=screens, extra=_extra(preset))
    return CampaignPlan(preset, build, screens, shape, where, given, planned, corpus, unchecked)


def show_plan(console: Console, path: Path, preset: Preset) -> None:
    """Prints a preset's plan: what it assumes, each round, all rounds, and what was not checked."""
    plan = campaign_plan(path, preset)
    if not console.is_terminal:
        console.width = max(console.width, _PIPED)
    for heading, rows in (
        ("assumed or measured", _assumptions(plan)),
        ("work", _rounds(plan)),
        ("disk", _disk(plan, path)),
    ):
        table = Table(box=None, pad_edge=False, show_header=False)
        for _ in range(4):
            table.add_column()
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(Text(heading, "bold"))
        console.print(table, highlight=False)
        console.print()
    for line in _remarks(plan):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _corpus(home: Home | None, preset: Preset) -> Corpus | None:
    if home is None:
        return None
    try:
        return open_corpus(home, preset.corpus.name)
    except InputError:
        return None


def _sizes(preset: Preset) -> tuple[Mapping[str, Any], str]:
    """The base model's configuration as a mapping, and where it was found."""
    folder = folder_at_hand(preset.policy)
    if folder is not None and (folder / CONFIG_FILE).is_file():
        config = load_config(folder, remote_code=preset.policy.remote_code)
        return config.to_dict(), f"{preset.policy.base}, its config.json"
    if preset.policy.shape is not None:
        return preset.policy.shape, f"{preset.policy.base}, by policy.shape of the preset"
    raise ConfigError(
        f"the sizes of {preset.policy.base} (policy.base) are not known: it is not on this machine.",
        hint="Fetch it, give a folder, or write its sizes into policy.shape.",
    )


def _yield(home: Home | None, preset: Preset, build: BuildConfig, chunk: int | None, corpus: Corpus | None) -> Yield:
    """Measured in the campaign's last round where it has one of this recipe, else assumed."""
    plan = preset.plan
    counts = corpus.manifest.get("counts", {}) if corpus is not None else {}
    if counts.get("chunks"):
        plan = plan.model_copy(update={"chunk_tokens": counts["chunk_tokens"] / counts["chunks"]})
    assumed = assumed_yield(build, plan, chunk)
    if home is None or preset.campaign.name not in list_campaigns(home):
        return assumed
    for record in reversed(load_campaign(home, preset.campaign.name).rounds):
        manifest = load_manifest(home, record.version)
        if manifest.recipe == build.recipe:
            return measured_yield(manifest, assumed, f"round {record.round}, version {short(record.version)}")
    return assumed


def _training(preset: Preset, sizes: Mapping[str, Any]) -> TrainingPlan:
    config = preset.training
    stored = str(sizes.get("dtype") or sizes.get("torch_dtype") or "float32").removeprefix("torch.")
    saved = stored if config.save_dtype == "parent" else config.save_dtype
    return TrainingPlan(
        batch=config.batch * config.accumulation,
        epochs=config.epochs,
        max_steps=config.max_steps,
        recomputed=config.gradient_checkpointing,
        weight_bytes=_WEIGHT_BYTES.get(saved, 4),
    )


def _extra(preset: Preset) -> int:
    """Tokens of the separator and a BOS, by the tokenizer where it is at hand."""
    folder = folder_at_hand(preset.policy)
    if folder is None or not tokenizer_files(folder):
        return SEPARATOR_AND_BOS
    tokenizer = load_tokenizer(folder, remote_code=preset.policy.remote_code)
    return len(bos_ids(tokenizer)) + len(separator_ids(tokenizer, preset.build.verification.separator))


_BUDGET = "build.verification: quota, passes_per_root, floor"
Row = tuple[str, str, str, str]


def _assumptions(plan: CampaignPlan) -> list[Row]:
    given, shape, config = plan.given, plan.shape, plan.preset.plan
    rows = [("base model", f"{_short(shape.parameters)} parameters", "", plan.shape_from)]
    if plan.screens:
        cap = plan.build.roots.root_tokens * config.root_fill / (1 + plan.build.entropy.alpha**2)
        capped = " (Cantelli's bound)" if given.is_assumed and given.positions == cap else ""
        rows += [
            ("positions a root", f"{given.positions:,.1f}", given.source + capped, "plan.positions_per_root"),
            ("candidates a position", f"{given.candidates:,.1f}", given.source, "build.retrieval.top_k"),
            ("positives a root", f"{given.positives:,.1f}", given.source, "plan.positives_per_root"),
            ("  of the verified pairs", f"{100 * given.kept_share:.2f} %", "follows", ""),
            ("tokens a root", f"{given.root_tokens:,.0f}", "assumed", "build.roots.root_tokens x plan.root_fill"),
            ("tokens a chunk", f"{given.chunk_tokens:,.0f}", _chunk_source(plan), "plan.chunk_tokens"),
            ("different passes a pair", f"{given.distinct_share:.2f}", "assumed", "plan.distinct_share"),
            ("placed of what roots bring", f"{given.placed_share:.2f}", "assumed", "plan.placed_share"),
        ]
        if plan.build.verification.ordered:
            share, kept = verified_share(plan.build, given), within_budget(plan.build, given).positives
            within = "positives lie evenly: assumed" if given.is_assumed else "measured within it"
            rows.append(("verified of a train root's passes", f"{100 * share:.1f} %", within, _BUDGET))
            rows.append(("positives a train root, of these", f"{kept:,.1f}", within, ""))
    speed = f"{config.peak_tflops:g} TFLOP/s x {config.utilisation:g}"
    return [*rows, ("speed", speed, "assumed", "plan.peak_tflops x plan.utilisation")]


def _chunk_source(plan: CampaignPlan) -> str:
    measured = plan.corpus is not None and plan.corpus.manifest.get("counts", {}).get("chunks")
    return "measured in the corpus" if measured else "assumed"


def _rounds(plan: CampaignPlan) -> list[Row]:
    one, rounds = plan.round, plan.build.rounds
    clock = Hours(plan.preset.plan.peak_tflops, plan.preset.plan.utilisation)
    unit = "hours" if plan.build.numeric.device == "cpu" else "GPU-hours"

    def counted(name: str, value: float, note: str = "") -> Row:
        return (name, _short(value), _short(value * rounds), note)

    def flops(name: str, value: float) -> list[Row]:
        hours = clock.of(value)
        return [
            (f"{name}, FLOPs", f"{value:.2e}", f"{value * rounds:.2e}", ""),
            (f"{name}, {unit}", _hours(hours), _hours(hours * rounds), ""),
        ]

    rows: list[Row] = [("", "a round", f"all {rounds}", "")]
    rows += [counted("samples", one.samples), counted("tokens of samples", one.tokens)]
    if plan.screens:
        probe, work, literal = plan.build.roots.probe_roots, one.screening.total, one.screening.literal
        rows += [
            counted("roots screened", one.roots + probe, f"{probe} probe roots in each round"),
            counted("roots needed", one.roots_needed, "different ones: rounds are disjoint"),
            counted("positions", one.screening.positions),
            counted("candidates verified", one.screening.pairs, "pairs of position and candidate"),
            counted("positives", one.positives, "different chunks of a root"),
            counted("chunks in samples", one.contexts),
            ("chunks needed", _short(one.chunks_needed), "", "different ones, each used as often as it may"),
            counted("forward passes", work.passes, "entropy, different pairs of root and chunk, placebo, negatives"),
            counted("forward tokens", work.tokens),
            *flops("screening", one.screening_flops),
            counted("literal forward passes", literal.passes, "as written: one per position and candidate"),
            counted("literal forward tokens", literal.tokens),
            *flops("literal screening", one.literal_flops),
        ]
    else:
        rows.append(counted("document tokens needed", one.tokens, "nobody screens; each document is used once"))
    rows += [
        counted("training steps", one.training_steps, "" if plan.preset.campaign.train else "trained elsewhere"),
        counted("training tokens", one.training_tokens),
        *flops("training", one.training_flops),
    ]
    if plan.screens and one.training_flops:
        ratio, literal_ratio = (flops / one.training_flops for flops in (one.screening_flops, one.literal_flops))
        rows.append(("screening / training", f"{ratio:.2f}", "", f"literal {literal_ratio:.2f}"))
    return rows


def _disk(plan: CampaignPlan, path: Path) -> list[Row]:
    one, rounds = plan.round, plan.build.rounds
    rows: list[Row] = [("", "a round", f"all {rounds}", "")]
    rows += [(kind, _bytes(size), _bytes(size * rounds), "") for kind, size in one.disk.items()]
    chunks = plan.corpus.chunks.rows if plan.corpus is not None else one.chunks_needed
    vectors = vector_bytes(chunks, plan.preset.plan.vector_dimension)
    whose = "of the corpus" if plan.corpus is not None else "are needed, a corpus has more"
    rows.append(("vectors", "", _bytes(vectors), f"tables and index; {_short(chunks)} chunks {whose}"))
    training = one.disk_while_training if plan.preset.campaign.train else 0
    rows.append(("while it trains", _bytes(training), "", "two checkpoints and the one being written"))
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    needed, free = sum(one.disk.values()) * rounds + vectors + training, shutil.disk_usage(place).free
    rows.append(("together", "", _bytes(needed), f"{_bytes(free)} free{'' if free > needed else ': not enough'}"))
    return rows


def _remarks(plan: CampaignPlan) -> list[str]:
    one, lines = plan.round, []
    if plan.screens and one.wanted is not None and one.samples < one.wanted:
        lines.append(
            f"A round of {one.roots:,} roots (build.roots.roots_per_round) gives about {one.samples:,} samples,"
            f" the budget asks for {one.wanted:,}: about {one.roots_needed:,} roots are needed."
        )
    if plan.build.tokens is None:
        what = "its roots give" if plan.screens else "its documents give, which is not planned here"
        lines.append(f"No budget (build.tokens): a round has as many samples as {what}.")
    if plan.screens and plan.build.verification.floor is not None and plan.given.is_assumed:
        lines.append(
            "What build.verification.floor leaves out is not known before a round: screening is an upper bound."
        )
    lines += [f"Not checked: {what}." for what in plan.unchecked]
    formulas = "tasks/planning/plan.py, tasks/measurements/costs.py"
    lines.append(f"Left out: the embedder, the search, and evaluation. Formulas: {formulas}.")
    return lines


def _short(value: float) -> str:
    """A count that people can read: 12,345, then 1.23 million and so on."""
    if abs(value) < 1e6:
        return f"{value:,.0f}"
    power = min(4, int(math.log10(abs(value)) // 3))
    return f"{value / 1000**power:.2f} {('', '', 'million', 'billion', 'trillion')[power]}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 0.1 else f"{hours:.2g}"


def _bytes(size: float) -> str:
    power = min(4, int(math.log(max(size, 1), 1024)))
    return f"{size / 1024**power:,.1f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
