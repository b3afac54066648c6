"""The first part of a round's page: which model asked, what it gained, what changed; and the words of the page."""

from __future__ import annotations

from tasks.reporting.blocks import (
    Block,
    Heading,
    Items,
    Key,
    Keys,
    Paragraph,
    Piece,
    Section,
    code,
    link,
    prose,
    strong,
)
from tasks.reporting.drift import RoundDrift
from tasks.reporting.measured import number_of
from tasks.reporting.round_view import RoundView
from tasks.reporting.wording import choices, count, decimal, difference, plural, share

RELATIONS = {
    "on-policy": "It is the very model that is trained on this round next: the data is on-policy.",
    "given": "It is not the model that is trained on this round, but another one of the same tokenizer.",
    "unscreened": "No model was asked: this recipe puts documents together by rule, and the policy named here only lent"
    " its tokenizer.",
}
WORDS = (
    ("policy", "A state of the language model that is being trained, named by the digest of its weights."),
    ("round", "One turn of the loop: the policy looks for training data it needs, then it is trained on that data."),
    ("root", "A window of a document in which the policy's uncertainty is looked for."),
    (
        "entropy",
        "How uncertain the policy is about the next token, in nats. An entropy of H is the uncertainty of a choice"
        " among exp(H) equally likely tokens: 0 is certainty, 2.3 is like 10 tokens, 4.6 like 100.",
    ),
    ("threshold", "Mean plus α standard deviations of a root's entropies; tokens above it count as uncertain."),
    ("position", "An uncertain token: one whose prediction has an entropy above its root's threshold."),
    ("candidate", "A passage of another document that a similarity search found for a position."),
    (
        "gain",
        "The share of the entropy that goes when a passage is put in front of the root: (before − after) / before."
        " Above ε the pair is kept. Negative: the passage made the policy less certain.",
    ),
    ("positive", "A passage that was kept: the policy itself shows that it helps."),
    ("hard negative", "A passage that looks like a positive. It stands in the sample as a distraction."),
    ("dependency", "A position and the positive that helps it, together in a sample, some tokens apart."),
    ("literal", "The token and the one before it stand in the passage word for word: help by copying."),
    (
        "probe set",
        "Roots that every round screens and none trains on. On them, what differs between rounds is the policy alone.",
    ),
    (
        "context gain",
        "On text that was never trained on: the loss of a window's last tokens with a short context, minus their loss"
        " with a long one, in nats a token. Above 0, the model uses what stands far back.",
    ),
)


def in_short(view: RoundView) -> Section:
    """The three questions with their answers, key numbers, and the words of the page."""
    blocks: list[Block] = [
        Keys(_keys(view)),
        Heading("Which model asked for this context?"),
        Paragraph(
            (*who_asked(view).pieces, Piece(" "), link("Its parents, back to the base model", "#model"), Piece("."))
        ),
        Heading("What did it gain?"),
        *_gained(view),
        Heading("What changed since the round before?"),
        *_changed(view),
    ]
    blocks += [prose(sentence, note=True) for sentence in view.missing]
    blocks.append(Items(terms=WORDS, folded="The words of this page"))
    return Section("in-short", "In short", tuple(blocks))


def _keys(view: RoundView) -> tuple[Key, ...]:
    manifest, judged = view.figures.manifest, view.figures.judged
    keys = [
        Key(count(manifest.tokens.get("total", 0)), "tokens of training data"),
        Key(count(manifest.funnel.get("samples", 0)), "samples"),
    ]
    if judged is not None:
        keys.append(Key(count(manifest.funnel.get("positives", 0)), "verified positives"))
        keys.append(Key(share(judged.gain), "of the entropy gone, on average, where a passage helped"))
    after = number_of(view.record, "context_gain_after")
    if after is not None:
        keys.append(Key(decimal(after, 3), "nats a token of context gain after the training"))
    return tuple(keys)


def who_asked(view: RoundView) -> Paragraph:
    """The policy, what it was trained on, and how it stands to the one that is trained."""
    manifest, line = view.figures.manifest, view.figures.policies
    if manifest.relation == "unscreened":
        return prose(RELATIONS["unscreened"], " Tokenizer: policy ", code(manifest.policy[:12]), ".")
    own = line[0]
    if own.parent is None and own.known:
        origin = "the base model, before any training by this method."
    elif own.trained_on is None:
        origin = "of which this home does not know what it was trained on."
    else:
        steps = f", {plural(own.rounds, 'round')} of training after the base model" if own.rounds else ""
        origin = f"the model as it was after training on {view.round_of(own.trained_on)}{steps}."
    lagged = f"It is an ancestor, {plural(manifest.lag, 'training')} back, of the model that is trained on this round."
    return prose(
        strong("Policy "),
        code(own.digest[:12]),
        f": {origin} ",
        RELATIONS.get(manifest.relation, lagged),
    )


def _gained(view: RoundView) -> list[Paragraph]:
    figures, judged = view.figures, view.figures.judged
    funnel, samples = figures.manifest.funnel, figures.manifest.funnel.get("samples", 0)
    if judged is None:
        return [prose("This recipe verifies no passage, so there is no gain to tell."), *_trained(view)]
    positions = funnel.get("positions", 0)
    where = f" ({share(positions / figures.scored)})" if figures.scored else ""
    asked = (
        f"In {plural(funnel.get('roots', 0), 'root')} (windows of documents) the policy was uncertain at"
        f" {count(positions)} of {plural(figures.scored, 'scored token')}{where}."
    )
    if not judged.verdicts:
        why = "no token was uncertain enough" if not positions else "no passage was found that could be tried"
        return [prose(asked), prose(f"Nothing was verified: {why}. The round has no positives.", note=True)]
    limit = share(figures.epsilon, 0)
    tried = f" {plural(judged.verdicts, 'pair')} of such a token and a passage were put before it; in "
    if not judged.kept:
        none = f"none the passage lowered the entropy by more than {limit}. The round has no positives."
        return [prose(asked, tried, none, note=True), *_trained(view)]
    found = [
        prose(
            asked,
            tried,
            strong(f"{count(judged.kept)} ({share(judged.kept / judged.verdicts)})"),
            f" the passage lowered the entropy by more than {limit}: on average by ",
            strong(share(judged.gain)),
            f", from {decimal(judged.entropy_before)} to {decimal(judged.entropy_after)} nats. That is the step from a"
            f" choice among about {choices(judged.entropy_before)} equally likely tokens to one among"
            f" {choices(judged.entropy_after)}.",
        )
    ]
    checks = [
        f"{share(judged.literal / judged.kept)} of the kept pairs are literal: the passage holds the token and the one"
        " before it word for word.",
        f"In {share(judged.less_right / judged.kept)} the policy became surer, but the token that stands there became"
        " less likely.",
    ]
    if judged.placebos:
        checks.append(
            f"Of {count(judged.placebos)} random passages of the same length {count(judged.placebos_kept)} passed the"
            " same test."
        )
    found.append(prose(" ".join(checks)))
    if not samples:
        found.append(prose("No sample could be filled: the round has no training data.", note=True))
    return [*found, *_trained(view)]


def _trained(view: RoundView) -> list[Paragraph]:
    before, after = (number_of(view.record, f"context_gain_{when}") for when in ("before", "after"))
    if before is None or after is None:
        return [prose("Nothing is recorded of a training on this round.", note=True)]
    error = number_of(view.record, "context_gain_error")
    spread = certainty(after - before, error)
    return [
        prose(
            f"Training on the round moved the context gain on held-out text from {decimal(before, 3)} to ",
            strong(f"{decimal(after, 3)} nats a token"),
            f"{spread}. ",
            link("More", "#training"),
            ".",
        )
    ]


def certainty(change: float, error: float | None) -> str:
    """A change's standard error in brackets, and whether the change lies within it; empty without one."""
    if error is None:
        return ""
    return f" (standard error {decimal(error, 3)}{': the change lies within it' if abs(change) <= error else ''})"


def _changed(view: RoundView) -> list[Paragraph]:
    drift = view.drift
    if isinstance(drift, str):
        return [prose(drift)]
    settings = drift.settings
    same = (
        "Settings, code and numeric environment are the same."
        if not settings
        else f"The two rounds were made differently in {plural(len(settings), 'respect')}: see the list below."
    )
    return [prose(*_probe_words(drift), same, " ", link("More", "#change"), ".")]


def _probe_words(drift: RoundDrift) -> list[str]:
    positions, positives, roots = (drift.overlap(what) for what in ("positions", "positives", "roots"))
    if positions is None or roots is None:
        return ["The two rounds share no probe set with uncertain tokens, so their policies can't be compared on it. "]
    words = [
        f"The probe set ({plural(roots.second, 'root')}) was screened by both policies. Of its uncertain tokens,"
        f" {count(positions.stayed)} stayed, {count(positions.came)} came and {count(positions.went)} went"
        f" ({share(positions.share)} of all are common to both). "
    ]
    if positives is not None:
        words.append(
            f"Of the passages that help there, {count(positives.stayed)} stayed, {count(positives.came)} came and"
            f" {count(positives.went)} went ({share(positives.share)} common). "
        )
    threshold = drift.drift("threshold")
    if threshold is not None and threshold.first.mean is not None and threshold.second.mean is not None:
        moved = difference(threshold.second.mean - threshold.first.mean)
        words.append(
            f"The mean threshold of its roots moved from {decimal(threshold.first.mean)} to"
            f" {decimal(threshold.second.mean)} nats ({moved}). "
        )
    return words
