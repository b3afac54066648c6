"""The part of a page that shows dependencies: root with its uncertain token, passage that helped, hard negative."""

from __future__ import annotations

import math
import re

from tasks.reporting.blocks import Block, ExampleView, Paragraph, Piece, Quote, Run, Section, Table, prose, strong
from tasks.reporting.examples import Context, Example
from tasks.reporting.round_view import RoundView
from tasks.reporting.visible import visible, visible_line
from tasks.reporting.wording import EMPTY, choices, decimal, plural, share

BEFORE, AFTER, PASSAGE = 360, 160, 1200
"""Characters shown of a root before and after its token, and of a passage."""
SHORTEST_WORD = 3
LONGEST_RUN = 80
RULES = {
    "best": (
        "The help that helped most",
        "Of the kept pairs, the one after which the token that stands there gained most likelihood.",
    ),
    "free": (
        "The best that copies nothing",
        "The same among the pairs whose passage does not hold the token and the one before it word for word.",
    ),
    "average": ("An average one", "A kept pair whose gain is about the round's mean."),
    "doubt": (
        "One that deserves doubt",
        "The policy became surer, but of something else: the token that stands there became less likely. Of the kept"
        " pairs, the one in which it lost most.",
    ),
}
INTRODUCTION = (
    "Picked by rule, not by hand. The uncertain token stands between ⟦ and ⟧. Where its word, or what was copied, also"
    " stands in a passage, it is underlined there. Control and invisible characters are shown as their escapes."
)


def examples(view: RoundView, *, heading: str = "Examples", limit: int = 4) -> Section:
    """The examples of a round, or why there is none."""
    if not view.examples:
        judged = view.figures.judged
        why = "This recipe verifies no passages" if judged is None else "No pair was kept on a root that is trained on"
        return Section("examples", heading, (prose(f"{why}, so there is no example.", note=True),))
    negatives = 0
    blocks: list[Block] = [prose(INTRODUCTION)]
    for number, example in enumerate(view.examples[:limit], 1):
        show = example.negative is not None and not negatives
        negatives += show
        blocks.append(example_view(example, f"Example {number}", view.figures.version[:12], negative=show))
    return Section("examples", heading, tuple(blocks))


def example_view(example: Example, name: str, version: str, *, negative: bool) -> ExampleView:
    """One example; ``negative`` shows its hard negative too."""
    verdict = example.verdict
    title, rule = RULES[verdict.rule]
    same = _same(example)
    quotes = [_root(example)]
    found = "" if example.rank is None else f" · place {example.rank + 1} of the search"
    found += "" if example.score is None else f", cosine {decimal(example.score, 3)}"
    quotes.append(_passage("The passage that helped.", example.context, same, found))
    if negative and example.negative is not None:
        gain = example.negative_gain
        judged = "not verified: it may help as well" if gain is None else f"verified: largest gain {decimal(gain, 3)}"
        what = "A hard negative: it looks like that passage and may stand in a sample to distract."
        quotes.append(_passage(what, example.negative, same, f" · {judged}"))
    text = [prose(rule), _story(example)]
    return ExampleView(
        title=f"{name}: {title[0].lower()}{title[1:]}",
        text=tuple(text),
        table=Table(
            f"{name}: the token's prediction before and after",
            ("Of the uncertain token", "Without the passage", "With it in front"),
            (
                ("Entropy, nats", decimal(verdict.entropy_before, 3), decimal(verdict.entropy_after, 3)),
                (
                    "Probability of the token that stands there",
                    _probability(verdict.nll_before),
                    _probability(verdict.nll_after),
                ),
            ),
        ),
        quotes=tuple(quotes),
        command="" if example.place is None else f"policylong trace {version} {example.place[0]}:{example.place[1]}",
    )


def _story(example: Example) -> Paragraph:
    verdict = example.verdict
    token = visible_line(example.token or "")
    asked: list[str | Piece] = ["At the token ", Piece(f"⟦{token}⟧", "code")] if token else ["At its token"]
    asked += [
        f" the choice was as open as one among {choices(verdict.entropy_before)} equally likely tokens; with the"
        f" passage in front of the root, as one among {choices(verdict.entropy_after)}: a gain of ",
        strong(decimal(verdict.gain, 3)),
        ".",
    ]
    if verdict.literal:
        asked.append(" The passage holds the token and the one before it word for word: help by copying.")
    if verdict.placebo_gain is not None:
        asked.append(f" A random passage of the same length gained {decimal(verdict.placebo_gain, 3)}.")
    if example.place is None:
        asked.append(" It found no place in a sample.")
    else:
        sample, _, distance = example.place
        asked.append(f" In sample {sample} they stand {plural(distance, 'token')} apart.")
    return prose(*asked)


def _root(example: Example) -> Quote:
    if example.before is None or example.token is None or example.after is None:
        return Quote("The root.", "Its text is not shown: the policy's tokenizer is not in this home.", ())
    before, after = example.before, example.after
    runs = (
        Run(("… " if len(before) > BEFORE else "") + visible(before[-BEFORE:])),
        Run(f"⟦{visible(example.token)}⟧", "token"),
        Run(visible(after[:AFTER]) + (" …" if len(after) > AFTER else "")),
    )
    return Quote("The root.", visible_line(example.root_title), runs)


def _passage(what: str, context: Context, same: tuple[str, bool], found: str = "") -> Quote:
    if context.text is None:
        return Quote(what, "Its text is not shown: the corpus is not in this home.", ())
    shown = context.text[:PASSAGE]
    runs = same_words(shown, same[0], whole=same[1])
    if len(context.text) > PASSAGE:
        runs.append(Run(" …"))
    return Quote(what, visible_line(context.title) + found, tuple(runs))


def same_words(text: str, same: str, *, whole: bool = True) -> list[Run]:
    """The text cut at the places where ``same`` stands; with ``whole`` where it stands as a word."""
    if not same:
        return [Run(visible(text))]
    pattern = rf"(?<![^\W_])({re.escape(same)})(?![^\W_])" if whole else f"({re.escape(same)})"
    parts = re.split(pattern, text)
    return [Run(visible(part), "same" if place % 2 else "") for place, part in enumerate(parts) if part]


def copied(before: str, token: str, after: str, passage: str) -> str:
    """The longest run of the root around the token, at most 80 characters, that also stands in the passage."""
    root, start, end = before + token + after, len(before), len(before) + len(token)
    while start > 0 and end - start < LONGEST_RUN and root[start - 1 : end] in passage:
        start -= 1
    while end < len(root) and end - start < LONGEST_RUN and root[start : end + 1] in passage:
        end += 1
    return root[start:end].strip() if root[start:end] in passage else ""


def _same(example: Example) -> tuple[str, bool]:
    """What is underlined in a passage, and whether only as a word: the copied run, else the word around the token."""
    before, token, after = example.before or "", example.token or "", example.after or ""
    if example.verdict.literal and token:
        return copied(before, token, after, example.context.text or ""), False
    if not token.strip():
        return "", True
    start = re.search(r"[^\W_]*\Z", before) if not token[0].isspace() else None
    end = re.match(r"[^\W_]*", after)
    found = (start[0] if start else "") + token.strip() + (end[0] if end else "")
    word = max(re.findall(r"[^\W_]+", found), key=len, default="")
    return (word if len(word) >= SHORTEST_WORD else ""), True


def _probability(nll: float) -> str:
    if math.isnan(nll):
        return EMPTY
    found = math.exp(-nll)
    return "none" if math.isinf(nll) else "under 0.0001 %" if found < 1e-6 else share(found, 1 if found >= 0.001 else 4)
