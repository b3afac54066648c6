"""The audit as a flow: a report where all is well, a failed run that names the file where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.audit import audit
from storage.errors import IntegrityError
from storage.home import Home
from tests.rounds import build_rounds, version_folder


def test_a_scheduled_audit_reports_or_fails_naming_the_file(home: Home) -> None:
    (built,) = build_rounds(home, 1)
    report = audit.fn(str(home.path), "1")
    assert (report["version"], report["exit_code"]) == (built.version, 0)
    path = version_folder(built) / "tables/positions-00001.parquet"
    path.unlink()
    with pytest.raises(IntegrityError, match=f"{Path(version_folder(built)).name}/tables/positions-00001"):
        audit.fn(str(home.path), built.version[:12])
