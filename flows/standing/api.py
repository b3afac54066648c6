"""Reading from Prefect's and MLflow's servers without their libraries, which take seconds to import.

Credentials come from the environment only: ``PREFECT_API_KEY`` or ``PREFECT_API_AUTH_STRING`` as Prefect's own
clients read them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import httpx
from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_exponential

from storage.errors import ConfigError, ServiceError

_TIMEOUT_SECONDS = 30.0
_REFUSED = (401, 403)
_BUSY = (429, 503)
"""A server on SQLite answers 503 while its database is locked; what was asked for was not done."""
_ATTEMPTS = 5


class PrefectApi:
    """Reads from a Prefect server.

    Every method raises ``ServiceError`` for a server that does not answer and ``ConfigError`` for credentials that it
    refuses; neither names the credentials.
    """

    def __init__(self, address: str, *, timeout_seconds: float = _TIMEOUT_SECONDS, pause_seconds: float = 0.5) -> None:
        self.address = address.rstrip("/")
        self.timeout_seconds = timeout_seconds
        self.pause_seconds = pause_seconds

    def check(self) -> str:
        """Raises unless the server answers, takes the credentials and has its database; returns its version."""
        version = str(self._request("GET", "/admin/version", None))
        # A server whose database is away knows its version all the same. /ready asks for no credentials.
        try:
            ready = httpx.get(f"{self.address}/ready", timeout=self.timeout_seconds).status_code
        except httpx.HTTPError:
            ready = httpx.codes.SERVICE_UNAVAILABLE
        if ready == httpx.codes.SERVICE_UNAVAILABLE:
            raise ServiceError(
                f"Prefect at {self.address} runs, but its database does not answer.",
                hint="Start the database, then run the same command again.",
            )
        return version

    def read(self, path: str) -> Any:
        """JSON of a GET."""
        return self._request("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """JSON of a POST, which is how Prefect filters."""
        return self._request("POST", path, body)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        headers, login = {}, None
        if key := os.environ.get("PREFECT_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        elif pair := os.environ.get("PREFECT_API_AUTH_STRING"):
            user, _, word = pair.partition(":")
            login = httpx.BasicAuth(user, word)
        asking = Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_exponential(multiplier=self.pause_seconds, max=8),
            retry=retry_if_result(lambda answer: answer.status_code in _BUSY),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        try:
            answer: httpx.Response = asking(
                httpx.request,
                method,
                f"{self.address}{path}",
                json=body,
                headers=headers,
                auth=login,
                timeout=self.timeout_seconds,
                follow_redirects=False,
            )
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ServiceError(
                f"Prefect at {self.address} does not answer ({type(error).__name__}).",
                hint="Start it (policylong up), or look at PREFECT_API_URL.",
            ) from error
        if answer.status_code in _REFUSED:
            raise ConfigError(
                f"Prefect at {self.address} refuses the credentials ({answer.status_code}).",
                hint="Look at PREFECT_API_AUTH_STRING (a server of one's own) or PREFECT_API_KEY (Prefect Cloud).",
            )
        try:
            answer.raise_for_status()
            return answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ServiceError(
                f"Prefect at {self.address} answered {answer.status_code} to {path}, expected JSON.",
                hint="Run the same command again; is it a Prefect server? Look at PREFECT_API_URL.",
            ) from error


def healthy(address: str) -> bool:
    """Whether a server answers its health check at ``address`` with 200 now."""
    try:
        return httpx.get(address, timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def check_mlflow(uri: str) -> None:
    """Raises ``ServiceError`` unless an MLflow server answers at an http URI; other URIs are not looked at."""
    if uri.startswith(("http://", "https://")) and not healthy(f"{uri.rstrip('/')}/health"):
        raise ServiceError(
            f"MLflow at {uri} does not answer.",
            hint="Start it, or look at MLFLOW_TRACKING_URI; unset, policylong up starts one.",
        )
