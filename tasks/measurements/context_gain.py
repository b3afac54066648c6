"""Context gain: how much of its context a policy uses on documents that it was never trained on.

    gain = loss(targets | at least 256 tokens before them) - loss(targets | up to 2,048)      nats a token

Both losses are of the same target tokens, the last ones of windows cut from held-out text: the documents of a group (a
distribution, a title) one after the other, so that short documents give long windows of related text. A model that
reads far back has a positive gain. A policy whose native context is shorter than the window is measured with its rotary
positions stretched by the rule of ``models.extension`` and no training: read plainly beyond what it knows, it would be
so lost (1.4 nats a token, measured) that any training would look like progress. [ours]
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from transformers import PreTrainedTokenizerBase

from models.extension import ExtensionConfig, extend
from models.policy import DTypeName, load_config, load_policy, native_context, pick_device
from models.scoring import Context, Scorer
from models.training_limits import torch_threads
from storage.checkpoints import StepKey, checkpoint_path
from storage.corpora import Corpus
from storage.errors import ConfigError, IntegrityError
from storage.files import read_json, write_json
from storage.home import Home
from storage.policies import policy_folder, policy_record
from storage.tables import RowReader
from tasks.corpus.splitting import unit_hash
from tasks.progress import progress

STEP = "context-gain"
CODE_VERSION = 6
SEPARATOR = "\n\n"
HELDOUT = "heldout"


class ContextGainConfig(BaseModel):
    """What is measured. 48 windows cost about 115,000 tokens of forward pass a policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    long: int = Field(2048, ge=2, description="Tokens of a window: the long context, targets included. [ours 5]")
    short: int = Field(256, ge=1, description="Tokens before the first target in the short context. [ours 5]")
    targets: int = Field(64, ge=1, description="Tokens at a window's end whose loss is compared. [ours 5]")
    windows: int = Field(48, ge=1, description="Windows, spread over the held-out groups by hash. [ours 5]")
    seed: int = Field(0, description="Salt of the hash that chooses groups and places. [ours 5]")
    dtype: DTypeName = Field("float32", description="Type the policy computes in. [ours 5]")
    device: str = Field("auto", description="auto (the GPU when there is one), cpu, cuda. [ours 5]")
    threads: int | None = Field(None, ge=1, description="Torch threads; null: torch's choice. [ours 5]")
    tokens_per_batch: int = Field(8192, ge=1, description="Tokens of a forward pass. [ours 5]")
    remote_code: bool = Field(
        False, description="Run model code that lies in the policy's folder. Off unless you trust it. [ours 5]"
    )

    @model_validator(mode="after")
    def _contexts_differ(self) -> ContextGainConfig:
        if self.short + self.targets >= self.long:
            raise ValueError(f"short {self.short} + targets {self.targets} must be less than long {self.long}")
        return self


class ContextGain(BaseModel):
    """The result for one policy. Losses are means over windows, nats a token; null when nothing could be measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    corpus: str
    gain: float | None = Field(description="loss_short - loss_long.")
    standard_error: float | None = Field(description="Of the gain, over windows; null for fewer than two.")
    loss_long: float | None
    loss_short: float | None
    windows: int
    groups: int = Field(description="Different groups of documents behind the windows.")
    tokens: int = Field(description="Target tokens.")
    native_context: int = Field(description="Context the policy's configuration declares, tokens.")
    note: str = Field("", description="What a reader has to know: too little text, stretched positions.")


def context_gain(home: Home, policy: str, corpus: Corpus, config: ContextGainConfig) -> ContextGain:
    """The context gain of a registered policy on a corpus's held-out part; recorded, so a second call reads it.

    A corpus without a held-out group that is long enough gives a result that says so. Raises ``PolicyError`` when
    the policy can't be loaded or gives NaN, and ``ConfigError`` when its positions end before ``config.long``.
    """
    digest = policy_record(home, policy).digest
    key = gain_key(digest, corpus.digest, config)
    known = _recorded(home, key)
    if known is not None:
        return known
    with home.lock(f"{STEP}-{key.digest[:16]}", wait_seconds=3600):
        known = _recorded(home, key)
        if known is None:
            home.journal({"event": "started", "step": STEP, "key": key.digest})
            known = _measure(home, digest, corpus, config)
            write_json(
                home / checkpoint_path(key),
                {"key": key.model_dump(mode="json"), "result": known.model_dump(mode="json")},
            )
            home.journal({"event": "finished", "step": STEP, "key": key.digest})
        return known


def gain_key(policy: str, corpus: str, config: ContextGainConfig) -> StepKey:
    """What a measurement depends on."""
    settings = config.model_dump(mode="json") | {"device": pick_device(config.device).type}
    return StepKey(step=STEP, code_version=CODE_VERSION, inputs={"policy": policy, "corpus": corpus}, config=settings)


def heldout_windows(
    home: Home, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, config: ContextGainConfig
) -> list[tuple[str, list[int]]]:
    """(group, ``config.long`` token ids) of up to ``config.windows`` windows.

    Groups come in the order of a hash of their name; each gives one window before any gives a second. Windows of a
    group do not overlap, their common shift and their order come from the hash too.
    """
    documents = RowReader(home.path, corpus.documents, ["text", "part", "group"])
    try:
        chosen: list[tuple[str, list[int]]] = []
        spare: list[tuple[int, int, array[int]]] = []
        for group, rows in _long_groups(documents, config):
            text = SEPARATOR.join(documents[row]["text"] for row in rows)
            for turn, ids in enumerate(_cuts(group, text, tokenizer, config)):
                if turn == 0:
                    chosen.append((group, ids))
                else:
                    spare.append((turn, len(chosen), array("i", ids)))
            if len(chosen) == config.windows:
                return chosen
        names = [group for group, _ in chosen]
        extra = sorted(spare, key=lambda entry: entry[:2])[: config.windows - len(chosen)]
        return chosen + [(names[place - 1], ids.tolist()) for _, place, ids in extra]
    finally:
        documents.close()


def _long_groups(documents: RowReader, config: ContextGainConfig) -> list[tuple[str, list[int]]]:
    """(group, rows of its first documents) of the held-out groups that may be long enough, in the order of the hash.

    A group gives at most its first ``8 x long x windows`` bytes, so that one large group does not have to be tokenised.
    """
    rows: dict[str, list[int]] = {}
    sizes: Counter[str] = Counter()
    for row, document in enumerate(documents):
        group = document["group"]
        if document["part"] == HELDOUT and sizes[group] < 8 * config.long * config.windows:
            rows.setdefault(group, []).append(row)
            sizes[group] += len(document["text"].encode("utf-8")) + len(SEPARATOR)
    # A token of a byte-level vocabulary is at least one byte.
    enough = [group for group in rows if sizes[group] >= config.long]
    return [
        (group, rows[group]) for group in sorted(enough, key=lambda name: unit_hash("gain-group", config.seed, name))
    ]


def _cuts(group: str, text: str, tokenizer: PreTrainedTokenizerBase, config: ContextGainConfig) -> Iterator[list[int]]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    count = len(ids) // config.long
    if count == 0:
        return
    shift = int(unit_hash("gain-shift", config.seed, group) * (len(ids) - count * config.long + 1))
    order = sorted(range(count), key=lambda place: unit_hash("gain-place", config.seed, group, place))
    for place in order[: config.windows]:
        start = shift + place * config.long
        yield ids[start : start + config.long]


def _measure(home: Home, digest: str, corpus: Corpus, config: ContextGainConfig) -> ContextGain:
    folder = policy_folder(home, digest)
    own = load_config(folder, remote_code=config.remote_code)
    native = native_context(own)
    try:
        reaching = extend(own, ExtensionConfig(context=config.long)) if native < config.long else own
    except ConfigError as error:
        raise ConfigError(error.message, hint=f"Set evaluation.long to at most {native}.") from error
    policy = load_policy(
        folder,
        device=config.device,
        dtype=config.dtype,
        remote_code=config.remote_code,
        digest=digest,
        config=reaching,
    )
    windows = heldout_windows(home, corpus, policy.tokenizer, config)
    result = ContextGain(
        policy=digest,
        corpus=corpus.digest,
        gain=None,
        standard_error=None,
        loss_long=None,
        loss_short=None,
        windows=len(windows),
        groups=len({group for group, _ in windows}),
        tokens=len(windows) * config.targets,
        native_context=native,
        note=_note(len(windows), config, native),
    )
    if not windows:
        return result
    with torch_threads(config.threads):
        losses = _losses(policy.model, [ids for _, ids in windows], config)
    return of_losses(result, losses, config)


def of_losses(
    whole: ContextGain, losses: tuple[Sequence[float], Sequence[float]], config: ContextGainConfig
) -> ContextGain:
    """A result with the means over its windows' losses (long and short context, nats a token).

    A window with a token that the policy can't produce has an infinite loss: it is left out, and the note says so.
    """
    finite = [pair for pair in zip(*losses, strict=True) if all(map(math.isfinite, pair))]
    result = whole
    if out := whole.windows - len(finite):
        said = f"{out} windows left out: the policy gives one of their tokens no probability"
        note = "; ".join(filter(None, (whole.note, said)))
        result = whole.model_copy(update={"windows": len(finite), "tokens": len(finite) * config.targets, "note": note})
    if not finite:
        return result
    gains = [short - long for long, short in finite]
    mean = math.fsum(gains) / len(gains)
    variance = math.fsum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1) if len(gains) > 1 else None
    return result.model_copy(
        update={
            "gain": mean,
            "standard_error": None if variance is None else math.sqrt(variance / len(gains)),
            "loss_long": math.fsum(long for long, _ in finite) / len(finite),
            "loss_short": math.fsum(short for _, short in finite) / len(finite),
        }
    )


def _losses(model: Any, windows: Sequence[list[int]], config: ContextGainConfig) -> tuple[list[float], list[float]]:
    """Mean loss of the targets of each window (nats a token), with the long and with the short context."""
    scorer = Scorer(model, tokens_per_batch=config.tokens_per_batch)
    shorter = config.short + config.targets
    contexts = [Context(ids, range(config.long - config.targets, config.long)) for ids in windows]
    contexts += [Context(ids[-shorter:], range(config.short, shorter)) for ids in windows]
    tokens = sum(context.needed for context in contexts)
    with progress("context gain", total=tokens, unit="tokens") as advance:
        scores = scorer.score(contexts, progress=advance)
    losses = [math.fsum(score.nll.tolist()) / config.targets for score in scores]
    return losses[: len(windows)], losses[len(windows) :]


def _note(found: int, config: ContextGainConfig, native: int) -> str:
    notes = []
    if found < config.windows:
        notes.append(
            f"the held-out text gives {found} windows of {config.long} tokens, {config.windows} were asked for"
        )
    if native < config.long:
        notes.append(f"measured with its positions stretched from {native} to {config.long} tokens, untrained")
    return "; ".join(notes)


def _recorded(home: Home, key: StepKey) -> ContextGain | None:
    path = home / checkpoint_path(key)
    if not path.exists():
        return None
    try:
        return ContextGain.model_validate(read_json(path)["result"])
    except (IntegrityError, KeyError, TypeError, ValidationError) as error:
        home.journal({"event": "distrusted", "step": STEP, "key": key.digest, "why": str(error)})
        path.unlink(missing_ok=True)
        return None
