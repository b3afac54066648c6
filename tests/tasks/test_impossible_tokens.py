"""Tokens that a policy can't produce (masked, of infinite likelihood): figures stay numbers, and say how many."""

from __future__ import annotations

import json
import math

import polars as pl
import pytest

from storage.home import Home
from storage.manifests import Manifest
from tasks.audit.checks import audit_version
from tasks.measurements import context_gain as measured
from tasks.provenance.traces import Trace
from tasks.provenance.tracing import trace
from tasks.reporting.writing import write_round
from tasks.rounds.figures import verdict_figures
from tests.reported_page import read_page
from tests.rounds import BuiltRound, build_round, build_rounds
from tests.world_by_hand import Shards


def masked(tables: Shards) -> None:
    """The first verdict of every root: the token has no probability before, of the first root neither after."""
    seen = set()
    infinite = set()
    for shard in tables["verdicts"]:
        for row in shard:
            if row["root"] not in seen:
                seen.add(row["root"])
                infinite.add((row["root"], row["t"]))
                row["nll_after"] = math.inf if len(seen) == 1 else row["nll_after"]
            if (row["root"], row["t"]) in infinite:
                row["nll_before"] = math.inf
    for shard in tables["positions"]:
        for row in shard:
            row["nll"] = math.inf if (row["root"], row["t"]) in infinite else row["nll"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltRound:
    return build_rounds(Home.open(tmp_path_factory.mktemp("masked") / "home"), 1, change=masked)[0]


def verdicts(built: BuiltRound) -> pl.DataFrame:
    return pl.DataFrame([row for shard in built.tables["verdicts"] for row in shard])


def test_figures_leave_them_out_of_the_likelihoods_and_count_them(built: BuiltRound, home: Home) -> None:
    rows = verdicts(built)
    kept = [row for row in rows.to_dicts() if row["kept"]]
    finite = [r["nll_after"] - r["nll_before"] for r in kept if math.isfinite(r["nll_after"] - r["nll_before"])]
    found = verdict_figures(rows, 0.4)
    assert found["mean_nll_change"] == pytest.approx(sum(finite) / len(finite))
    assert found["nll_infinite"] == len(kept) - len(finite) > 0
    assert found["mean_gain"] == pytest.approx(sum(row["gain"] for row in kept) / len(kept))
    assert all(map(math.isfinite, found.values()))
    none = rows.with_columns(nll_after=pl.lit(math.inf))
    assert "mean_nll_change" not in verdict_figures(none, 0.4)
    again = build_round(home, manifest_changes={"figures": found}).manifest
    assert Manifest.model_validate_json(again.canonical).figures == found


def test_without_them_nothing_is_said() -> None:
    row = {"kept": True, "gain": 0.5, "literal": False, "placebo_gain": None}
    row |= {"entropy_before": 2.0, "entropy_after": 1.0, "nll_before": 3.0, "nll_after": 2.0}
    found = verdict_figures(pl.DataFrame([row], schema_overrides={"placebo_gain": pl.Float32}), 0.4)
    assert found["mean_nll_change"] == -1.0
    assert "nll_infinite" not in found


def test_the_audit_passes_and_page_and_trace_show_them(built: BuiltRound) -> None:
    assert not audit_version(built.home, built.version).failures
    page = read_page(write_round(built.home, "1"))
    kept = [row for row in verdicts(built).to_dicts() if row["kept"]]
    finite = [row for row in kept if math.isfinite(row["nll_before"]) and math.isfinite(row["nll_after"])]
    told = dict(page.column("What tempers these numbers", "Pairs"))
    name = "kept pairs whose token the model can't produce (left out of the likelihoods)"
    assert told[name] == str(len(kept) - len(finite))
    mean = sum(row["nll_after"] for row in finite) / len(finite)
    shown = page.column("Kept pairs, means before and after", "With it in front")
    assert shown["Negative log-likelihood, nats"] == f"{mean:.2f}"
    assert "inf" not in page.text.split()
    (sample,) = built.tables["samples"][0]
    position = sample["dependencies"][0]["position"]
    found = trace(built.home, "1", "0", str(position))
    text = found.model_dump_json()
    (asked,) = json.loads(text)["pieces"][0]["root"]["positions"]
    assert asked["nll"] == "Infinity"
    assert Trace.model_validate_json(text) == found


def test_a_window_with_such_a_token_is_left_out_of_the_context_gain() -> None:
    config = measured.ContextGainConfig()
    whole = measured.ContextGain(
        policy="p" * 64, corpus="c" * 64, gain=None, standard_error=None, loss_long=None, loss_short=None,
        windows=4, groups=2, tokens=4 * config.targets, native_context=64, note="stretched",
    )  # fmt: skip
    found = measured.of_losses(whole, ([1.0, math.inf, 2.0, 3.0], [2.0, 3.0, math.inf, 5.0]), config)
    assert (found.gain, found.loss_long, found.loss_short) == (1.5, 2.0, 3.5)
    assert (found.windows, found.tokens) == (2, 2 * config.targets)
    assert found.note == "stretched; 2 windows left out: the policy gives one of their tokens no probability"
    nothing = measured.of_losses(whole, ([math.inf] * 4, [1.0] * 4), config)
    assert (nothing.gain, nothing.windows) == (None, 0)
    assert measured.of_losses(whole, ([1.0] * 4, [2.0] * 4), config).note == "stretched"
