"""Pictures of a campaign's pages in Prefect and MLflow, for the documentation.

    pip install playwright        and a Chromium: apt-get install chromium, or playwright install chromium
    python deploy/checks/screenshots.py --home FOLDER --to docs

FOLDER is a home with a finished campaign (its current one). ``policylong up`` is started in it on two free ports, the
pages are opened in a headless Chromium, ``policylong down`` ends it. With ``--preset`` the campaign is first started as
the form of Prefect's page does: what is finished is found finished, so that this takes little where it is.

    prefect-runs.png     the runs of the campaign          prefect-round.png    the last round: steps and artifacts
    mlflow-round.png     the last round's run in MLflow
"""

from __future__ import annotations

import argparse
import io
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from deploy.checks.standing import mlflow_runs, policylong, start_run, wait_for  # noqa: E402
from flows.standing.api import PrefectApi  # noqa: E402
from flows.standing.record import Installation, read_installation  # noqa: E402
from storage.campaigns import Campaign, load_campaign  # noqa: E402
from storage.home import Home  # noqa: E402

WIDTH, HEIGHT = 1280, 1500
CLIPS = {
    "prefect-runs": (256, 600, 1024, 880),
    "prefect-round": (256, 0, 1024, 1000),
    "mlflow-round": (200, 0, 748, 1500),
}
"""The part of each page that a picture shows, pixels: left, top, width, height. Menus are left out."""
COLOURS = 128
"""Of the pictures' palette: pages are flat, and a picture in Git is kept for ever."""
PAGE_SECONDS, SETTLE_SECONDS = 240.0, 5.0


@contextmanager
def installation(home: Path) -> Iterator[Installation]:
    """An installation in a home while the block runs."""
    up = policylong(home, "up", "--prefect-port", free_port(), "--mlflow-port", free_port())
    found = read_installation(Home(home))
    if up.returncode or found is None:
        raise SystemExit(up.stderr.strip() or "error: policylong up failed.")
    try:
        yield found
    finally:
        policylong(home, "down")


def free_port() -> str:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def flow_run(api: PrefectApi, name: str) -> str:
    """Id of the latest finished flow run of this name; raises ``SystemExit`` without one."""
    wanted = {"name": {"any_": [name]}, "state": {"type": {"any_": ["COMPLETED"]}}}
    found = api.post("/flow_runs/filter", {"flow_runs": wanted, "sort": "START_TIME_DESC", "limit": 1})
    if not found:
        raise SystemExit(f"error: Prefect has no finished flow run called {name!r}; give --preset to make one.")
    return str(found[0]["id"])


def addresses(found: Installation, campaign: Campaign) -> dict[str, tuple[str, str]]:
    """{picture: (address, a text that is there once the page is)} of a campaign's pages."""
    last = campaign.rounds[-1]
    build = flow_run(PrefectApi(found.api), f"build {campaign.name} round {last.round}")
    tags = {"policylong.version": last.version, "policylong.kind": "round"}
    (run,) = mlflow_runs(found.mlflow, tags)[:1] or [{}]
    if not run:
        raise SystemExit(f"error: MLflow has no run of version {last.version[:12]}.")
    info = run["info"]
    return {
        "prefect-runs": (f"{found.prefect}/runs", f"build {campaign.name} round {last.round}"),
        "prefect-round": (f"{found.prefect}/runs/flow-run/{build}", "round-report"),
        "mlflow-round": (f"{found.mlflow}/#/experiments/{info['experiment_id']}/runs/{info['run_id']}", "Metrics"),
    }


def take(pages: dict[str, tuple[str, str]], browser: str | None, folder: Path) -> None:
    """Opens each page and writes its picture."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        for name, (address, text) in pages.items():
            page.goto(address, wait_until="load", timeout=PAGE_SECONDS * 1000)
            show(page, name)
            page.get_by_text(text).first.wait_for(timeout=PAGE_SECONDS * 1000)
            # Figures and marks come after the text.
            page.wait_for_timeout(SETTLE_SECONDS * 1000)
            path = folder / f"{name}.png"
            clip = dict(zip(("x", "y", "width", "height"), CLIPS[name], strict=True))
            path.write_bytes(compact(page.screenshot(clip=clip, timeout=PAGE_SECONDS * 1000)))
            print(f"{path}  {path.stat().st_size / 1000:.0f} kB")
        chromium.close()


def show(page: Any, name: str) -> None:
    """Turns to the part of a page that the picture is about."""
    if name == "prefect-round":
        page.get_by_text("Artifacts", exact=True).first.click(timeout=PAGE_SECONDS * 1000)


def compact(picture: bytes) -> bytes:
    """The same picture with a palette."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(COLOURS).save(out, format="PNG", optimize=True)
    return out.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="a home with a campaign; up and down are done in it")
    parser.add_argument("--to", type=Path, default=ROOT / "docs", help="folder of the pictures")
    parser.add_argument("--preset", help="run or carry on this campaign first")
    parser.add_argument("--browser", help="a Chromium; by default that on PATH, else Playwright's own")
    given = parser.parse_args(arguments)
    with installation(given.home) as found:
        if given.preset:
            run = start_run(PrefectApi(found.api), "campaign/campaign", {"preset": given.preset})
            state, _ = wait_for(PrefectApi(found.api), run, approve=False)
            if not state.startswith("COMPLETED"):
                raise SystemExit(f"error: the campaign ended with {state}.")
        pages = addresses(found, load_campaign(Home(given.home)))
        take(pages, given.browser or shutil.which("chromium"), given.to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
