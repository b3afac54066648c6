"""Which policylong this is, and the check that a worker runs what was deployed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from storage.errors import ConfigError


def own_version() -> str:
    """Version of the policylong that runs: of the installed package, or of the checkout."""
    try:
        return version("policylong")
    except PackageNotFoundError:
        import tomllib

        project = Path(__file__).resolve().parents[2] / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


def same_version(deployed: str) -> None:
    """The pull step of every deployment: raises ``ConfigError`` in a worker of another version than was deployed.

    Two versions may give two dataset versions of one round.
    """
    own = own_version()
    if deployed != own:
        raise ConfigError(
            f"this worker is policylong {own}, and policylong {deployed} was deployed.",
            hint=f"Install {deployed} for the worker, or deploy {own}: policylong deploy.",
        )


def check_versions(pool: str, deployed: Iterable[str | None]) -> None:
    """Raises ``ConfigError`` when a work pool's deployments are not all of this version, or there are none."""
    versions = sorted({str(version) for version in deployed})
    own = own_version()
    if not versions:
        raise ConfigError(f"nothing is deployed to work pool {pool!r}.", hint="policylong deploy.")
    if versions != [own]:
        raise ConfigError(
            f"this worker is policylong {own}, and {', '.join(versions)} is deployed to work pool {pool!r}.",
            hint=f"Install that version here, or deploy {own}: policylong deploy.",
        )
