"""What was measured after a round: context gain by policy and length, benchmark scores, attributable gain, seconds.

Context gain is read from the home's measurements, of whatever lengths were asked for (``policylong evaluate``). Other
figures are the campaign's record of the round: a benchmark's score is a figure ``benchmark_NAME``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.campaigns import Campaign, RoundRecord, list_campaigns, load_campaign
from storage.errors import IntegrityError
from storage.files import read_json
from storage.home import Home

_RECORDS = "checkpoints/context-gain"
"""Where ``tasks.measurements.context_gain`` keeps its results; importing it would import torch."""
BENCHMARK = "benchmark_"
_ATTRIBUTABLE = re.compile(r"attributable_gain_from_(\d+)(_after)?")


class LengthGain(BaseModel):
    """The context gain of a policy at one length. Nats a token; None when the text gave no window."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    long: int
    """Tokens of the long context, targets included."""
    short: int
    """Tokens before the targets in the short one."""
    windows: int
    gain: float | None
    standard_error: float | None
    loss_long: float | None
    loss_short: float | None
    note: str


class _Lengths(BaseModel):
    long: int
    short: int


class _Key(BaseModel):
    config: _Lengths


class _Result(BaseModel):
    policy: str
    corpus: str
    windows: int
    gain: float | None
    standard_error: float | None
    loss_long: float | None
    loss_short: float | None
    note: str


class _Record(BaseModel):
    """As much of a measurement's record as is shown; it has more."""

    key: _Key
    result: _Result


def length_gains(home: Home, corpus: str, policies: Iterable[str]) -> list[LengthGain]:
    """Every measurement of these policies on a corpus, by length, policies in the order given.

    A record that can't be read is passed over: it is measured anew when it is asked for. Of two measurements of a
    policy at the same lengths the one with more windows is taken.
    """
    order = list(dict.fromkeys(policies))
    best: dict[tuple[int, int, str], LengthGain] = {}
    for path in sorted((home / _RECORDS).glob("*.json")):
        found = _read(path, corpus)
        if found is None or found.policy not in order:
            continue
        key = (found.long, found.short, found.policy)
        if key not in best or best[key].windows < found.windows:
            best[key] = found
    return sorted(best.values(), key=lambda one: (one.long, one.short, order.index(one.policy)))


def _read(path: Path, corpus: str) -> LengthGain | None:
    try:
        record = _Record.model_validate(read_json(path))
    except (IntegrityError, ValidationError):
        return None
    if record.result.corpus != corpus:
        return None
    return LengthGain(**record.result.model_dump(exclude={"corpus"}), **record.key.config.model_dump())


def record_of(home: Home, version: str, name: str | None = None) -> tuple[Campaign, RoundRecord] | None:
    """The campaign's record of a version: of the named one, else of the first campaign that has it, or None."""
    for known in [name] if name else list_campaigns(home):
        try:
            campaign = load_campaign(home, known)
        except IntegrityError:
            continue
        for record in campaign.rounds:
            if record.version == version:
                return campaign, record
    return None


def number_of(record: RoundRecord | None, name: str) -> float | None:
    """A figure of a round's record as a number, None when it has none."""
    found = record.figures.get(name) if record else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def benchmarks(records: Sequence[RoundRecord | None]) -> list[tuple[str, tuple[float | None, ...]]]:
    """(benchmark, score after each round) of every figure ``benchmark_NAME``, sorted by name."""
    names = sorted({name for record in records if record for name in record.figures if name.startswith(BENCHMARK)})
    return [
        (name.removeprefix(BENCHMARK).replace("_", " "), tuple(number_of(record, name) for record in records))
        for name in names
    ]


def attributable(record: RoundRecord | None) -> list[tuple[int, float | None, float | None]]:
    """(smallest distance of the bucket, gain under the policy before the training, after it), nearest first."""
    found: dict[int, list[float | None]] = {}
    for name in record.figures if record else ():
        match = _ATTRIBUTABLE.fullmatch(name)
        if match:
            found.setdefault(int(match[1]), [None, None])[match[2] is not None] = number_of(record, name)
    return [(low, before, after) for low, (before, after) in sorted(found.items())]
