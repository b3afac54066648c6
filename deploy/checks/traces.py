"""Compares ``policylong trace`` of random tokens with an independent, literal reading of the tables and the text.

    python deploy/checks/traces.py --home .policylong 3
    python deploy/checks/traces.py --home .policylong books:1 --source books.parquet --text-column text

For each token the sample is read by hand: its segment, the chunk or root it comes from, the document, the characters by
the bytes of the vocabulary, positions, candidates, verdicts and negatives by plain filters, the line of policies from
their JSON (deploy/checks/literal_*.py, which share nothing with the command). Every value of the trace's JSON is
compared. With ``--source`` the characters have to be those of the ingested file's row as well. The home is only read.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.checks.literal_piece import expected_trace
from deploy.checks.literal_texts import Original
from deploy.checks.literal_trace import LiteralTrace, Row
from storage.errors import InputError, PolicylongError
from storage.home import Home
from tasks.progress import track

SUBJECTS = {
    "pieces.origin": "segment, chunk or root, document",
    "pieces.root": "position: entropy, threshold, query",
    "pieces.links": "candidates, verdicts, dependencies",
    "pieces.seeds": "positives behind a negative",
    "pieces.neighbours": "documents behind a document",
    "pieces": "place in the sample, text, characters",
    "policies": "line of policies",
}
"""Beginning of a value's path in the JSON → line of the table; the first that fits."""
REST = "version, sample, configuration, code"
DIGEST, ORIGINAL = "digest of the document's text", "original text"
SHOWN = 10


@dataclass
class Tally:
    """One line of the table."""

    tokens: set[tuple[int, int]] = field(default_factory=set)
    equal: int = 0
    different: int = 0


@dataclass
class Comparison:
    """Everything compared so far; ``differences`` has the first ones in words."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)

    def add(self, subject: str, token: tuple[int, int], what: str, *, equal: bool) -> None:
        """Counts one comparison for a token, given as sample and place."""
        tally = self.tallies.setdefault(subject, Tally())
        tally.tokens.add(token)
        tally.equal += equal
        tally.different += not equal
        if not equal:
            self.differences.append(f"sample {token[0]} token {token[1]}: {what}")

    @property
    def holds(self) -> bool:
        """Whether something was compared and nothing differs."""
        return bool(self.tallies) and not self.differences


def leaves(expected: Any, found: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every value of two JSON documents with its path; a list counts with its length, a missing key as a value."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            yield from leaves(expected.get(key, "(missing)"), found.get(key, "(missing)"), f"{path}.{key}".lstrip("."))
    elif isinstance(expected, list) and isinstance(found, list):
        yield path, len(expected), len(found)
        for one, other in zip(expected, found, strict=False):
            yield from leaves(one, other, path)
    else:
        yield path, expected, found


def draw(read: LiteralTrace, tokens: int, helped: int, seed: int) -> list[tuple[int, int]]:
    """Random tokens as (sample, place), every token of the version with the same chance, and random ones among those
    that a context helped; sorted.
    """
    dice = random.Random(seed)
    ends = list(accumulate(read.lengths()))
    if not ends or not ends[-1]:
        raise InputError(f"version {read.version[:12]} has no samples.")
    chosen = set()
    for token in dice.sample(range(ends[-1]), min(tokens, ends[-1])):
        row = bisect_right(ends, token)
        chosen.add((row, token - (ends[row - 1] if row else 0)))
    answered = sorted(set(read.helped()))
    return sorted(chosen | set(dice.sample(answered, min(helped, len(answered)))))


def compare(home: Path, version: str, tokens: int, helped: int, seed: int, original: Original | None) -> Comparison:
    """Traces the drawn tokens both ways and compares every value."""
    from tasks.provenance.tracing import trace

    read, result = LiteralTrace(home, version), Comparison()
    opened, row = Home(home), -1
    drawn = draw(read, tokens, helped, seed)
    for token in track(drawn, len(drawn), "tracing both ways", "tokens"):
        if token[0] != row:
            row = token[0]
            read.open(row)
        expected = expected_trace(read, token[1])
        found = json.loads(trace(opened, read.version, str(row), str(token[1])).model_dump_json())
        for path, one, other in leaves(expected, found):
            subject = next((name for start, name in SUBJECTS.items() if path.startswith(start)), REST)
            result.add(subject, token, f"{path}: by hand {one!r}, trace says {other!r}", equal=one == other)
        _check_text(read, token, found, original, result)
        kind = expected["pieces"][0]["kind"]
        result.kinds[kind] = result.kinds.get(kind, 0) + 1
    return result


def _check_text(
    read: LiteralTrace, token: tuple[int, int], found: Row, original: Original | None, result: Comparison
) -> None:
    """The trace's document and characters against the digest of the text, and against the original file."""
    (piece,) = found["pieces"]
    if piece["origin"] is None or piece["characters"] is None:
        return
    document = read.documents[piece["origin"]["doc_id"]]
    digest = hashlib.sha256(document["text"].encode()).hexdigest()
    result.add(DIGEST, token, f"the text of {document['doc_id'][:12]}", equal=digest == document["doc_id"])
    if original is not None and original.holds(document["source"]):
        same = original.agrees(document["source"], document["text"], *piece["characters"])
        result.add(ORIGINAL, token, f"{document['source']}, characters {piece['characters']}", equal=same)


def report(result: Comparison, version: str) -> None:
    """Prints the counts, and the first differences."""
    table = Table("compared", "tokens", "values", "equal", "different", title=f"version {version}")
    for subject in (*SUBJECTS.values(), REST, DIGEST, ORIGINAL):
        if tally := result.tallies.get(subject):
            numbers = (len(tally.tokens), tally.equal + tally.different, tally.equal, tally.different)
            style = "red" if tally.different else "green"
            table.add_row(subject, *(f"{number:,}" for number in numbers), style=style)
    console = Console()
    console.print(table)
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(result.kinds.items()))
    console.print(f"{sum(result.kinds.values())} tokens: {kinds}", highlight=False)
    for difference in result.differences[:SHOWN]:
        console.print(difference, style="red", markup=False, highlight=False, soft_wrap=True)
    if len(result.differences) > SHOWN:
        console.print(f"… and {len(result.differences) - SHOWN} more", style="red")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison; 0 when every value agrees."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    default = Path(os.environ.get("POLICYLONG_HOME", ".policylong"))
    parser.add_argument("--home", type=Path, default=default, help="home folder (POLICYLONG_HOME or .policylong)")
    parser.add_argument("--tokens", type=int, default=200, help="tokens drawn with equal chance (200)")
    parser.add_argument("--helped", type=int, default=50, help="further ones, among those a context helped (50)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (0)")
    parser.add_argument("--source", type=Path, help="the Parquet or JSONL file that was ingested")
    parser.add_argument("--text-column", default="text", help="its column with the texts (text)")
    parser.add_argument("version", help="a round, CAMPAIGN:ROUND, or a version's beginning")
    chosen = parser.parse_args(arguments)
    original = Original(chosen.source, chosen.text_column) if chosen.source else None
    try:
        home = chosen.home.absolute()
        result = compare(home, chosen.version, chosen.tokens, chosen.helped, chosen.seed, original)
    except PolicylongError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if original is not None and ORIGINAL not in result.tallies:
        print(f"error: no document of these tokens came from {chosen.source.name}.", file=sys.stderr)
        return InputError.exit_code
    report(result, chosen.version)
    return 0 if result.holds else 1


if __name__ == "__main__":
    sys.exit(main())
