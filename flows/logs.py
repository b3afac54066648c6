"""What a flow says in the log of its Prefect page: what was done, in counts."""

from __future__ import annotations

from prefect.context import FlowRunContext
from prefect.logging import get_run_logger

from storage.digests import short
from storage.manifests import Manifest


def say(line: str) -> None:
    """One line in the log of the current flow run; nothing where there is none."""
    if FlowRunContext.get() is not None:
        get_run_logger().info(line)


def say_round(manifest: Manifest, version: str) -> None:
    """A built round in counts, as its funnel and tokens have them."""
    funnel = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in manifest.funnel.items() if number)
    tokens = manifest.tokens.get("total", 0)
    say(f"round {manifest.round}: {funnel}; {tokens:,} tokens; dataset version {short(version)}")
