"""Whatever goes wrong, the user sees one line, and scripts see a code that tells the kinds apart."""

from __future__ import annotations

import errno
import sqlite3

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from flows.failures import report
from storage.errors import (
    BusyError,
    ConfigError,
    InputError,
    IntegrityError,
    PolicyError,
    PolicylongError,
    ResourceError,
    ServiceError,
)


def line_of(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = report(error)
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 1, shown.err
    return code, lines[0]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (IntegrityError, 1),
        (ConfigError, 2),
        (InputError, 2),
        (PolicyError, 3),
        (ServiceError, 4),
        (ResourceError, 5),
        (BusyError, 6),
    ],
)
def test_each_kind_of_error_is_a_line_and_a_code(
    kind: type[PolicylongError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    error = kind("round 2 [x] went\nwrong.", hint="Do this.")
    assert line_of(error, capsys) == (code, "error: round 2 [x] went wrong. Do this.")


def test_an_error_of_ours_is_found_behind_another(capsys: pytest.CaptureFixture[str]) -> None:
    outer = RuntimeError("task failed")
    outer.__cause__ = PolicyError("weights hold NaN.")
    assert line_of(outer, capsys) == (3, "error: weights hold NaN.")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "a.parquet"),
        sqlite3.OperationalError("database or disk is full"),
    ],
)
def test_a_full_disk_is_recognised_wherever_it_shows(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = line_of(error, capsys)
    assert code == ResourceError.exit_code
    assert "disk is full" in line


def test_a_service_that_is_gone_is_worth_a_retry(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = line_of(sqlite3.OperationalError("database is locked"), capsys)
    assert code == ServiceError.exit_code
    assert "same command again" in line


def test_a_wrong_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid")

    with pytest.raises(ValidationError) as caught:
        Config.model_validate({"speed": 3})
    code, line = line_of(caught.value, capsys)
    assert code == ConfigError.exit_code
    assert "speed" in line


def test_ctrl_c_says_how_to_carry_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert line_of(KeyboardInterrupt(), capsys) == (130, "stopped; run the same command to carry on")


def test_a_defect_is_a_line_too_and_its_traceback_is_to_be_had(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, line = line_of(ZeroDivisionError("division by zero"), capsys)
    assert code == 70
    assert "ZeroDivisionError" in line
    assert "POLICYLONG_DEBUG=1" in line
    monkeypatch.setenv("POLICYLONG_DEBUG", "1")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        report(error)
    assert "Traceback" in capsys.readouterr().err
