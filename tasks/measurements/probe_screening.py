"""The probe set under any policy, and the two nulls of its comparison between rounds (docs/method.md 6, ours).

    probe_null(home, corpus, policy, policy, config, embedder=…, index=…)    the same checkpoint again
    probe_null(home, corpus, policy, other, config, embedder=…, index=…)     one trained as many steps on standard data

A round's overlap with the one before says something only beside these. The same checkpoint a second time is computed in
other batches: what differs then is the last bits of the numbers, which is as equal as two screenings get. Screening
runs through the steps of a round, so it is done once and shared with the rounds themselves.
"""

from __future__ import annotations

from pathlib import Path

from models.embedders import EmbedderConfig
from storage.corpora import Corpus
from storage.errors import ConfigError
from storage.home import Home
from storage.policies import policy_folder, policy_record
from storage.tables import read_table
from storage.vectors import IndexConfig
from tasks.corpus.tokenizing import tokenizer_digest
from tasks.measurements.probe import ProbeComparison, ProbeSet, compare_probe
from tasks.rounds.building import BuildConfig, NumericConfig, check_policy, policy_inputs
from tasks.screening.entropy import EntropyInputs, screen_entropy
from tasks.screening.retrieval import RetrievalInputs, retrieve
from tasks.screening.roots import RootsInputs, cut_roots, probe_rows
from tasks.screening.verification import VerificationInputs, verify


def screen_probe(
    home: Home,
    corpus: Corpus,
    policy: str,
    config: BuildConfig,
    *,
    embedder: EmbedderConfig,
    index: IndexConfig,
    numeric: NumericConfig | None = None,
) -> ProbeSet:
    """The probe set as a registered policy (digest or prefix) screens it; finished steps are read, not done again.

    ``config`` is a round's, its recipe's settings put in; ``numeric`` stands in for its own. Raises ``ConfigError``
    when it has no probe roots or the policy's context is too short.
    """
    rows = probe_rows(config.roots)
    if not rows:
        raise ConfigError("there is no probe set to screen: build.roots.probe_roots is 0.", hint="Set it, say to 12.")
    digest = policy_record(home, policy).digest
    folder = policy_folder(home, digest)
    check_policy(folder, corpus, config)
    inputs = policy_inputs(digest, folder, numeric or config.numeric)
    roots = cut_roots.run(
        home,
        RootsInputs(
            documents=corpus.documents,
            tokenizer=tokenizer_digest(Path(folder)),
            rounds=config.rounds,
            tokenizer_folder=str(folder),
        ),
        config.roots,
    )["roots"]
    screened = screen_entropy.run(
        home,
        EntropyInputs(roots=roots, first_root=rows.start, stop_root=rows.stop, policy=inputs),
        config.entropy,
    )
    candidates = retrieve.run(
        home,
        RetrievalInputs(
            positions=screened["positions"],
            roots=roots,
            corpus=corpus.digest,
            embedder=embedder,
            index=index,
            exact=index.exact,
        ),
        config.retrieval,
    )
    verdicts = verify.run(
        home,
        VerificationInputs(
            positions=screened["positions"],
            candidates=candidates["candidates"],
            roots=roots,
            corpus=corpus.digest,
            policy=inputs,
        ),
        config.verification.exhaustive,
    )
    refs = {**screened, **verdicts}
    return ProbeSet(**{name: read_table(home.path, refs[name]) for name in ("screened", "positions", "verdicts")})


def probe_null(
    home: Home,
    corpus: Corpus,
    policy_a: str,
    policy_b: str,
    config: BuildConfig,
    *,
    embedder: EmbedderConfig,
    index: IndexConfig,
) -> ProbeComparison:
    """Overlap and drift of the probe set from one registered policy to another, or to the same one once more.

    The same one is read in batches of half the tokens, so that it is computed again and not looked up.
    """
    first, second = (policy_record(home, policy).digest for policy in (policy_a, policy_b))
    again = config.numeric.model_copy(update={"tokens_per_batch": max(1, config.numeric.tokens_per_batch // 2)})
    before = screen_probe(home, corpus, first, config, embedder=embedder, index=index)
    after = screen_probe(
        home, corpus, second, config, embedder=embedder, index=index, numeric=again if first == second else None
    )
    return compare_probe(before, after)
