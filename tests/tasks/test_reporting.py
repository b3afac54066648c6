"""The report of a round: its numbers against a plain count of the rows that were published, its form against the rules
of a page that anybody can read."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from pathlib import Path

import pytest

from storage.campaigns import load_campaign, record_round
from storage.home import Home
from tasks.reporting.writing import campaign_path, named, round_path, up_to_date, write_campaign, write_round
from tests.reported_page import ReportedPage, read_page
from tests.rounds import BuiltRound, build_round, build_rounds, version_folder
from tests.world_by_hand import Row, Shards

HOSTILE = '<script>alert(1)</script> & "quoted" \x1b[31m \u202eright to left\u2066 {{ 7 * 7 }} </blockquote>'


def other_numbers(tables: Shards) -> None:
    """Entropies, gains and distances that fall into several bins; a pair refused, a position gone, a copy, a doubt."""
    for shard in tables["positions"]:
        for row in shard:
            row["entropy"] = 3.0 + 0.25 * row["t"] + 0.1 * row["root"]
    tables["positions"][0] = [row for row in tables["positions"][0] if (row["root"], row["t"]) != (0, 11)]
    for shard in tables["verdicts"]:
        for row in shard:
            row.update(gain=row["gain"] - 0.01 * row["t"], literal=row["root"] == 3, nll_after=2.4 + 0.05 * row["root"])
    tables["verdicts"][0][0].update(kept=False, reason="gain-too-small")
    tables["screened"][1][0]["threshold"] = 2.5
    for dependency, distance in zip(tables["samples"][0][0]["dependencies"], (5, 900, 127, 128), strict=True):
        dependency["distance"] = distance


def hostile(rows: list[Row], *fields: str) -> list[Row]:
    return [row | {name: f"{row[name]} {HOSTILE}" for name in fields} for row in rows]


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> list[BuiltRound]:
    with pytest.MonkeyPatch.context() as patch:
        import tests.rounds as made

        passages, documents = hostile(made.chunks(), "text"), hostile(made.documents(), "title", "source")
        patch.setattr(made, "chunks", lambda: passages)
        patch.setattr(made, "documents", lambda: documents)
        return build_rounds(Home.open(tmp_path_factory.mktemp("rounds") / "home"), 2, change=other_numbers)


@pytest.fixture(scope="module")
def page(rounds: list[BuiltRound]) -> ReportedPage:
    return read_page(write_round(rounds[1].home, "2"))


def rows(built: BuiltRound, table: str) -> list[Row]:
    return [row for shard in built.tables[table] for row in shard]


def counted(values: list[float], width: float, low: float = 0.0) -> dict[str, str]:
    """A histogram, value by value."""
    bins = Counter(math.floor((value - low) / width + 1e-5) for value in values)
    edges = ((low + number * width, low + (number + 1) * width, bins[number]) for number in sorted(bins))
    return {f"{a:.2f} to {b:.2f}".replace("-", "−"): str(n) for a, b, n in edges}


def some(cells: dict[str, str]) -> dict[str, str]:
    return {name: cell for name, cell in cells.items() if cell != "0"}


def test_funnel_and_tokens_are_a_plain_count(rounds: list[BuiltRound], page: ReportedPage) -> None:
    built = rounds[1]
    verdicts = rows(built, "verdicts")
    told = page.column("From roots to samples", "Count")
    assert list(told.values())[:5] == [
        str(len(rows(built, "screened"))),
        str(len(rows(built, "positions"))),
        str(len(rows(built, "candidates"))),
        str(sum(row["excluded"] is not None for row in rows(built, "candidates"))),
        str(len(verdicts)),
    ]
    assert told["pairs whose gain passed epsilon"] == str(sum(row["kept"] for row in verdicts))
    assert told["training samples"] == "1"
    (sample,) = rows(built, "samples")
    roots = sum(s["end"] - s["start"] for s in sample["segments"] if s["kind"] == "root")
    assert page.column("Tokens of the samples", "Tokens")["in roots"] == str(roots)


def test_distributions_are_a_plain_count(rounds: list[BuiltRound], page: ReportedPage) -> None:
    built = rounds[1]
    verdicts = rows(built, "verdicts")
    entropies = [row["entropy"] for row in rows(built, "positions")]
    assert some(page.column("Entropies, counted", "Uncertain tokens")) == counted(entropies, 0.25)
    thresholds = [row["threshold"] for row in rows(built, "screened")]
    assert page.column("Thresholds, counted", "Roots") == counted(thresholds, 0.25)
    gains = [row["gain"] for row in verdicts]
    assert some(page.column("Gains, counted", "Retrieved")) == counted(gains, 0.05, -1.0)
    placebos = [row["placebo_gain"] for row in verdicts if row["placebo_gain"] is not None]
    assert some(page.column("Gains, counted", "Random")) == counted(placebos, 0.05, -1.0)


def test_what_was_gained_and_what_tempers_it(rounds: list[BuiltRound], page: ReportedPage) -> None:
    verdicts = rows(rounds[1], "verdicts")
    kept = [row for row in verdicts if row["kept"]]
    mean = sum(row["gain"] for row in kept) / len(kept)
    after = sum(row["entropy_after"] for row in kept) / len(kept)
    assert f"on average by {100 * mean:.1f} %, from 3.00 to {after:.2f} nats" in page.text
    assert (
        f"a choice among about {math.exp(3):.0f} equally likely tokens to one among {math.exp(after):.1f}" in page.text
    )
    told = page.column("What tempers", "Pairs")
    assert list(told.values()) == [
        str(sum(row["literal"] for row in kept)),
        str(sum(row["nll_after"] > row["nll_before"] for row in kept)),
        str(sum((row["placebo_gain"] or 0) > 0.4 for row in verdicts)),
    ]
    before = sum(row["nll_before"] for row in kept) / len(kept), sum(row["nll_after"] for row in kept) / len(kept)
    assert page.table("Kept pairs, means")[2][1:] == [f"{before[0]:.2f}", f"{before[1]:.2f}"]


def test_gain_by_distance(rounds: list[BuiltRound], page: ReportedPage) -> None:
    told = page.table("Dependencies by distance")[1:]
    (sample,) = rows(rounds[1], "samples")
    gains = {d["distance"]: d["gain"] for d in sample["dependencies"]}
    near, middle, far = (gains[5] + gains[127]) / 2, gains[128], gains[900]
    assert [[*row[:2], row[3]] for row in told] == [
        ["under 128", "2", f"{near:.3f}"],
        ["128 to 255", "1", f"{middle:.3f}"],
        ["512 to 1,023", "1", f"{far:.3f}"],
    ]


def test_who_asked_and_what_changed(rounds: list[BuiltRound], page: ReportedPage) -> None:
    one, two = rounds
    line = page.table("The line of policies")
    assert [row[3] for row in line[1:]] == [two.manifest.policy, one.manifest.policy]
    assert [row[2] for row in line[1:]] == ["round 1", "base model"]
    assert "the model as it was after training on round 1" in page.text
    assert "It is the very model that is trained on this round next" in page.text
    overlap = page.column("The probe set in both", "Stayed") | {"went": page.table("The probe set in both")[2][5]}
    assert (overlap["roots"], overlap["uncertain tokens"], overlap["went"]) == ("1", "1", "1")
    assert "1 stayed, 0 came and 1 went (50.0 % of all are common to both)" in page.text
    assert "Nothing is recorded of a training on this round" in page.text
    first = read_page(write_round(one.home, "1"))
    assert "This is the first round" in first.text
    assert "the base model, before any training" in first.text


def test_corpus_text_is_text(rounds: list[BuiltRound], page: ReportedPage) -> None:
    source = round_path(rounds[1].home, rounds[1].version).read_text()
    assert "<script" not in source
    assert "\x1b" not in source
    assert "\u202e" not in source
    shown = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e").replace("\u2066", "\\u2066")
    assert any(shown in quote for quote in page.quotes), "a passage, as a reader sees it"
    assert sum(f"document 2 {shown}" in part for part in page.text.split("The root.")), "a title"


def test_examples_show_the_token_the_passage_and_a_hard_negative(rounds: list[BuiltRound], page: ReportedPage) -> None:
    built = rounds[1]
    tokens = [words for tag, words in page.marks if tag == "mark"]
    ids = rows(built, "roots")[3]["input_ids"], rows(built, "roots")[4]["input_ids"]
    assert tokens
    assert set(tokens) <= {f"⟦w{i[t] - 1}⟧" for i in ids for t in (5, 11)}
    assert page.text.count("The passage that helped.") == len(tokens)
    assert page.text.count("A hard negative:") == 1
    (sample,) = rows(built, "samples")
    places = [f"policylong trace {built.version[:12]} 0:{d['position']}" for d in sample["dependencies"]]
    assert sum(place in page.text for place in places) == len(tokens)


def test_the_same_round_has_the_same_page_and_reports_leave_versions_alone(rounds: list[BuiltRound]) -> None:
    home = rounds[0].home
    before = {p: p.stat().st_mtime_ns for p in version_folder(rounds[1]).rglob("*")}
    first = write_round(home, "2").read_bytes()
    assert write_round(home, rounds[1].version[:10]).read_bytes() == first
    assert {p: p.stat().st_mtime_ns for p in version_folder(rounds[1]).rglob("*")} == before


def test_a_campaign_sets_its_rounds_side_by_side_and_knows_when_its_pages_are_old(rounds: list[BuiltRound]) -> None:
    home = rounds[0].home
    whole, *pages = write_campaign(home, "world")
    found = read_page(whole)
    assert whole == campaign_path(home, "world")
    assert [link for link in found.links if link[0] != "#"] == [f"{b.version[:16]}/report.html" for b in rounds]
    assert all((whole.parent / link).is_file() for link in found.links if link[0] != "#")
    assert any(link == "../campaign-world.html" for link in read_page(pages[0]).links)
    verified = found.column("Verified pairs by round", "Verified")
    assert verified == {f"Round {n + 1}": str(len(rows(b, "verdicts"))) for n, b in enumerate(rounds)}
    campaign = load_campaign(home, "world")
    assert up_to_date(home, campaign)
    figures = {
        "context_gain_before": -0.5,
        "context_gain_after": 0.25,
        "training_seconds": 12.5,
        "benchmark_needle": 0.75,
    }
    record_round(home, "world", campaign.rounds[1].model_copy(update={"figures": figures}))
    assert not up_to_date(home, load_campaign(home, "world")), "a new figure makes the pages old"
    found = read_page(write_campaign(home, "world")[0])
    assert "went from" not in found.text, "the first round has no figure"
    assert found.column("Benchmark scores", "After round 2") == {"needle": "0.75"}
    assert found.column("Screening beside training", "Training, s")["Round 2"] == "12.5"
    assert "from −0.500 to 0.250 nats a token" in read_page(round_path(home, rounds[1].version)).text


def test_an_empty_round_has_a_report_that_says_what_is_missing(home: Home) -> None:
    def nothing(tables: Shards) -> None:
        for name in ("screened", "positions", "candidates", "verdicts", "negatives", "samples"):
            tables[name] = [[]]

    built = build_round(home, change=nothing)
    page = read_page(write_round(home, built.version[:8]))
    assert "Nothing was verified: no token was uncertain enough. The round has no positives." in page.text
    assert "There is no sample, so there are no tokens." in page.text
    assert "No sample records a dependency" in page.text
    assert "This round screened no root" in page.text
    assert "so there is no example" in page.text
    assert set(page.column("From roots to samples", "Count").values()) == {"0"}


def test_a_round_in_which_nothing_helped(home: Home) -> None:
    def nothing_helps(tables: Shards) -> None:
        for shard in tables["verdicts"]:
            for row in shard:
                row.update(kept=False, gain=0.1)
        tables["negatives"], tables["samples"] = [[]], [[]]

    page = read_page(write_round(home, build_round(home, change=nothing_helps).version))
    assert (
        "12 pairs of such a token and a passage were put before it; in none the passage lowered the entropy"
        in page.text
    )


def test_without_corpus_and_policy_the_page_says_so(rounds: list[BuiltRound], tmp_path: Path) -> None:
    shutil.copytree(rounds[0].home.path, tmp_path / "moved")
    home = Home.open(tmp_path / "moved")
    shutil.rmtree(home / "corpora")
    shutil.rmtree(home / "policies")
    shutil.rmtree(home / f"versions/{rounds[0].version[:16]}")
    page = read_page(write_round(home, "2"))
    for told in (
        "is not in this home, or is damaged",
        "Without the policy's tokenizer",
        "the corpus is not in this home",
    ):
        assert told in page.text
    assert f"The round before, version {rounds[0].version[:12]}, can't be compared with" in page.text
    whole = read_page(write_campaign(home, "world")[0])
    assert f"Round 1, version {rounds[0].version[:12]}, is not in this home." in whole.text


def test_a_manifest_without_figures_and_a_recipe_without_screening(home: Home) -> None:
    def whole_documents(tables: Shards) -> None:
        for name in ("roots", "screened", "positions", "candidates", "verdicts", "negatives"):
            del tables[name]
        tables["samples"][0][0]["dependencies"] = []

    changes: Row = {"recipe": "standard", "relation": "unscreened", "figures": {}}
    page = read_page(write_round(home, build_round(home, change=whole_documents, manifest_changes=changes).version))
    assert "No model was asked" in page.text
    assert "This recipe verifies no passage, so there is no gain to tell." in page.text
    assert named(home, page.text.split("dataset version ")[1][:12])[1] is not None
