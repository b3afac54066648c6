"""The evaluation flow: what a policy is worth on held-out documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task

from flows.logs import say
from storage.corpora import corpus_to_read
from storage.home import Home
from tasks.measurements.context_gain import ContextGainConfig, context_gain


@flow(name="evaluate", flow_run_name="evaluate {label}")
def evaluate_policy(
    home_path: str, policy: str, corpus: str, config: ContextGainConfig, label: str = ""
) -> dict[str, Any]:
    """Measures the context gain of a policy (digest or prefix) on a corpus's held-out documents.

    Returns a ``tasks.measurements.context_gain.ContextGain`` as JSON; a second call reads the record of the first.
    """
    found = measure_context_gain(home_path, policy, corpus, config, label)
    gain, error, loss = (_number(found[name]) for name in ("gain", "standard_error", "loss_long"))
    say(f"{found['windows']:,} windows: context gain {gain} ± {error} nats a token, loss {loss}")
    return found


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


@task(name="context-gain", task_run_name="context gain {label}")
def measure_context_gain(
    home_path: str, policy: str, corpus: str, config: ContextGainConfig, label: str
) -> dict[str, Any]:
    """See ``tasks.measurements.context_gain.context_gain``."""
    home = Home.open(Path(home_path))
    return context_gain(home, policy, corpus_to_read(home, corpus), config).model_dump(mode="json")
