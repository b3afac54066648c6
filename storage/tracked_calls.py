"""Calls to MLflow: tried again while the trouble may pass, and one clear error when it does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_exponential

from storage.errors import ConfigError, ResourceError, ServiceError

if TYPE_CHECKING:
    from tenacity.stop import stop_base

PATIENCE = "POLICYLONG_MLFLOW_PATIENCE"
"""Environment variable: seconds for which a call to an MLflow server, or to its database by URI, is tried again."""
PATIENCE_SECONDS = 120.0
"""Without the variable: longer than a server takes to be started again. Ours."""
ATTEMPTS = 4
"""How often a database file is asked. Ours."""
_REFUSED = ("error code 401", "error code 403", "UNAUTHENTICATED", "PERMISSION_DENIED")
"""What MLflow's client says of the answers 401 and 403, without and with a body of MLflow's own."""

Result = TypeVar("Result")


class MlflowCalls:
    """Makes calls to the MLflow of one tracking URI.

    A server is asked again until ``PATIENCE_SECONDS`` have gone by, a file of SQLite ``ATTEMPTS`` times; with
    ``attempts``, either is asked that often.
    """

    def __init__(self, uri: str, attempts: int | None = None) -> None:
        self.uri = uri
        self._stop = _stop(uri, attempts)

    def __call__(self, call: Callable[[], Result]) -> Result:
        """One call.

        Raises ``ServiceError`` when MLflow does not answer, ``ResourceError`` when its disk is full, ``ConfigError``
        for a URI that MLflow does not know and for credentials that a server refuses.
        """
        retrying = Retrying(
            stop=self._stop,
            wait=wait_exponential(multiplier=0.5, max=8),
            retry=retry_if_exception_type(ServiceError),
            reraise=True,
        )
        result: Result = retrying(self._translated, call)
        return result

    def _translated(self, call: Callable[[], Result]) -> Result:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return call()
        except (MlflowException, SQLAlchemyError, OSError) as error:
            text = " ".join(str(error).split())[:300].rstrip(".")
            if "disk is full" in text or "No space left" in text:
                raise ResourceError(
                    f"the disk is full: MLflow at {self.uri} can't write.",
                    hint="Free space and run the same command again.",
                ) from error
            if "unsupported URI" in text or "Unsupported" in type(error).__name__:
                raise ConfigError(
                    f"{self.uri!r} is not a tracking URI of MLflow.", hint="Use http://… or sqlite:///…"
                ) from error
            if any(words in text for words in _REFUSED):
                raise ConfigError(
                    f"MLflow at {self.uri} refuses the credentials.",
                    hint="Look at MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
                ) from error
            raise ServiceError(
                f"MLflow at {self.uri} does not answer: {text}.",
                hint="Start it (or unset MLFLOW_TRACKING_URI) and run the same command again; nothing is lost.",
            ) from error


def _stop(uri: str, attempts: int | None) -> stop_base:
    if attempts is None and not uri.startswith("sqlite:"):
        return stop_after_delay(_patience())
    return stop_after_attempt(attempts or ATTEMPTS)


def _patience() -> float:
    given = os.environ.get(PATIENCE, "")
    try:
        return float(given or PATIENCE_SECONDS)
    except ValueError as error:
        raise ConfigError(f"{PATIENCE} is {given!r}, expected seconds.", hint="Unset it, or give a number.") from error
