"""The stages of recipes that look for uncertainty: roots → entropy → retrieval → verification → fill → assembly."""

from __future__ import annotations

from functools import partial
from typing import Literal

from tasks.rounds.recipe import Stage
from tasks.rounds.round import Round
from tasks.samples.assembly import AssemblyInputs, assemble
from tasks.screening.entropy import EntropyInputs, screen_entropy
from tasks.screening.fillers import FillersInputs, draw_fillers
from tasks.screening.negative_verification import NegativeVerificationInputs, verify_negatives
from tasks.screening.negatives import NegativesInputs, find_negatives
from tasks.screening.retrieval import RetrievalInputs, retrieve
from tasks.screening.roots import RootsInputs, cut_roots
from tasks.screening.verification import verify
from tasks.stages.verification import verification


def _roots(this: Round) -> None:
    inputs = RootsInputs(
        documents=this.corpus.documents,
        tokenizer=this.tokenizer,
        rounds=this.config.rounds,
        tokenizer_folder=this.policy.folder,
    )
    this.whole(cut_roots, inputs, this.config.roots, label="all rounds")


def _entropy(this: Round) -> None:
    this.over_shards(
        screen_entropy,
        this.config.entropy,
        (
            EntropyInputs(roots=this.roots, first_root=rows.start, stop_root=rows.stop, policy=this.policy)
            for rows in this.all_shards
        ),
    )


def _retrieval(this: Round) -> None:
    this.over_shards(
        retrieve,
        this.config.retrieval,
        (
            RetrievalInputs(
                positions=positions,
                roots=this.roots,
                corpus=this.corpus.digest,
                embedder=this.embedder,
                index=this.index,
                exact=this.index.exact,
            )
            for positions in this.tables["positions"]
        ),
    )


def _negatives(this: Round) -> None:
    this.over_shards(
        find_negatives,
        this.config.negatives,
        (
            NegativesInputs(
                verdicts=verdicts,
                roots=this.roots,
                corpus=this.corpus.digest,
                index=this.index,
                exact=this.index.exact,
            )
            for verdicts in this.tables["verdicts"][: len(this.train_shards)]
        ),
    )


def _negative_verification(this: Round) -> None:
    config = this.config.negative_verification
    if not config.enabled:
        return
    this.over_shards(
        verify_negatives,
        config,
        (
            NegativeVerificationInputs(
                negatives=negatives,
                positions=positions,
                roots=this.roots,
                corpus=this.corpus.digest,
                policy=this.policy,
                separator=this.config.verification.separator,
                negatives_per_positive=this.config.negatives.negatives_per_positive,
            )
            for negatives, positions in zip(
                this.tables["negatives"], this.tables["positions"][: len(this.train_shards)], strict=True
            )
        ),
    )


def _fillers(this: Round) -> None:
    this.over_shards(
        draw_fillers,
        this.config.fillers,
        (
            FillersInputs(verdicts=verdicts, roots=this.roots, corpus=this.corpus.digest)
            for verdicts in this.tables["verdicts"][: len(this.train_shards)]
        ),
    )


def _assembly(this: Round, fill: Literal["negative", "filler"]) -> None:
    inputs = AssemblyInputs(
        shards=tuple((rows.start, rows.stop) for rows in this.train_shards),
        verdicts=tuple(this.tables["verdicts"][: len(this.train_shards)]),
        negatives=tuple(this.tables["negatives"]),
        roots=this.roots,
        corpus=this.corpus.digest,
        tokenizer=this.tokenizer,
        separator=this.config.verification.separator,
        negatives_per_positive=this.config.negatives.negatives_per_positive,
        fill=fill,
        samples=this.config.samples,
        policy=this.policy,
    )
    this.whole(assemble, inputs, this.config.assembly)


ROOTS = Stage("roots", "cut the documents of the screened part into roots", _roots, (cut_roots,))
ENTROPY = Stage("entropy", "positions above mean + alpha x std, with queries", _entropy, (screen_entropy,))
RETRIEVAL = Stage("retrieval", "the chunks nearest to each query", _retrieval, (retrieve,))
VERIFICATION = Stage("verification", "keep what lowers the entropy by more than epsilon", verification, (verify,))
NEGATIVES = Stage("negatives", "the positives' neighbours, by a second retrieval", _negatives, (find_negatives,))
NEGATIVE_VERIFICATION = Stage(
    "negative-verification",
    "leave out neighbours that help, where build.negative_verification.enabled says so",
    _negative_verification,
    (verify_negatives,),
)
FILLERS = Stage("fillers", "random chunks in place of negatives", _fillers, (draw_fillers,))
ASSEMBLY = Stage(
    "assembly", "contexts shuffled, roots last, exactly so long", partial(_assembly, fill="negative"), (assemble,)
)
FILLED_ASSEMBLY = Stage(
    "assembly", "contexts shuffled, roots last, exactly so long", partial(_assembly, fill="filler"), (assemble,)
)

SCREENING = (ROOTS, ENTROPY, RETRIEVAL, VERIFICATION)
SCREENING_SECTIONS = ("roots", "entropy", "retrieval", "verification")
