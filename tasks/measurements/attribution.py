"""Attributable gain at length: does a dependency that was found in some 2K tokens survive in the assembled sample?

    gain = (H_without - H_with) / H_root                                    [ours, docs/method.md 6]

H_with is the entropy at the dependency's position in the sample as it is, H_without with the tokens of its chunk's
segment replaced by those of random chunks, exactly as many; H_root is the recorded entropy without any context, the
denominator of the gain in the verdict (docs/method.md 2.5), so the two compare. All else stays in its place: where
another chunk of the sample says the same, the gain is small. The random chunks are none of the sample's and pass the
exclusion rules of docs/method.md 2.4 against each of its roots.

One pass over a sample serves all its dependencies with their chunks, one pass per replaced segment those without.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from pydantic import Field

from models.extension import ExtensionConfig, extend
from models.policy import Policy, load_config, load_policy, native_context
from models.scoring import Context, Scorer
from models.training_limits import torch_threads
from storage.errors import ConfigError
from storage.home import Home
from storage.policies import policy_folder, policy_record
from storage.tables import RowReader, read_table
from tasks.corpus.splitting import unit_hash
from tasks.measurements.attribution_figures import AttributableGain, Measured, summary
from tasks.measurements.dependencies import Chosen, choose_dependencies
from tasks.measurements.measurement import MeasuredVersion, MeasurementConfig, measured_once, measurement_key
from tasks.progress import progress
from tasks.screening.passages import Passages
from tasks.screening.retrieval import exclusion

STEP = "attributable-gain"
CODE_VERSION = 5
_DRAWS = 64


class AttributionConfig(MeasurementConfig):
    """What is measured. A dependency costs at most two passes over its sample: 64 of 131,072 tokens, 17M tokens."""

    dependencies: int = Field(64, ge=1, description="Dependencies of a version, spread over their distances. [ours 6]")


def attributable_gain(home: Home, version: str, policy: str, config: AttributionConfig) -> AttributableGain:
    """The attributable gain of a published version under a registered policy; recorded, so a second call reads it.

    ``version`` is a round number, a prefix or full, ``policy`` a digest or prefix: the one that screened, or the one
    trained on it. A version without dependencies gives a result that says so. Samples longer than the policy's native
    context are read with its rotary positions stretched by the rule of ``models.extension`` and no training. Raises
    ``PolicyError`` when the policy can't be loaded, reads other tokens or gives NaN, and ``ConfigError`` when its
    positions end before the sample does.
    """
    measured = MeasuredVersion.open(home, version)
    digest = policy_record(home, policy).digest
    key = measurement_key(STEP, CODE_VERSION, {"policy": digest, "version": measured.version}, config)
    return measured_once(home, key, AttributableGain, lambda: _measure(measured, digest, config))


def _measure(version: MeasuredVersion, digest: str, config: AttributionConfig) -> AttributableGain:
    home, folder = version.home, policy_folder(version.home, digest)
    chosen, counts = choose_dependencies(home, version.refs("samples"), wanted=config.dependencies, seed=config.seed)
    native = native_context(load_config(folder, remote_code=config.remote_code))
    result = partial(
        summary,
        counts=counts,
        policy=digest,
        version=version.version,
        epsilon=version.verification.epsilon,
        native_context=native,
    )
    if not chosen:
        return result([], sample_tokens=0, tokens_read=0)
    version.check_tokens(digest, folder, remote_code=config.remote_code)
    length = max(one.length for one in chosen)
    policy = _reaching(version, digest, length, config)
    with torch_threads(config.threads):
        measured, tokens = _gains(version, policy, chosen, config)
    return result(measured, sample_tokens=length, tokens_read=tokens, left_out=len(chosen) - len(measured))


def _reaching(version: MeasuredVersion, digest: str, length: int, config: AttributionConfig) -> Policy:
    """The policy, its positions stretched where they end before ``length`` tokens."""
    folder = policy_folder(version.home, digest)
    own = load_config(folder, remote_code=config.remote_code)
    native = native_context(own)
    try:
        reaching = extend(own, ExtensionConfig(context=length)) if native < length else own
    except ConfigError as error:
        raise ConfigError(
            error.message, hint=f"Measure it on samples of at most {native} tokens (build.assembly.target_tokens)."
        ) from error
    return load_policy(
        folder,
        device=config.device,
        dtype=config.dtype,
        remote_code=config.remote_code,
        digest=digest,
        config=reaching,
    )


def _gains(
    version: MeasuredVersion, policy: Policy, chosen: Sequence[Chosen], config: AttributionConfig
) -> tuple[list[Measured], int]:
    """Every dependency that could be measured, and the tokens read for it; a sample's contexts make its batches."""
    scorer = Scorer(policy.model, tokens_per_batch=config.tokens_per_batch)
    passages = version.passages(policy.tokenizer)
    rows = read_table(version.home.path, version.refs("roots")[0], ["root_id"])["root_id"].to_list()
    root_rows = {root_id: row for row, root_id in enumerate(rows)}
    samples = version.refs("samples")
    found: list[Measured] = []
    copies = version.verification.copy_characters
    with progress("attributable gain", total=len(chosen), unit="dependencies") as advance:
        for file, of_file in groupby(chosen, key=lambda one: one.file):
            reader = RowReader(version.home.path, samples[file], ["sample_id", "input_ids", "segments"], kept_bytes=0)
            for row, group in groupby(of_file, key=lambda one: one.row):
                here, sample = list(group), reader[row]
                swapped = _replacements(sample, here, passages, root_rows, copies, config.seed)
                found.extend(_of_sample(sample, [one for one in here if one.chunk_id in swapped], swapped, scorer))
                advance(len(here))
            reader.close()
    passages.close()
    return found, scorer.tokens_read


def _of_sample(
    sample: Mapping[str, Any], chosen: Sequence[Chosen], swapped: Mapping[str, array[int]], scorer: Scorer
) -> list[Measured]:
    by_chunk: dict[str, list[int]] = {}
    for one in chosen:
        by_chunk.setdefault(one.chunk_id, []).append(one.position)
    places = sorted({one.position for one in chosen})
    ids = array("i", sample["input_ids"])
    contexts = [Context(ids, places)]
    contexts += [Context(swapped[chunk], positions) for chunk, positions in by_chunk.items()]
    inside, *outside = (score.entropy.tolist() for score in scorer.score(contexts))
    with_chunk = dict(zip(places, inside, strict=True))
    without = {
        (chunk, position): entropy
        for (chunk, positions), entropies in zip(by_chunk.items(), outside, strict=True)
        for position, entropy in zip(positions, entropies, strict=True)
    }
    return [
        Measured(one, (without[one.chunk_id, one.position] - with_chunk[one.position]) / one.entropy_before)
        for one in chosen
    ]


def _replacements(
    sample: Mapping[str, Any],
    chosen: Iterable[Chosen],
    passages: Passages,
    root_rows: Mapping[str, int],
    copy_characters: int,
    seed: int,
) -> dict[str, array[int]]:
    """Chunk id → the sample's tokens with that chunk's segment replaced; without an entry where no chunk is allowed."""
    present = {segment["chunk_id"] for segment in sample["segments"]}
    roots = [root_rows[segment["root_id"]] for segment in sample["segments"] if segment["kind"] == "root"]
    spans = {s["chunk_id"]: (s["start"], s["end"]) for s in sample["segments"] if s["kind"] == "positive"}
    verdicts: dict[int, bool] = {}

    def allowed(number: int) -> bool:
        if number not in verdicts:
            verdicts[number] = passages.chunk(number).chunk_id not in present and all(
                exclusion(passages, root, number, copy_characters) is None for root in roots
            )
        return verdicts[number]

    swapped: dict[str, array[int]] = {}
    for chunk in sorted({one.chunk_id for one in chosen}):
        start, end = spans[chunk]
        tokens = random_tokens(end - start, (seed, sample["sample_id"], chunk), passages, allowed)
        if tokens is not None:
            ids = array("i", sample["input_ids"])
            ids[start:end] = array("i", tokens)
            swapped[chunk] = ids
    return swapped


def random_tokens(
    wanted: int, words: tuple[str | int, ...], passages: Passages, allowed: Callable[[int], bool]
) -> list[int] | None:
    """Exactly ``wanted`` tokens of random chunks, drawn by a hash of ``words``, the last one cut; None when too few of
    the draws are allowed.
    """
    ids: list[int] = []
    for draw in range(_DRAWS * (1 + wanted)):
        number = int(unit_hash("replacement", *words, draw) * passages.chunk_count)
        if allowed(number):
            ids.extend(passages.chunk_ids(number))
        if len(ids) >= wanted:
            return ids[:wanted]
    return None
