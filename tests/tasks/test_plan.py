"""The plan's arithmetic, worked by hand, and against rounds that were really made."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.cli import main
from flows.plan import campaign_plan
from flows.presets import load_preset, preset_names
from models.policy import load_config
from storage.errors import ConfigError
from storage.home import Home
from tasks.measurements.model_shape import ModelShape, model_shape
from tasks.planning.plan import Hours, RoundPlan, TrainingPlan, plan_round, vector_bytes
from tasks.planning.yields import PlanConfig, Yield, assumed_yield, measured_yield, within_budget
from tasks.rounds.building import BuildConfig
from tasks.samples.assembly import AssemblyConfig
from tasks.screening.entropy import EntropyConfig
from tasks.screening.negative_verification import NegativeVerificationConfig
from tasks.screening.negatives import NegativesConfig
from tasks.screening.retrieval import RetrievalConfig
from tasks.screening.roots import RootsConfig
from tasks.screening.verification import VerificationConfig
from tests.rounds import build_round, build_rounds
from tests.tiny_policies import tiny_policy

SHAPE = ModelShape(layers=2, width=8, body=1_000, head=500, embeddings=500)
TRAINING = TrainingPlan(batch=4, epochs=2.0, max_steps=None, recomputed=False, weight_bytes=4)
GIVEN = Yield(
    positions=4, candidates=8, positives=5, chunk_tokens=18, root_tokens=60, distinct_share=0.5, placed_share=1.0,
    source="assumed",
)  # fmt: skip
BUILD = BuildConfig(
    rounds=2,
    tokens=10_240,
    screening_tokens=96,
    roots=RootsConfig(root_tokens=60, min_tokens=10, roots_per_round=100, probe_roots=20),
    retrieval=RetrievalConfig(top_k=8, overfetch=2.0),
    verification=VerificationConfig(placebo_fraction=0.25),
    negatives=NegativesConfig(negatives_per_positive=1, depth=4),
    assembly=AssemblyConfig(target_tokens=1_024, reuse_cap=2),
)


def test_a_round_by_hand() -> None:
    plan = plan_round(BUILD, GIVEN, SHAPE, TRAINING, screens=True, extra=2)
    # A root brings 60 + 2 and five positives with a negative each, 18 + 2: 262 tokens. 10 samples need 10 x 1024 / 262.
    assert (plan.samples, plan.tokens, plan.wanted, plan.roots, plan.roots_needed) == (10, 10_240, 10, 100, 40)
    # Of the 10,240 tokens, roots take 62 / 262; a chunk takes 20.
    assert plan.contexts == round(10_240 * (1 - 62 / 262) / 20)
    assert plan.chunks_needed == math.ceil(plan.contexts / 2)
    screening = plan.screening
    assert (screening.positions, screening.pairs) == (480, 3_840)
    assert (screening.entropy.passes, screening.entropy.tokens) == (120, 7_200)
    # Half of the pairs are different; two positions share a pass, whose last one stands at 2/3 of 60 tokens on average.
    assert (screening.verification.passes, screening.verification.tokens) == (1_920, 1_920 * (20 + 40))
    assert (screening.placebo.passes, screening.placebo.tokens) == (480, 480 * 60)
    assert (screening.literal.passes, screening.literal.tokens) == (120 + 3_840, 7_200 + 3_840 * (20 + 30))
    # 2 FLOPs a weight and token, the head where something is predicted, 4 x layers x width a causal pair.
    entropy = 120 * (2 * 1_000 * 60 + 2 * 500 * 60 + 64 * 60 * 61 / 2)
    verification = 1_920 * (2 * 1_000 * 60 + 64 * 60 * 61 / 2) + 3_840 * 2 * 500
    assert plan.screening_flops == pytest.approx(entropy + 1.25 * verification)
    literal = entropy + 3_840 * (2 * 1_000 * 50 + 2 * 500 + 64 * 50 * 51 / 2)
    assert plan.literal_flops == pytest.approx(literal)
    assert (plan.training_steps, plan.training_tokens) == (6, 20_480)
    assert plan.training_flops == pytest.approx(3 * 20 * 1_024 * (2 * 1_500 + 64 * 1_025 / 2))
    assert plan.disk == {
        "tables": 480 * 150 + 7_680 * 10 + 3_840 * 22 + 100 * 5 * 4 * 20,
        "samples": 20_480,
        "policy": 8_000,
    }
    assert plan.disk_while_training == 3 * 12 * 2_000


def test_a_budget_of_verification_by_hand() -> None:
    def planned(**budget: Any) -> RoundPlan:
        build = BUILD.model_copy(
            update={"roots_per_shard": 10, "verification": VerificationConfig(placebo_fraction=0.25, **budget)}
        )
        return plan_round(build, GIVEN, SHAPE, TRAINING, screens=True, extra=2)

    whole = planned()
    # A root has 4 x 8 / 2 = 16 passes, 12 of which it may make; the 20 roots of the probe set make all.
    capped = planned(ordering="rank", passes_per_root=12)
    assert capped.screening.verification.passes == 100 * 12 + 20 * 16
    assert (capped.positives, capped.screening.pairs) == (round(100 * 5 * 12 / 16), 100 * 24 + 20 * 32)
    assert capped.roots_needed > whole.roots_needed
    assert (capped.screening.found, capped.literal_flops) == (whole.screening.pairs, whole.literal_flops)
    assert whole.screening.found == whole.screening.pairs
    assert capped.screening_flops < whole.screening_flops
    # Two of five positives lie in 6.4 of the 16 passes: two waves of four.
    assert planned(ordering="rank", quota=2, wave=4).screening.verification.passes == 100 * 8 + 20 * 16
    # Two of the ten shards are verified whole: the eighth part of them, rounded up.
    learned = planned(ordering="expected-yield", passes_per_root=12)
    assert learned.screening.verification.passes == 20 * 16 + 80 * 12 + 20 * 16
    assert planned(ordering="expected-yield", floor=0.5).screening == whole.screening, "an upper bound"
    assert planned(ordering="rank", quota=500, passes_per_root=99).screening == whole.screening
    measured = dataclasses.replace(GIVEN, source="measured in round 1")
    assert (
        within_budget(BUILD.model_copy(update={"verification": VerificationConfig(ordering="rank", quota=1)}), measured)
        == measured
    )


def test_a_dry_run_tells_what_a_budget_leaves(home_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--home", str(home_path), "run", "--dry-run", "--set", "build.verification.ordering=expected-yield"]
    assert main([*words, "--set", "build.verification.floor=0.1"]) == 0
    shown = capsys.readouterr().out
    assert "verified of a train root's passes" in shown
    assert "screening is an upper bound" in shown


def test_verified_negatives_are_read_before_a_root_up_to_its_last_position() -> None:
    checked = NegativeVerificationConfig(enabled=True, spares=2)
    plan = plan_round(
        BUILD.model_copy(update={"negative_verification": checked}), GIVEN, SHAPE, TRAINING, screens=True, extra=2
    )
    # 100 roots with five positives, one negative and two spares each; the last of four positions stands at 4/5 of 60.
    work = plan.screening.negatives
    assert (work.passes, work.tokens, work.predictions) == (1_500, 1_500 * (20 + 48), 6_000)


def test_too_few_roots_give_fewer_samples() -> None:
    few = BUILD.model_copy(update={"roots": BUILD.roots.model_copy(update={"roots_per_round": 30})})
    plan = plan_round(few, GIVEN, SHAPE, TRAINING, screens=True, extra=2)
    assert (plan.samples, plan.wanted, plan.roots_needed) == (7, 10, 40)


def test_a_root_that_brings_more_than_a_sample_fills_one() -> None:
    rich = BUILD.model_copy(update={"tokens": None})
    given_much = Yield(40, 8, 200, 18, 60, 0.5, 1.0, "assumed")
    plan = plan_round(rich, given_much, SHAPE, TRAINING, screens=True, extra=2)
    assert (plan.samples, plan.roots_needed) == (100, 100)


def test_a_recipe_that_screens_nothing_only_trains() -> None:
    plan = plan_round(BUILD, GIVEN, SHAPE, TRAINING, screens=False, extra=2)
    assert (plan.samples, plan.roots_needed, plan.screening_flops, plan.disk["tables"]) == (10, 0, 0.0, 0)
    assert plan.training_tokens == 20_480


@given(
    st.floats(0.5, 3),
    st.integers(64, 4_096),
    st.floats(1, 2_000),
    st.floats(1, 500),
    st.floats(0.05, 1),
)
def test_what_is_assumed_stays_within_what_is_possible(
    alpha: float, root: int, positions: float, positives: float, distinct: float
) -> None:
    build = BuildConfig(entropy=EntropyConfig(alpha=alpha), roots=RootsConfig(root_tokens=root, min_tokens=32))
    plan = PlanConfig(positions_per_root=positions, positives_per_root=positives, distinct_share=distinct)
    found = assumed_yield(build, plan, 100)
    assert found.positions <= found.root_tokens / (1 + alpha**2) + 1e-9  # Cantelli
    assert found.positives <= found.pairs * distinct + 1e-9
    assert found.chunk_tokens <= 100
    assert found.source == "assumed"


def test_a_measured_round_takes_the_place_of_what_is_assumed(home: Home) -> None:
    manifest = build_round(home).manifest
    found = measured_yield(manifest, GIVEN, "round 1")
    roots, positions = manifest.funnel["roots"], manifest.funnel["positions"]
    assert (found.positions, found.positives) == (positions / roots, manifest.funnel["positives"] / roots)
    assert found.candidates * positions == manifest.funnel["verdicts"]
    assert found.source == "measured in round 1"


def test_hours_and_vectors() -> None:
    assert Hours(1_000, 0.5).of(1.8e18) == pytest.approx(1.0)
    assert vector_bytes(1_000, 384) == 1_000 * 384 * 8


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_has_a_plan_without_weights_and_fills_its_budget(name: str, home_path: Path) -> None:
    preset = load_preset(name)
    plan = campaign_plan(home_path, preset)
    assert plan.round.samples > 0
    assert plan.round.wanted in (None, plan.round.samples)
    assert not home_path.exists()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("paper-qwen2.5-3b-128k", 3.09e9), ("entropylong-llama3-8b-128k", 8.03e9), ("single-gpu", 70.4e6)],
)
def test_the_shapes_in_the_presets_have_the_published_sizes(name: str, parameters: float) -> None:
    shape = load_preset(name).policy.shape
    assert shape is not None
    assert model_shape(shape).parameters == pytest.approx(parameters, rel=0.003)


def test_the_published_settings_are_those_of_the_papers() -> None:
    policylong, entropylong = load_preset("paper-qwen2.5-3b-128k"), load_preset("entropylong-llama3-8b-128k")
    for preset in (policylong, entropylong):
        build, training = preset.build, preset.training
        assert (build.entropy.alpha, build.retrieval.top_k, build.verification.epsilon) == (2.0, 32, 0.4)
        assert (build.entropy.query_radius, build.assembly.target_tokens) == (16, 131_072)
        assert (training.learning_rate, training.warmup, training.weight_decay, training.clip) == (4e-5, 0.2, 0.1, 1.0)
        assert (training.beta1, training.beta2, training.batch * training.accumulation) == (0.9, 0.95, 32)
        assert training.extension.context == 131_072
        assert preset.corpus.embedder.model == "jinaai/jina-embeddings-v3"
        assert preset.corpus.embedder.remote_code is preset.policy.remote_code is training.remote_code is False
    assert (policylong.build.rounds, policylong.build.tokens) == (4, 10**9)
    assert (entropylong.build.rounds, entropylong.build.tokens) == (1, 4 * 10**9)
    assert entropylong.training.extension.rope_theta == 2e8
    assert (policylong.policy.base, entropylong.policy.base) == ("Qwen/Qwen2.5-3B", "meta-llama/Meta-Llama-3-8B")


def test_the_plan_of_the_quickstart_is_near_its_measured_run() -> None:
    """README: 14 samples a round, 55 to 70 s of screening and 18 to 20 s of training on 2 cores."""
    preset = load_preset("quickstart")
    plan = campaign_plan(Path("nowhere"), preset).round
    seconds = 3600 * Hours(preset.plan.peak_tflops, preset.plan.utilisation).of(plan.screening_flops)
    assert plan.samples == pytest.approx(14, abs=3)
    assert 40 < seconds < 100


def test_a_dry_run_prints_the_plan_and_makes_nothing(home_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--home", str(home_path), "run", "--preset", "paper-qwen2.5-3b-128k", "--dry-run", "--utilisation", "0.25"]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for told in (
        "989 TFLOP/s x 0.25", "plan.positives_per_root", "assumed", "roots needed", "literal screening, GPU-hours",
        "training, FLOPs", "vectors", "Not checked: separator and vocabulary: the tokenizer of Qwen/Qwen2.5-3B",
    ):  # fmt: skip
        assert told in shown.out
    assert not home_path.exists()


def test_a_dry_run_reads_a_folder_and_names_what_does_not_fit(
    home_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_policy(tmp_path / "base", max_position_embeddings=512)
    plan = campaign_plan(home_path, load_preset("quickstart", [f"policy.base={folder}"]))
    assert plan.shape == model_shape(load_config(folder).to_dict())
    assert not any("separator" in line for line in plan.unchecked)
    words = ["--home", str(home_path), "run", "--dry-run", "--set", "build.screening_tokens=1024"]
    assert main(words) == 2
    assert "screening context of 1024 tokens (build.screening_tokens)" in capsys.readouterr().err


def test_a_base_model_of_unknown_size_is_one_line(home_path: Path) -> None:
    preset = load_preset("single-gpu", ["policy.shape=null"])
    with pytest.raises(ConfigError, match=r"sizes of EleutherAI/pythia-70m \(policy.base\) are not known") as refused:
        campaign_plan(home_path, preset)
    assert "policy.shape" in refused.value.hint
    missing = load_preset("single-gpu", ["policy.shape={model_type: llama, hidden_size: 8}"])
    with pytest.raises(ConfigError, match="has no num_hidden_layers"):
        campaign_plan(home_path, missing)


def test_a_campaign_that_has_rounds_is_planned_by_them(home: Home) -> None:
    build_rounds(home, 1)
    plan = campaign_plan(home.path, load_preset("quickstart", ["campaign.name=world"]))
    assert plan.given.source.startswith("measured in round 1")
    assert plan.given.positions == 2.0
