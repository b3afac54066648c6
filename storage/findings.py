"""What a check found: one line each, for people, for JSON and for an exit code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["passed", "failed", "not-checkable"]


class Finding(BaseModel):
    """The result of one check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: str = Field(description="What was checked, in a few words.")
    status: Status = Field(description="passed, failed, or not-checkable when what it needs is not on this machine.")
    detail: str = Field("", description="What was found and what was expected, in one line.")
    file: str | None = Field(None, description="The file concerned, relative to the home.")

    @property
    def line(self) -> str:
        """The finding as one line."""
        return " · ".join(part for part in (self.status, self.check, self.file or "", self.detail) if part)


def passed(check: str, detail: str = "", file: str | None = None) -> Finding:
    """A check that held."""
    return Finding(check=check, status="passed", detail=detail, file=file)


def failed(check: str, detail: str, file: str | None = None) -> Finding:
    """A check that did not hold."""
    return Finding(check=check, status="failed", detail=detail, file=file)


def not_checkable(check: str, detail: str, file: str | None = None) -> Finding:
    """A check whose other side is not on this machine."""
    return Finding(check=check, status="not-checkable", detail=detail, file=file)


def failures(findings: Iterable[Finding]) -> list[Finding]:
    """Those that failed, in order."""
    return [finding for finding in findings if finding.status == "failed"]
