"""The commands of a standing installation: up, down, and for more machines worker and deploy."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.session import Session, messages, results


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    for command in (up, down, worker, deploy):
        app.command()(command)


def up(
    context: typer.Context,
    detach: Annotated[
        bool, typer.Option("--detach/--foreground", help="Go on in the background, or stay until Ctrl-C.")
    ] = True,
    prefect_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Prefect's pages, on 127.0.0.1.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of MLflow's pages, on 127.0.0.1.")] = 5000,
    pool: Annotated[
        list[str] | None,
        typer.Option(help="Work pool to run a worker for; may be given several times.  [default: all]"),
    ] = None,
) -> None:
    """Start a standing installation on this machine: Prefect, MLflow, workers, flows with forms and a schedule.

    Everything listens on 127.0.0.1 only; policylong down ends it.
    """
    session: Session = context.obj
    home = session.open()
    import uuid

    from flows.deploying import chosen_pools
    from flows.standing.control import check_can_start, start
    from flows.standing.overview import welcome
    from flows.standing.services import Options
    from flows.standing.supervisor import supervise

    options = Options(prefect_port, mlflow_port, chosen_pools(pool or []))
    check_can_start(home, options)
    messages().print("starting Prefect, MLflow and the workers; half a minute is usual", style="dim")
    if detach:
        started = start(home, options)
        results().print(welcome(started), highlight=False, soft_wrap=True)
        return
    import os

    from flows.standing.record import forget_installation

    if secret := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        os.environ.setdefault("PREFECT_API_AUTH_STRING", secret)
    try:
        supervise(
            home,
            options,
            uuid.uuid4().hex,
            lambda started: results().print(welcome(started), highlight=False, soft_wrap=True),
        )
    finally:
        forget_installation(home)


def down(context: typer.Context) -> None:
    """End everything that policylong up started in this home; flow runs in progress are stopped."""
    session: Session = context.obj
    home = session.existing()
    from flows.standing.control import stop

    count = stop(home)
    results().print(f"down: {count} processes ended; policylong up starts again", highlight=False)


def worker(
    context: typer.Context,
    pool: Annotated[str, typer.Argument(help="Work pool, such as policylong-train.")],
) -> None:
    """Run what is deployed to a work pool, on this machine and in this home; policylong up starts one for each pool.

    On another machine set PREFECT_API_URL and MLFLOW_TRACKING_URI, and give the shared home.
    """
    session: Session = context.obj
    home = session.open()
    from flows.standing.worker import serve

    serve(home, pool)


def deploy(context: typer.Context) -> None:
    """Deploy the flows to the Prefect server at PREFECT_API_URL, or to the one that is up in this home."""
    session: Session = context.obj
    home = session.open()
    from flows.standing.api import PrefectApi
    from flows.standing.worker import prefect_address

    address = prefect_address(home)
    PrefectApi(address).check()
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.deploying import deploy_all

    with temporary_settings({PREFECT_API_URL: address}):
        for name in deploy_all():
            results().print(name, highlight=False)
