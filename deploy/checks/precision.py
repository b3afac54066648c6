"""What screening in 16 bits changes: some roots of a finished round and their verdicts, scored in float32 and again.

    python deploy/checks/precision.py --home .policylong 1 --roots 36 --dtype bfloat16

Nothing is written. Entropies are compared position by position, selections with each type's own threshold, verdicts
with each type's own entropies before and after. Near a limit is what the largest difference found here could carry
across it. With TRITON_INTERPRET=1, --kernel triton computes on a CPU what the kernel computes on a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from storage.errors import InputError, PolicylongError
from tasks.screening.entropy import EntropyConfig, select_positions
from tasks.screening.verification import VerificationConfig, prefixed, relative_gain, separator_ids

if TYPE_CHECKING:
    from storage.home import Home
    from storage.manifests import Manifest
    from tasks.resources import PolicyInputs

Judged = tuple[int, int, int]
"""A verdict: root, position and chunk."""
Entropies = NDArray[np.float64]


@dataclass(frozen=True)
class Numbers:
    """Entropies (nats) of one type: of every position of a root by itself, and of a verdict's with its chunk."""

    alone: Mapping[int, Entropies]
    after: Mapping[Judged, float]


@dataclass(frozen=True)
class Change:
    """What another type changes; differences of entropies in nats."""

    roots: int
    positions: int
    largest: float
    mean: float
    selected: int
    selected_otherwise: int
    selection_near: int
    verdicts: int
    largest_after: float
    mean_after: float
    largest_gain: float
    kept: int
    kept_otherwise: int
    verdicts_near: int


def changed(one: Numbers, other: Numbers, first: int, selection: EntropyConfig, epsilon: float) -> Change:
    """Compares a type with another; positions before ``first`` have no prediction."""
    start = max(first, selection.min_context)
    apart = np.concatenate([np.abs(one.alone[root] - other.alone[root])[start:] for root in one.alone])
    chosen = {root: _selected(one.alone[root], first, selection) for root in one.alone}
    again = {root: _selected(other.alone[root], first, selection) for root in one.alone}
    above = np.concatenate([one.alone[root][start:] - chosen[root][1] for root in one.alone])
    moved = np.concatenate([other.alone[root][start:] - again[root][1] for root in one.alone])
    gains = np.array([_gains(one, verdict) for verdict in one.after])
    gains_again = np.array([_gains(other, verdict) for verdict in one.after])
    differences = np.abs([one.after[verdict] - other.after[verdict] for verdict in one.after])
    largest_gain = float(np.abs(gains - gains_again).max(initial=0.0))
    return Change(
        roots=len(one.alone),
        positions=len(apart),
        largest=float(apart.max()),
        mean=float(apart.mean()),
        selected=sum(len(places) for places, _ in chosen.values()),
        selected_otherwise=sum(len(set(chosen[root][0]) ^ set(again[root][0])) for root in chosen),
        selection_near=int((np.abs(above) <= np.abs(above - moved).max()).sum()),
        verdicts=len(gains),
        largest_after=float(differences.max(initial=0.0)),
        mean_after=float(differences.mean()) if len(differences) else 0.0,
        largest_gain=largest_gain,
        kept=int((gains > epsilon).sum()),
        kept_otherwise=int(((gains > epsilon) != (gains_again > epsilon)).sum()),
        verdicts_near=int((np.abs(gains - epsilon) <= largest_gain).sum()),
    )


def _selected(entropies: Entropies, first: int, config: EntropyConfig) -> tuple[Sequence[int], float]:
    found = select_positions(entropies, first, config)
    return found.positions, found.threshold


def _gains(numbers: Numbers, verdict: Judged) -> float:
    root, t, _ = verdict
    return relative_gain(float(numbers.alone[root][t]), numbers.after[verdict])


def screened(home: Home, manifest: Manifest, version: str, inputs: PolicyInputs, count: int) -> tuple[Numbers, int]:
    """The numbers of ``count`` roots spread over a round, or of all, and the first position with a prediction."""
    from models.scoring import Context
    from storage.corpora import open_corpus
    from storage.tables import read_table
    from storage.versions import table_refs
    from tasks.resources import policy_for
    from tasks.screening.passages import Passages

    policy, corpus = policy_for(inputs), open_corpus(home, manifest.corpus)
    verdicts = table_refs(version, manifest, "verdicts")
    if not sum(ref.rows for ref in verdicts):
        raise InputError("this version has no verdicts.", hint="Name a round that was screened.")
    tables = [read_table(home.path, ref, ["root", "t", "chunk"]) for ref in verdicts]
    every = sorted({root for table in tables for root in table["root"].to_list()})
    roots = every[:: max(1, len(every) // count)][:count]
    judged = sorted({row for table in tables for row in table.iter_rows() if row[0] in set(roots)})
    passages = Passages(
        home,
        roots=table_refs(version, manifest, "roots")[0],
        chunks=corpus.chunks,
        documents=corpus.documents,
        tokenizer=policy.tokenizer,
    )
    bos, first = policy.bos, 0 if policy.bos else 1
    ids = {root: passages.root(root).ids for root in roots}
    plain = [Context((*bos, *ids[root]), [len(bos) + t for t in range(first, len(ids[root]))]) for root in roots]
    separator = separator_ids(policy.tokenizer, _section(manifest, "verification")["separator"])
    pairs = {
        pair: [t for _, _, t in rows]
        for pair, rows in groupby(sorted((r, c, t) for r, t, c in judged), key=lambda row: row[:2])
    }
    front = []
    for (root, chunk), ts in pairs.items():
        whole = prefixed(bos, passages.chunk_ids(chunk), separator, ids[root])
        front.append(Context(whole, [len(whole) - len(ids[root]) + t for t in ts]))
    passages.close()
    found = [score.entropy.double().numpy() for score in policy.scorer.score(plain)]
    with_chunk = policy.scorer.score(front)
    after = {
        (root, t, chunk): entropy
        for ((root, chunk), ts), score in zip(pairs.items(), with_chunk, strict=True)
        for t, entropy in zip(ts, score.entropy.tolist(), strict=True)
    }
    alone = {root: np.concatenate([np.zeros(first), entropies]) for root, entropies in zip(roots, found, strict=True)}
    return Numbers(alone, after), first


def _section(manifest: Manifest, name: str) -> dict[str, Any]:
    section: dict[str, Any] = manifest.config.get("build", manifest.config)[name]
    return section


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what changes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("round", help="round or version, as policylong audit takes it")
    parser.add_argument("--home", type=Path, default=Path(".policylong"), help="home that has it (.policylong)")
    parser.add_argument("--roots", type=int, default=36, help="roots at most (36)")
    parser.add_argument(
        "--dtype", default="bfloat16", choices=["bfloat16", "float16"], help="type compared with float32"
    )
    parser.add_argument("--device", default="cpu", help="kind of device: cpu (default) or cuda")
    parser.add_argument("--kernel", default="torch", choices=["torch", "triton"], help="kernel of the other type")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    from storage.home import Home
    from storage.policies import policy_folder
    from storage.versions import load_manifest, resolve_version
    from tasks.resources import PolicyInputs

    try:
        home = Home.open(chosen.home)
        version = resolve_version(home, chosen.round)
        manifest = load_manifest(home, version)
        folder = str(policy_folder(home, manifest.policy))
        common = {"digest": manifest.policy, "device": chosen.device, "threads": chosen.threads, "folder": folder}
        one, first = screened(home, manifest, version, PolicyInputs(**common), chosen.roots)
        other = PolicyInputs(**common, dtype=chosen.dtype, kernel=chosen.kernel)
        again, _ = screened(home, manifest, version, other, chosen.roots)
        selection = EntropyConfig.model_validate(_section(manifest, "entropy"))
        epsilon = VerificationConfig.model_validate(_section(manifest, "verification")).epsilon
        change = changed(one, again, first, selection, epsilon)
    except PolicylongError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if chosen.json:
        print(json.dumps(asdict(change)))
        return 0
    print(f"{chosen.dtype} ({chosen.kernel}) against float32, {change.roots} roots on {chosen.device}")
    print(
        f"  {change.positions:,} entropies: differ by {change.mean:.4f} nats on average, {change.largest:.4f} at most\n"
        f"  {change.selected:,} positions selected, {change.selected_otherwise} of {change.positions:,} on the other"
        f" side of their threshold, {change.selection_near} near enough to it\n"
        f"  {change.verdicts:,} entropies with a chunk: {change.mean_after:.4f} nats on average,"
        f" {change.largest_after:.4f} at most; gains by {change.largest_gain:.4f} at most\n"
        f"  {change.kept:,} verdicts kept, {change.kept_otherwise} of {change.verdicts:,} otherwise,"
        f" {change.verdicts_near} near enough to epsilon"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
