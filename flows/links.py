"""Where a round can be looked at: links for the pages in Prefect."""

from __future__ import annotations

import os

from storage.errors import PolicylongError
from storage.home import Home
from storage.tracking import Tracking
from storage.versions import version_uri


def version_links(home: Home, version: str) -> list[str]:
    """The dataset folder of a version, as a line of Markdown."""
    folder = home / version_uri(version)
    return [f"Dataset folder: [`{folder}`]({folder.as_uri()})"]


def mlflow_links(run: str | None) -> list[str]:
    """A run's page in MLflow, as a line of Markdown; nothing without an MLflow server."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if not run or not uri.startswith(("http://", "https://")) or "@" in uri:
        return []
    return [f"MLflow run: [{run}]({uri}/#/runs/{run})"]


def tracked_round(tracking: Tracking | None, version: str) -> str | None:
    """Id of the MLflow run of a version, where it is of use for a link; the link is not worth an error."""
    if tracking is None or not tracking.uri.startswith(("http://", "https://")):
        return None
    try:
        found = tracking.find_version(version)
    except PolicylongError:
        return None
    return found.run_id if found else None
