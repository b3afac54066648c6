"""The quickstart's base model: pretrained on the installed packages of one part, measured on those of the others.

pretrain_base(BaseModelConfig(), Path("base"), work=Path("base-work"))
measure_base(BaseModelConfig(), Path("base"))
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from models.embedders import EmbedderConfig, load_embedder
from models.policy import load_policy
from models.pretrain_config import PretrainConfig
from models.pretraining import RECORD, PretrainRecord, pretrain
from models.scoring import Scorer
from tasks.corpus.documents import RawDocument
from tasks.corpus.python_corpus import PythonCorpusConfig, iterate_python_documents, package_versions
from tasks.pretraining.card import CardFigures, measure_card
from tasks.pretraining.card_page import render_card
from tasks.pretraining.card_trial import CardConfig

FIGURES = "card.json"


class BaseModelConfig(BaseModel):
    """The base model from nothing to its card."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pretraining: PretrainConfig = Field(default_factory=PretrainConfig, description="Model, mixture and optimizer.")
    corpus: PythonCorpusConfig = Field(
        default_factory=lambda: PythonCorpusConfig(parts=("pretrain",)), description="What it is trained on."
    )
    card: CardConfig = Field(default_factory=CardConfig, description="How it is measured.")
    screened: PythonCorpusConfig = Field(
        default_factory=lambda: PythonCorpusConfig(parts=("screen", "probe"), budget_characters=1_600_000),
        description="Where the card's roots and chunks come from.",
    )
    heldout: PythonCorpusConfig = Field(
        default_factory=lambda: PythonCorpusConfig(parts=("heldout",), budget_characters=600_000),
        description="Text for the held-out loss.",
    )
    embedder: EmbedderConfig = Field(default_factory=EmbedderConfig, description="Of the card's retrieval.")


def pretrain_base(
    config: BaseModelConfig, out: Path, *, work: Path, report: Callable[[int, float], None] = lambda tokens, loss: None
) -> PretrainRecord:
    """Train the base model and write its policy folder; called again with the same ``work`` it carries on."""
    parts = set(config.corpus.parts)
    others = config.corpus.model_copy(update={"parts": tuple({"screen", "probe", "heldout"} - parts)})

    def reserved() -> Iterator[str]:
        for document in iterate_python_documents(others):
            yield document.text

    return pretrain(
        config.pretraining,
        iterate_python_documents(config.corpus),
        out,
        work=work,
        reserved=reserved(),
        packages=package_versions(),
        report=report,
    )


def measure_base(
    config: BaseModelConfig, folder: Path, *, report: Callable[[str], None] = lambda line: None
) -> CardFigures:
    """Measure the model in ``folder`` and write ``card.json`` and the model card ``README.md`` there."""
    policy = load_policy(folder, device="cpu", dtype="float32")
    screened: list[RawDocument] = list(iterate_python_documents(config.screened))
    heldout: list[RawDocument] = list(iterate_python_documents(config.heldout))
    figures = measure_card(
        Scorer(policy.model),
        policy.tokenizer,
        screened,
        heldout,
        load_embedder(config.embedder),
        config.card,
        report,
    )
    (folder / FIGURES).write_text(json.dumps(asdict(figures), indent=1) + "\n", encoding="utf-8")
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    (folder / "README.md").write_text(render_card(record, figures, config.card), encoding="utf-8")
    return figures
