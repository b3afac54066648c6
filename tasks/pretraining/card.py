"""The base model's card: is it helped by context? Measured on text that it was not trained on.

The method written down as literally as it can be, with no cache, table or service in between, so it is also an
independent check on the steps that do it at scale.

    figures = measure_card(scorer, tokenizer, screened, heldout, embedder, CardConfig())
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from models.scoring import Context, Scorer
from tasks.corpus.documents import RawDocument
from tasks.corpus.splitting import unit_hash
from tasks.pretraining.card_trial import CardConfig, Judged, TextEmbedder, Trial

FLOORS = {"second_over_first": 0.3, "roots_with_ten": 0.8, "mean_gain": 0.6, "retrieved_over_random": 4.0}
"""What a base model of the quickstart has to reach: at most the first, at least the others. Ours."""


@dataclass(frozen=True, slots=True)
class CardFigures:
    """The figures; losses in nats per token, rates and shares between 0 and 1.

    ``pairs``: judged (position, chunk) pairs. ``positives``: pairs kept, over all roots. ``chunks_kept``: different
    (root, chunk) among them. ``roots_with_ten``: share of roots with ten positives or more. ``passes``: forward passes.
    """

    heldout_loss: float
    first_copy_loss: float
    second_copy_loss: float
    second_over_first: float
    roots: int
    index_chunks: int
    positions_per_root: float
    pairs: int
    positives: int
    positives_per_root: float
    chunks_kept: int
    roots_with_ten: float
    mean_gain: float
    kept_rate: float
    kept_literal: float
    kept_other: float
    literal_share: float
    random_pairs: int
    random_kept_rate: float
    retrieved_over_random: float
    passes: int

    def missed(self) -> list[str]:
        """The names of the floors that were not reached."""
        values = asdict(self)
        return [
            n for n, floor in FLOORS.items() if (values[n] > floor if n == "second_over_first" else values[n] < floor)
        ]


def measure_card(
    scorer: Scorer,
    tokenizer: PreTrainedTokenizerBase,
    screened: Sequence[RawDocument],
    heldout: Sequence[RawDocument],
    embedder: TextEmbedder,
    config: CardConfig,
    report: Callable[[str], None] = lambda line: None,
) -> CardFigures:
    """All figures of the card. ``report`` is told about progress, a line at a time."""
    loss = _plain_loss(scorer, _stream(heldout, tokenizer, config), config)
    first, second = _copy_losses(scorer, _stream(screened, tokenizer, config), config)
    report(f"held-out loss {loss:.3f}; unseen passages {first:.3f}, second copy {second:.3f}")
    trial = Trial(scorer, tokenizer, screened, embedder, config)
    retrieved: list[Judged] = []
    random: list[Judged] = []
    positions = 0
    for number in range(len(trial.roots)):
        uncertain, from_index, at_random = trial.screen(number)
        positions += uncertain
        retrieved += from_index
        random += at_random
        if (number + 1) % 10 == 0:
            found = sum(judged.gain > config.epsilon for judged in retrieved)
            report(f"{number + 1} of {len(trial.roots)} roots: {found} of {len(retrieved)} pairs kept")
    kept = [judged for judged in retrieved if judged.gain > config.epsilon]
    per_root = np.bincount([judged.root for judged in kept], minlength=len(trial.roots))
    kept_rate = _rate(retrieved, config)
    random_rate = _rate(random, config)
    return CardFigures(
        heldout_loss=loss,
        first_copy_loss=first,
        second_copy_loss=second,
        second_over_first=second / first,
        roots=len(trial.roots),
        index_chunks=len(trial.chunks),
        positions_per_root=positions / len(trial.roots),
        pairs=len(retrieved),
        positives=len(kept),
        positives_per_root=len(kept) / len(trial.roots),
        chunks_kept=len({(judged.root, judged.chunk) for judged in kept}),
        roots_with_ten=float((per_root >= 10).mean()),
        mean_gain=float(np.mean([judged.gain for judged in kept])) if kept else 0.0,
        kept_rate=kept_rate,
        kept_literal=_rate([judged for judged in retrieved if judged.literal], config),
        kept_other=_rate([judged for judged in retrieved if not judged.literal], config),
        literal_share=sum(judged.literal for judged in retrieved) / max(1, len(retrieved)),
        random_pairs=len(random),
        random_kept_rate=random_rate,
        retrieved_over_random=kept_rate / random_rate if random_rate else float("inf"),
        passes=scorer.passes,
    )


def _rate(judged: Sequence[Judged], config: CardConfig) -> float:
    """Share of the pairs whose gain is larger than epsilon."""
    return sum(pair.gain > config.epsilon for pair in judged) / max(1, len(judged))


def _stream(documents: Sequence[RawDocument], tokenizer: PreTrainedTokenizerBase, config: CardConfig) -> list[int]:
    """The documents' tokens, one after the other in the order of a hash, as many as the measurements read."""
    wanted = max(config.loss_rows * config.row_tokens, 4 * config.copies * config.passage)
    ids: list[int] = []
    for document in sorted(documents, key=lambda d: unit_hash("card", config.seed, d.source)):
        ids += [*tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"], tokenizer.eos_token_id]
        if len(ids) >= wanted:
            break
    return ids


def _plain_loss(scorer: Scorer, ids: Sequence[int], config: CardConfig) -> float:
    """Mean loss over rows of consecutive tokens; the first token of a row is not predicted."""
    size = config.row_tokens
    rows = [ids[start : start + size] for start in range(0, len(ids) - size + 1, size)][: config.loss_rows]
    scores = scorer.score([Context(row, range(1, size)) for row in rows])
    return float(np.mean([score.nll.mean().item() for score in scores]))


def _copy_losses(scorer: Scorer, ids: Sequence[int], config: CardConfig) -> tuple[float, float]:
    """Mean loss on a passage where it stands first and where it stands again: other text, passage, other text, passage.

    The first token of either copy is left out: nothing could say that the passage begins.
    """
    n = config.passage
    blocks = [ids[start : start + n] for start in range(0, len(ids) - n + 1, n)]
    contexts: list[Context] = []
    for row in range(min(config.copies, len(blocks) // 3)):
        before, passage, between = (blocks[row + part * (len(blocks) // 3)] for part in range(3))
        row_ids = [*before[: n // 2], *passage, *between, *passage]
        first, second = n // 2, n // 2 + 2 * n
        contexts.append(Context(row_ids, [*range(first + 1, first + n), *range(second + 1, second + n)]))
    losses = np.asarray([score.nll.numpy() for score in scorer.score(contexts)])
    return float(losses[:, : n - 1].mean()), float(losses[:, n - 1 :].mean())
