"""The page of a round."""

from __future__ import annotations

from tasks.reporting.answers import in_short
from tasks.reporting.blocks import Page, Piece, code, link
from tasks.reporting.change_section import change
from tasks.reporting.closing_sections import audit, made
from tasks.reporting.example_section import examples
from tasks.reporting.gain_sections import distance, gain
from tasks.reporting.round_view import RoundView, page_key
from tasks.reporting.screening_sections import funnel, model, uncertainty
from tasks.reporting.training_sections import cost, training

METHOD = (
    "policylong makes long training texts out of short documents, and lets the language model that is being trained say"
    " which. The model reads windows of documents and marks the tokens it is most uncertain about. Passages of other"
    " documents are looked for, and those that make the model surer when they stand in front are put into a training"
    " sample with that window, among passages that only look alike."
)


def round_page(view: RoundView, campaign_link: str | None = None) -> Page:
    """The page of a round; ``campaign_link`` is where the campaign's page lies, seen from this one."""
    manifest = view.figures.manifest
    of = f" of campaign {view.campaign.name}" if view.campaign else ""
    lead: list[Piece] = [
        Piece(f"{METHOD} This page is about one turn of that loop: dataset version "),
        code(view.version),
    ]
    lead.append(Piece(f", made by recipe {manifest.recipe}."))
    if campaign_link and view.campaign:
        lead += [Piece(" All rounds: "), link(f"campaign {view.campaign.name}", campaign_link), Piece(".")]
    return Page(
        title=f"Round {view.number}{of}",
        kicker="policylong · report of a round",
        lead=tuple(lead),
        sections=(
            in_short(view),
            model(view),
            funnel(view),
            uncertainty(view),
            gain(view),
            examples(view),
            distance(view),
            change(view),
            training(view),
            cost(view),
            audit(view),
            made(view),
        ),
        key=page_key(view.figures.version, view.campaign),
    )
