"""Verdicts scored again: does the recorded policy give the recorded entropies? (``policylong audit --deep N``)

N verdicts are drawn with a seed, each of the version's verdicts with the same chance. The root alone gives the entropy
before, the chunk in front of it the entropy after, each in a context of its own; the likelihoods come with them, and
``literal`` is looked up in the tokens again. Gain and ``kept`` follow from these by the audit of the rows.

Numbers agree to a tolerance (nats), because a context scored alone is another matrix product than one in its batch:

    float32, on the recorded kind of device      1e-3    ours: ten times what two computations of an entropy in float32
                                                         are held to in deploy/checks/agreement.py
    float32, on another kind of device           1e-2    ours: other kernels and orders of summation, layer on layer
    bfloat16 or float16                          0.25    inferred: bfloat16 keeps 8 bits, so logits around 16 are off by
                                                         some 0.03, and an entropy by several of that

A policy that was screened in 16 bits is scored in the same 16 bits; where this machine can't, the last line holds too.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch

from models.scoring import Context
from storage.errors import ConfigError, PolicyError, PolicylongError
from storage.findings import Finding, failed, not_checkable, passed
from storage.home import Home
from storage.manifests import Manifest
from storage.policies import policy_folder
from storage.tables import RowReader
from storage.versions import table_refs
from tasks.audit.chain import corpus_at_hand
from tasks.progress import progress
from tasks.resources import PolicyInputs, ReadyPolicy, policy_for
from tasks.screening.passages import Passages
from tasks.screening.verification import is_literal, prefixed, separator_ids

CHECK = "re-scored verdicts"
SAME_DEVICE, OTHER_DEVICE, SIXTEEN_BITS = 1e-3, 1e-2, 0.25
"""Tolerances in nats, see above."""
MOST_NAMED = 20
"""Deviating verdicts that get a line of their own; more are counted."""
_AT_ONCE = 64
_NUMBERS = ("entropy_before", "entropy_after", "nll_before", "nll_after")


@dataclass(frozen=True, slots=True)
class Environment:
    """In what the verdicts are scored again, and how near the numbers have to come (nats)."""

    device: str
    tolerance: float
    said: str


def rescore(home: Home, version: str, manifest: Manifest, count: int, seed: int) -> Iterator[Finding]:
    """Draws ``count`` verdicts (all, where there are fewer) and scores them again; one finding for each that deviates.

    *not-checkable* for a version without verdicts, and where policy or corpus are not at hand.
    """
    refs = table_refs(version, manifest, "verdicts")
    if not sum(ref.rows for ref in refs):
        yield not_checkable(CHECK, "nothing to check: this version has no verdicts")
        return
    corpus = corpus_at_hand(home, manifest.corpus)
    try:
        if corpus is None:
            raise ConfigError("the corpus is not at hand.")
        environment = environment_here(manifest)
        policy = policy_for(_inputs(home, manifest, environment))
    except PolicylongError as error:
        yield not_checkable(CHECK, error.message)
        return
    roots = table_refs(version, manifest, "roots")[0]
    passages = Passages(home, roots=roots, chunks=corpus.chunks, documents=corpus.documents, tokenizer=policy.tokenizer)
    rows = drawn(home, refs, count, f"{version}:{seed}")
    largest, deviating = 0.0, 0
    with progress("scoring verdicts again", total=len(rows), unit="verdicts") as advance:
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            for row, numbers in zip(some, _scored(policy, passages, some, manifest), strict=True):
                off = {name: _apart(numbers[name], row[name]) for name in _NUMBERS}
                largest = max(largest, *(value for value in off.values() if math.isfinite(value)))
                wrong = [
                    f"{name} is {row[name]:.6g}, scored again {numbers[name]:.6g}"
                    for name in _NUMBERS
                    if not off[name] <= environment.tolerance
                ]
                if row["literal"] != numbers["literal"]:
                    wrong.append(f"literal is {row['literal']}, the tokens say {numbers['literal']}")
                if wrong:
                    deviating += 1
                    where = f"root {row['root']}, t {row['t']}, chunk {row['chunk']}"
                    if deviating <= MOST_NAMED:
                        text = f"{where}: {'; '.join(wrong)} (tolerance {environment.tolerance:g} nats)"
                        yield failed("verdict scored again", text, row["file"])
            advance(len(some))
    passages.close()
    total = sum(ref.rows for ref in refs)
    said = (
        f"{len(rows)} of {total} drawn with seed {seed}: largest deviation {largest:.2g} nats, tolerance"
        f" {environment.tolerance:g} ({environment.said})"
    )
    yield failed(CHECK, f"{deviating} deviate; {said}") if deviating else passed(CHECK, said)


def _apart(one: float, other: float) -> float:
    """The difference; none between two infinite ones (a token that the policy can't produce)."""
    return 0.0 if one == other else abs(one - other)


def drawn(home: Home, refs: Sequence[Any], count: int, salt: str) -> list[dict[str, Any]]:
    """``count`` different rows of a sharded table, or all of them, in order; each has its ``file``."""
    ends = list(accumulate(ref.rows for ref in refs))
    chosen = sorted(random.Random(salt).sample(range(ends[-1]), min(count, ends[-1])))
    rows: list[dict[str, Any]] = []
    for shard, ref in enumerate(refs):
        first = ends[shard] - ref.rows
        inside = [number - first for number in chosen if bisect_right(ends, number) == shard]
        if inside:
            reader = RowReader(home.path, ref, kept_bytes=0)
            rows += [{**reader[number], "file": ref.uri} for number in inside]
            reader.close()
    return rows


def environment_here(manifest: Manifest) -> Environment:
    """The recorded environment as far as this machine has it."""
    numeric = manifest.numeric
    here = torch.cuda.is_available() if numeric.device.startswith("cuda") else numeric.device == "cpu"
    device = numeric.device if here else "cpu"
    as_recorded = f"{numeric.dtype} on {device}"
    said = f"{as_recorded}, as recorded" if here else f"{as_recorded}, recorded on {numeric.device}"
    torch_then, torch_now = numeric.versions.get("torch"), torch.__version__
    if torch_then not in (None, torch_now):
        said += f"; torch {torch_now}, recorded with {torch_then}"
    if numeric.dtype != "float32":
        return Environment(device, SIXTEEN_BITS, said)
    return Environment(device, SAME_DEVICE if here else OTHER_DEVICE, said)


def _inputs(home: Home, manifest: Manifest, environment: Environment) -> PolicyInputs:
    numeric = manifest.numeric
    if numeric.dtype not in ("float32", "bfloat16", "float16"):
        raise PolicyError(f"the manifest records the unknown type {numeric.dtype!r}.")
    batch = manifest.config.get("build", manifest.config).get("numeric", {}).get("tokens_per_batch", 8192)
    return PolicyInputs.model_validate(
        {
            "digest": manifest.policy,
            "dtype": numeric.dtype,
            "device": environment.device,
            "threads": numeric.threads,
            "tokens_per_batch": batch,
            "packing": numeric.packing and environment.device == numeric.device,
            "kernel": numeric.kernel if environment.device == numeric.device else "torch",
            "folder": str(policy_folder(home, manifest.policy)),
        }
    )


def _scored(
    policy: ReadyPolicy, passages: Passages, rows: Sequence[dict[str, Any]], manifest: Manifest
) -> Iterator[dict[str, Any]]:
    """Entropies and likelihoods (nats) of each verdict's token without and with its chunk, and ``literal``."""
    config: dict[str, Any] = manifest.config.get("build", manifest.config)
    separator = separator_ids(policy.tokenizer, config["verification"]["separator"])
    contexts: list[Context] = []
    literal: list[bool] = []
    for row in rows:
        root, chunk, t = passages.root(row["root"]).ids, passages.chunk_ids(row["chunk"]), row["t"]
        alone, front = (*policy.bos, *root), prefixed(policy.bos, chunk, separator, root)
        contexts += [
            Context(alone, [len(policy.bos) + t]),
            Context(front, [len(front) - len(root) + t]),
        ]
        literal.append(t > 0 and is_literal(chunk, root[t - 1], root[t]))
    scores = policy.scorer.score(contexts)
    for (before, after), copied in zip(list(pairwise(scores))[::2], literal, strict=True):
        yield {
            "entropy_before": float(before.entropy[0]),
            "entropy_after": float(after.entropy[0]),
            "nll_before": float(before.nll[0]),
            "nll_after": float(after.nll[0]),
            "literal": copied,
        }
