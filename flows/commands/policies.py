"""``policylong policy``: the checkpoints of a home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from flows.session import Session, results
from storage.digests import short


def register(app: typer.Typer) -> None:
    """Adds the group of commands to the application."""
    group = typer.Typer(no_args_is_help=True, help="Bring in, list and look at checkpoints.")
    group.command("add")(add)
    group.command("list")(listing)
    group.command("show")(show)
    app.add_typer(group, name="policy")


def add(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="Folder of a Hugging Face checkpoint with safetensors weights.")],
    trained_on: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="Round or dataset version it was trained on; none for a base model."),
    ] = None,
    parent: Annotated[
        str | None,
        typer.Option(metavar="POLICY", help="Policy it was trained from, where the version was screened by another."),
    ] = None,
    remote_code: Annotated[bool, typer.Option(help="Run Python code that the folder brings along.")] = False,
) -> None:
    """Bring a checkpoint into the home, for example one trained elsewhere on a dataset version."""
    session: Session = context.obj
    session.prepared()
    from storage.errors import PolicyError
    from tasks.training.handoff import add_base_policy, add_external_policy

    if not path.is_dir():
        raise PolicyError(f"the policy folder {path} does not exist.", hint="Give the folder that holds config.json.")
    home = session.open()
    if trained_on is None:
        record = add_base_policy(home, path, remote_code=remote_code)
    else:
        record = add_external_policy(home, path, trained_on, parent=parent, remote_code=remote_code)
    results().print(record.digest, highlight=False, soft_wrap=True)


def listing(context: typer.Context) -> None:
    """List the checkpoints the home knows, with parent and the version each was trained on."""
    session: Session = context.obj
    home = session.existing()
    from storage.policies import list_policies

    table = Table("policy", "rounds of training", "parent", "trained on", box=None, header_style="bold")
    for record in list_policies(home):
        parent, version = (short(value) if value else "–" for value in (record.parent, record.trained_on))
        table.add_row(short(record.digest), str(record.round), parent, version)
    results().print(table, highlight=False)


def show(
    context: typer.Context,
    policy: Annotated[str, typer.Argument(help="Digest or its first characters.")],
) -> None:
    """Print the record of one checkpoint as JSON."""
    session: Session = context.obj
    home = session.existing()
    from storage.policies import policy_record

    results().print_json(policy_record(home, policy).model_dump_json())
