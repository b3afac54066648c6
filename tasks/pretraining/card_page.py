"""The model card of a base model as Markdown: what it is, what it was made from, and how far context helps it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.pretraining.card import FLOORS, CardFigures
from tasks.pretraining.card_trial import CardConfig

NAMES = {
    "second_over_first": "second copy over first",
    "roots_with_ten": "roots with ten positives or more",
    "mean_gain": "mean gain of the positives",
    "retrieved_over_random": "retrieved over random",
}

HEADER = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [policylong, qwen2, python]
---

# The quickstart's base model

A small Qwen2-architecture language model, trained from nothing by `policylong pretrain` on the documentation and
source of Python packages. It exists so that the on-policy loop can be seen on a laptop: it is good at being helped by
context and at nothing else. It writes no useful text. Load its tokenizer with `PreTrainedTokenizerFast`:
`AutoTokenizer` puts Qwen2's own pre-tokenizer in the place of this one.
"""


def render_card(record: Mapping[str, Any], figures: CardFigures, config: CardConfig) -> str:
    """The card: ``record`` is what ``models.pretraining`` left beside the weights (``pretraining.json``)."""
    return "\n".join([HEADER, _made_of(record), _measured(figures, config), _again(record), _packages(record)])


def _made_of(record: Mapping[str, Any]) -> str:
    config = record["config"]
    mixture = config["mixture"]
    plain = 1 - mixture["repeat"] - mixture["paired"]
    early = f"{mixture['early_tokens'] / 1e6:.0f}M"
    return f"""## How it was made

{_table(("", ""), _facts(record))}

Rows are of three kinds: {plain:.0%} plain packed text; {mixture["repeat"]:.0%} in which passages of
{mixture["passage_min"]} to {mixture["passage_max"]} tokens come again at a later place ({mixture["early_repeat"]:.0%}
at the start; over the first {early} tokens the share falls and the distances grow to a whole row);
{mixture["paired"]:.0%} shaped like a verification: one to three chunks of {mixture["chunk_min"]} to
{mixture["chunk_max"]} tokens, an empty line, then a text of the same distribution that names the same rare thing and
copies no run of {mixture["shared_run"]} tokens from them ({mixture["unrelated"]:.0%} of the chunks come from anywhere).

Nothing it is measured on was in its training: packages are dealt into parts by a hash of their name, and a training
document with more than a fifth of its long lines in another part was left out.
"""


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    config = record["config"]
    curve = record["loss_curve"]
    size = f"hidden {config['hidden']}, {config['layers']} layers, {config['heads']} heads, tied embeddings"
    text = f"{record['characters'] / 1e6:.1f}M characters, {record['corpus_tokens'] / 1e6:.1f}M tokens"
    schedule = (
        f"warm-up {config['warmup_tokens'] / 1e6:.1f}M tokens, plateau, linear decay to zero over the last"
        f" {config['decay_tokens'] / 1e6:.1f}M"
    )
    rates = f"{config['optimizer']} {config['muon_learning_rate']} on matrices, AdamW {config['adamw_learning_rate']}"
    first, last = curve[0], curve[-1]
    return [
        ("parameters", f"{record['parameters']:,} ({size})"),
        ("tokenizer", f"byte-level BPE, {config['vocabulary']:,} entries, no beginning-of-text token"),
        ("native context", f"{config['context']} tokens"),
        ("text", f"{record['documents']:,} documents, {text}"),
        ("its sha256", f"`{record['corpus_digest']}`"),
        ("documents left out", ", ".join(f"{n} {reason}" for reason, n in sorted(record["refused"].items())) or "none"),
        ("trained on", f"{record['trained_tokens'] / 1e6:.1f}M tokens, {config['rows_per_step']} rows a step"),
        ("learning rates", f"{rates} on the rest; {schedule}"),
        ("seed", str(config["seed"])),
        ("time", f"{record['seconds'] / 60:.0f} minutes of a shared machine, torch threads: {config['threads']}"),
        ("training loss", f"{first[1]:.2f} after {first[0] / 1e6:.2f}M tokens, {last[1]:.2f} at the end"),
    ]


def _measured(figures: CardFigures, config: CardConfig) -> str:
    missed = figures.missed()
    verdict = "All floors are reached." if not missed else f"**Missed: {', '.join(NAMES[name] for name in missed)}.**"
    copies = f"{figures.first_copy_loss:.3f} / {figures.second_copy_loss:.3f}"
    least_roots = f"at least {FLOORS['roots_with_ten']:.0%}"
    rows = [
        ("loss on held-out packages, nats per token", f"{figures.heldout_loss:.3f}", ""),
        ("loss on an unseen passage / on its second copy", copies, ""),
        ("second copy over first", f"{figures.second_over_first:.3f}", f"at most {FLOORS['second_over_first']}"),
        ("uncertain positions a root", f"{figures.positions_per_root:.1f}", ""),
        ("judged pairs of position and chunk", f"{figures.pairs:,}", ""),
        ("positives (pairs kept)", f"{figures.positives:,} ({figures.kept_rate:.1%})", ""),
        ("different chunks kept, summed over roots", f"{figures.chunks_kept:,}", ""),
        ("positives a root, mean", f"{figures.positives_per_root:.1f}", ""),
        ("roots with ten positives or more", f"{figures.roots_with_ten:.0%}", least_roots),
        ("mean gain of the positives", f"{figures.mean_gain:.3f}", f"at least {FLOORS['mean_gain']}"),
        ("kept where the chunk holds the bigram (literal)", f"{figures.kept_literal:.1%}", ""),
        ("kept elsewhere", f"{figures.kept_other:.1%}", ""),
        ("literal share of the judged pairs", f"{figures.literal_share:.1%}", ""),
        ("kept of random chunks", f"{figures.random_kept_rate:.2%} of {figures.random_pairs:,}", ""),
        (
            "retrieved over random",
            f"{figures.retrieved_over_random:.2f}",
            f"at least {FLOORS['retrieved_over_random']}",
        ),
        ("forward passes", f"{figures.passes:,}", ""),
    ]
    return f"""## How far context helps it

{figures.roots} roots of at most {config.root_tokens} tokens and {figures.index_chunks:,} chunks of at most
{config.chunk_tokens}, all from packages it was not trained on; all-MiniLM-L6-v2, K = {config.top_k};
alpha = {config.entropy.alpha}, epsilon = {config.epsilon}. Chunks of the root's own document and chunks that share a
run of 64 characters with the root are excluded, for the random chunks too. Copies: {config.copies} passages of
{config.passage} tokens with as many tokens of another text between the two.

{_table(("figure", "value", "floor"), rows)}

{verdict}
"""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _again(record: Mapping[str, Any]) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(record["libraries"].items()))
    remarks = "".join(f"\n- {remark}" for remark in record.get("remarks", ()))
    remarks = f"\nAbout this run:\n{remarks}\n" if remarks else ""
    return f"""## Again

    policylong pretrain FOLDER                   # train it into FOLDER and measure it
    policylong pretrain FOLDER --measure-only    # measure the model in FOLDER again

Trained with {libraries}
and the packages below; other versions of the packages are another corpus and give another
model of the same kind. `pretraining.json` holds the configuration and the loss curve, `card.json` the figures.
{remarks}"""


def _packages(record: Mapping[str, Any]) -> str:
    names = ", ".join(f"{name} {version}" for name, version in sorted(record["packages"].items()))
    return f"""## The packages that were installed

Those whose name hashes into the part `pretrain` were trained on; all are open source, under their own licences.

{names}
"""
