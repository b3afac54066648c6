"""The page of a campaign: its rounds side by side."""

from __future__ import annotations

from collections.abc import Iterator

from storage.campaigns import Campaign
from storage.digests import digest_json, short
from tasks.reporting.answers import WORDS, certainty
from tasks.reporting.blocks import (
    Block,
    Command,
    Heading,
    Items,
    Key,
    Keys,
    Page,
    Paragraph,
    Piece,
    Section,
    Table,
    code,
    link,
    prose,
    strong,
)
from tasks.reporting.campaign_sections import by_distance, costs, drift, gains_by_round, uncertainty
from tasks.reporting.closing_sections import settings, verdict
from tasks.reporting.drift import RoundDrift
from tasks.reporting.example_section import INTRODUCTION, example_view
from tasks.reporting.measured import number_of
from tasks.reporting.round_page import METHOD
from tasks.reporting.round_view import PAGE_VERSION, RoundView
from tasks.reporting.training_sections import context_gain, names, scores
from tasks.reporting.wording import count, decimal, listed, share


def campaign_page(campaign: Campaign, rounds: tuple[RoundView, ...], gone: tuple[str, ...] = ()) -> Page:
    """The page of a campaign, from the views of its rounds in order; without a round the page says so.

    Links lead to the rounds' own pages, which lie in folders beside it. ``gone`` says which rounds can't be shown.
    """
    recipes = listed(sorted({view.figures.manifest.recipe for view in rounds}))
    lead = [Piece(f"{METHOD} Then it is trained on them, and asks again. This page shows the rounds side by side.")]
    if recipes:
        lead.append(Piece(f" Recipe: {recipes}."))
    sections = tuple(_sections(campaign, rounds, gone)) if rounds else (_nothing(campaign, gone),)
    return Page(
        title=f"Campaign {campaign.name}",
        kicker="policylong · report of a campaign",
        lead=tuple(lead),
        sections=sections,
        key=campaign_key(campaign),
    )


def campaign_key(campaign: Campaign) -> str:
    """What a campaign's page depends on: a page with this key need not be written again."""
    return digest_json([PAGE_VERSION, campaign.model_dump(mode="json")])[:16]


def _nothing(campaign: Campaign, gone: tuple[str, ...]) -> Section:
    if gone:
        return Section("in-short", "In short", tuple(prose(sentence, note=True) for sentence in gone))
    text = "No round of this campaign is finished, so there is nothing to report. The command that began it carries on."
    command = Command((f"policylong run --name {campaign.name}",))
    return Section("in-short", "In short", (prose(text, note=True), command))


def _sections(campaign: Campaign, rounds: tuple[RoundView, ...], gone: tuple[str, ...]) -> Iterator[Section]:
    yield _in_short(rounds, gone)
    yield _rounds(rounds)
    yield uncertainty(rounds)
    yield gains_by_round(rounds)
    yield drift(rounds)
    yield by_distance(rounds)
    yield _training(rounds)
    yield costs(rounds)
    yield _examples(rounds)
    yield _audit(campaign, rounds)
    yield _made(campaign)


def _in_short(rounds: tuple[RoundView, ...], gone: tuple[str, ...]) -> Section:
    manifests = [view.figures.manifest for view in rounds]
    first, last = number_of(rounds[0].record, "context_gain_before"), number_of(rounds[-1].record, "context_gain_after")
    keys = [
        Key(count(len(rounds)), "finished round" + ("s" if len(rounds) > 1 else "")),
        Key(count(sum(manifest.tokens.get("total", 0) for manifest in manifests)), "tokens of training data"),
        Key(count(sum(manifest.funnel.get("positives", 0) for manifest in manifests)), "verified positives"),
    ]
    if last is not None:
        keys.append(Key(decimal(last, 3), "nats a token of context gain after the last training"))
    blocks: list[Block] = [Keys(tuple(keys)), Heading("Which models asked for this context?"), _who(rounds)]
    blocks += [Heading("What did they gain?"), _gained(rounds, first, last)]
    blocks += [Heading("What changed from round to round?"), _changed(rounds)]
    missing = [*gone, *sorted({sentence for view in rounds for sentence in view.missing})]
    blocks += [prose(sentence, note=True) for sentence in missing]
    blocks.append(Items(terms=WORDS, folded="The words of this page"))
    return Section("in-short", "In short", tuple(blocks))


def _who(rounds: tuple[RoundView, ...]) -> Paragraph:
    pieces: list[Piece | str] = []
    for view in rounds:
        policy, relation = view.figures.manifest.policy, view.figures.manifest.relation
        origin = names(view).get(policy, "not known in this home")
        how = "nobody was asked (tokenizer of " if relation == "unscreened" else "asked by "
        pieces += [strong(f"Round {view.number}"), f": {how}policy ", code(policy[:12])]
        pieces.append(f" ({origin}). " if relation != "unscreened" else "). ")
    relations = {view.figures.manifest.relation for view in rounds}
    if relations == {"on-policy"}:
        pieces.append("Every round was asked by the very model that was trained on it next.")
    return prose(*pieces)


def _gained(rounds: tuple[RoundView, ...], first: float | None, last: float | None) -> Paragraph:
    parts = []
    for view in rounds:
        judged = view.figures.judged
        if judged is None:
            parts.append(f"round {view.number} tried none")
        elif judged.kept:
            went = f"on average {share(judged.gain)} of the uncertainty went"
            parts.append(f"round {view.number} kept {share(judged.kept / judged.verdicts)} ({went})")
        else:
            parts.append(f"round {view.number} kept none of {count(judged.verdicts)}")
    pieces: list[Piece | str] = [
        f"Of the pairs of an uncertain token and a passage that were tried, {'; '.join(parts)}. "
    ]
    if first is not None and last is not None:
        pieces += [
            f"Over the campaign the context gain on held-out text went from {decimal(first, 3)} to ",
            strong(f"{decimal(last, 3)} nats a token"),
            f"{certainty(last - first, number_of(rounds[-1].record, 'context_gain_error'))}{_by_round(rounds)}. ",
            link("More", "#training"),
            ".",
        ]
    return prose(*pieces)


def _by_round(rounds: tuple[RoundView, ...]) -> str:
    """Where the context gain stood after each training but the last."""
    found = [(view.number, number_of(view.record, "context_gain_after")) for view in rounds[:-1]]
    known = [f"{decimal(gain, 3)} after round {number}" for number, gain in found if gain is not None]
    return f"; it was {listed(known)}" if known else ""


def _changed(rounds: tuple[RoundView, ...]) -> Paragraph:
    parts, same = [], True
    for view in rounds[1:]:
        if isinstance(view.drift, RoundDrift):
            same = same and not view.drift.settings
            positions, positives = view.drift.overlap("positions"), view.drift.overlap("positives")
            if positions is not None:
                helping = f" and {share(positives.share)} of its helping passages" if positives is not None else ""
                before = view.round_of(view.drift.found.first)
                parts.append(
                    f"between {before} and round {view.number}, {share(positions.share)} of the probe set's uncertain"
                    f" tokens{helping} are common to both"
                )
    if not parts:
        return prose("There are no two rounds whose probe sets can be compared.")
    also = ": nothing else differs on that set" if same else ", or with settings that were changed (see the rounds)"
    text = f"{'; '.join(parts)}. The rest came or went with the policy{also}. "
    return prose(text[0].upper() + text[1:], link("More", "#change"), ".")


def _rounds(rounds: tuple[RoundView, ...]) -> Section:
    rows = []
    for view in rounds:
        manifest = view.figures.manifest
        funnel = [manifest.funnel.get(name, 0) for name in ("roots", "positions", "verdicts", "positives", "samples")]
        cells = (view.version, manifest.policy[:12], *map(count, funnel), count(manifest.tokens.get("total", 0)))
        rows.append((f"Round {view.number}", *cells))
    columns = ("Round", "Version", "Policy", "Roots", "Uncertain", "Verified", "Positives", "Samples", "Tokens")
    pages = tuple(
        (link(f"Report of round {view.number}", f"{short(view.figures.version, 16)}/report.html"), Piece(" in full"))
        for view in rounds
    )
    table = Table("The rounds, from roots to tokens of training data", columns, tuple(rows), digests=frozenset({1, 2}))
    return Section("rounds", "The rounds", (table, Items(rows=pages)))


def _training(rounds: tuple[RoundView, ...]) -> Section:
    named: dict[str, str] = {}
    for view in rounds:
        named |= {policy: name for policy, name in names(view).items() if policy not in named}
    gains = {(one.policy, one.long, one.short): one for view in rounds for one in view.gains}
    blocks = context_gain(list(gains.values()), named)
    blocks += scores([view.record for view in rounds], [f"After round {view.number}" for view in rounds])
    return Section("training", "What the trainings brought", tuple(blocks))


def _examples(rounds: tuple[RoundView, ...]) -> Section:
    blocks: list[Block] = []
    for view in rounds:
        for example in view.examples[:1]:
            name = f"Round {view.number}"
            shown = example_view(example, name, view.version, negative=example.negative is not None)
            blocks.append(shown)
    if not blocks:
        return Section("examples", "Examples", (prose("No round has a kept pair to show.", note=True),))
    return Section("examples", "One example of each round", (prose(INTRODUCTION), *blocks))


def _audit(campaign: Campaign, rounds: tuple[RoundView, ...]) -> Section:
    title = "Verdict of the audit"
    if all(view.audit is None for view in rounds):
        commands = (f"policylong audit {rounds[-1].version}", f"policylong report {campaign.name} --audit")
        text = (
            "No audit was run for this page. It recomputes every digest and count and follows every row to its origin:"
        )
        return Section("audit", title, (prose(text, note=True), Command(commands)))
    blocks: list[Block] = []
    for view in rounds:
        blocks.append(Heading(f"Round {view.number}"))
        blocks += verdict(view.audit, f"round {view.number}") if view.audit else [prose("Not audited.", note=True)]
    return Section("audit", title, tuple(blocks))


def _made(campaign: Campaign) -> Section:
    rows = tuple(settings(campaign.config))
    table = Table("Settings of the campaign", ("Setting", "Value"), rows, words=frozenset({1}), folded="Every setting")
    text = prose("The configuration has the digest ", code(campaign.config_digest), ".")
    return Section("made", "How it was made", (text, table))
