"""The policies a home knows: each in a folder named by its digest, with the parent and the version it was trained on.

    policies/<digest16>/policy.json     the record, written last: a folder without one is not a policy
    policies/<digest16>/<files>         weights, config and tokenizer of policies up to 1 GB

A larger checkpoint from outside stays where it is and the record names its folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.digests import digest_file, digest_files, digest_listing, short
from storage.errors import IntegrityError, PolicyError
from storage.files import disk_errors, place, read_json, write_json
from storage.home import Home
from storage.tombstones import tombstone_of

RECORD = "policy.json"
COPIED_BYTES = 1 << 30
# Files of training runs and of other frameworks that may lie beside the weights.
_NOT_COPIED = {".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack"}


class PolicyRecord(BaseModel):
    """What a home knows about a policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str = Field(description="SHA-256 over the listing of its files.", min_length=64, max_length=64)
    parent: str | None = Field(description="Digest of the policy it was trained from; null for a base model.")
    trained_on: str | None = Field(description="Dataset version it was trained on; null for a base model.")
    round: int = Field(description="Rounds of training behind it; 0 for a base model.", ge=0)
    folder: str = Field(
        description="Below the home (POSIX), or the absolute folder of a checkpoint that stays outside."
    )
    files: dict[str, str] = Field(description="SHA-256 of each file.")
    also_trained_on: tuple[str, ...] = Field(
        (), description="Further versions that gave these weights from the same parent: their samples are the same."
    )

    @property
    def origins(self) -> tuple[tuple[str | None, str | None], ...]:
        """(parent, version trained on), the first one registered first."""
        return tuple((self.parent, version) for version in (self.trained_on, *self.also_trained_on))


def add_policy(
    home: Home,
    folder: Path,
    digest: str,
    *,
    parent: str | None,
    trained_on: str | None,
    round: int,
    files: Mapping[str, str] | None = None,
    link: bool = False,
    trained_here: bool = False,
) -> PolicyRecord:
    """Registers a policy; a second time changes nothing, unless its files were damaged: then they are brought anew.

    ``files`` is its listing {name: sha256} (``models.policy_files.policy_listing``), whose digest must be ``digest``;
    without it every file of the folder but other formats' weights belongs to it. ``link`` allows hard links to files
    that nothing writes to any more. ``trained_here`` says that the caller has just trained it: recipes whose rounds are
    the same (all that screen with the base model, in round 1) give the same weights, and the version is added to those
    it was trained on.

    Raises ``PolicyError`` when it is registered with another parent or version, ``IntegrityError`` when the listing has
    another digest or a file changed while it was copied, ``ResourceError`` on a full disk.
    """
    if files is not None and digest_listing(files) != digest:
        raise IntegrityError(f"the files listed for policy {short(digest)} have digest {short(digest_listing(files))}.")
    listing = dict(files) if files is not None else digest_files(folder, _names(folder))
    with home.lock(f"policy-{digest[:16]}", wait_seconds=600):
        known = _record_at(home, digest)
        same = known is not None and (parent, trained_on) in ((None, None), *known.origins)
        if known is not None and not same and trained_here and trained_on and known.parent == parent:
            known = known.model_copy(update={"also_trained_on": (*known.also_trained_on, trained_on)})
            write_json(home / _uri(digest) / RECORD, known.model_dump(mode="json"))
            same = True
        if known is not None and same and not damaged_policy_files(home, known):
            return known
        if known is not None and not same and (known.parent, known.trained_on) != (None, None):
            raise PolicyError(
                f"policy {short(digest)} is known as trained from {_name(known.parent)} on {_name(known.trained_on)},"
                f" not from {_name(parent)} on {_name(trained_on)}.",
                hint="policylong policy list shows what is registered.",
            )
        where = _bring(home, folder, digest, listing, link)
        record = PolicyRecord(
            digest=digest, parent=parent, trained_on=trained_on, round=round, folder=where, files=listing
        )
        if known is not None and same:
            record = known.model_copy(update={"folder": where, "files": listing})
        write_json(home / _uri(digest) / RECORD, record.model_dump(mode="json"))
        return record


def policy_record(home: Home, digest: str) -> PolicyRecord:
    """The record of a policy, by digest or prefix; raises ``PolicyError`` when none or several fit."""
    found = [record for record in list_policies(home) if digest and record.digest.startswith(digest)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise PolicyError(
            f"policy {short(digest)!r} is not registered in {home.path}.",
            hint="See: policylong policy list. Bring one in: policylong policy add PATH.",
        )
    raise PolicyError(
        f"{digest!r} fits {len(found)} policies ({', '.join(short(record.digest) for record in found[:3])}).",
        hint="Give more characters of the digest.",
    )


def policy_folder(home: Home, digest: str, *, weights: bool = True) -> Path:
    """Where a policy's files lie, by digest or prefix.

    Raises ``PolicyError`` when it is unknown or gone, or its weights were removed by gc; with ``weights=False`` the
    configuration and tokenizer, which gc leaves, are enough.
    """
    record = policy_record(home, digest)
    folder = home / record.folder
    if weights:
        _refuse_collected(home, record)
    if not folder.is_dir():
        raise PolicyError(
            f"the folder {folder} of policy {short(record.digest)} does not exist any more.",
            hint="Put it back, or add the policy again from another place.",
        )
    return folder


def _refuse_collected(home: Home, record: PolicyRecord) -> None:
    """Raises ``PolicyError`` naming the tombstone when files of a policy were removed by gc and are not there again."""
    missing = [f"{record.folder}/{name}" for name in record.files if not (home / record.folder / name).is_file()]
    stone = next(filter(None, (tombstone_of(home, uri) for uri in missing)), None)
    if stone is not None:
        on = f" --trained-on {short(record.trained_on)}" if record.trained_on else ""
        again = f", or train it again: policylong train {short(record.trained_on)}" if record.trained_on else ""
        raise PolicyError(
            f"the weights of policy {short(record.digest)} were {stone.line}.",
            hint=f"Bring a copy of them back: policylong policy add PATH{on}{again}.",
        )


def check_collected(folder: Path) -> None:
    """Raises ``PolicyError`` as ``policy_folder`` does when a policy's folder is one of a home and lost its weights."""
    home = Home(folder.parent.parent)
    if folder.parent == home / "policies" and (folder / RECORD).is_file():
        _refuse_collected(home, _read(folder / RECORD))


def list_policies(home: Home) -> list[PolicyRecord]:
    """All registered policies, by round, then digest; raises ``IntegrityError`` naming a damaged record."""
    records = [_read(path) for path in (home / "policies").glob(f"*/{RECORD}")]
    return sorted(records, key=lambda record: (record.round, record.digest))


def damaged_policy_files(home: Home, record: PolicyRecord) -> list[str]:
    """One line for each file of a policy that is missing or has another digest than its record says."""
    folder = home / record.folder
    problems = []
    for name, expected in sorted(record.files.items()):
        path = folder / name
        if not path.is_file():
            problems.append(f"{path} is missing (policy {short(record.digest)})")
        elif (found := digest_file(path)) != expected:
            problems.append(f"{path} was changed: sha256 {short(found)}, expected {short(expected)}")
    return problems


def _bring(home: Home, folder: Path, digest: str, listing: Mapping[str, str], link: bool) -> str:
    source, uri = folder.absolute(), _uri(digest)
    if source == home / uri:
        return uri
    size = sum((source / name).stat().st_size for name in listing)
    if size > COPIED_BYTES and not link:
        return source.as_posix()
    target = home.folder(uri)
    for name, expected in listing.items():
        (target / name).unlink(missing_ok=True)
        if link:
            place(source / name, target / name)
        else:
            with disk_errors(target / name):
                shutil.copyfile(source / name, target / name)
        if digest_file(target / name) != expected:
            raise IntegrityError(f"{source / name} changed while it was copied.", hint="Run the same command again.")
    return uri


def _names(folder: Path) -> list[str]:
    return [
        path.name
        for path in folder.iterdir()
        if path.is_file() and path.suffix not in _NOT_COPIED and path.name != RECORD
    ]


def _uri(digest: str) -> str:
    return f"policies/{digest[:16]}"


def _record_at(home: Home, digest: str) -> PolicyRecord | None:
    path = home / _uri(digest) / RECORD
    return _read(path) if path.exists() else None


def _read(path: Path) -> PolicyRecord:
    try:
        return PolicyRecord.model_validate(read_json(path))
    except ValidationError as error:
        raise IntegrityError(f"{path} is not a policy record: {error.errors()[0]['msg']}.") from error


def _name(digest: str | None) -> str:
    return short(digest) if digest else "nothing"
