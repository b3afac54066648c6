"""The command line: ``policylong COMMAND``. Each command is a few lines around a flow; libraries are imported when
needed.

Errors of the user's or the machine's are one line on stderr and an exit code (``storage.errors``); a traceback is shown
only with POLICYLONG_DEBUG=1.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from flows.failures import INTERRUPTED, report
from flows.session import Session
from tasks.progress import forget_stop, request_stop

app = typer.Typer(
    name="policylong",
    help="Turns short documents and the language model being trained into verified long-context training data,"
    " round after round, and trains the model on it.",
    epilog="First time? policylong doctor, then policylong run. --home and --verbose may stand after the command too.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"policylong {version('policylong')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    home: Annotated[
        Path, typer.Option(envvar="POLICYLONG_HOME", help="Folder that holds everything runs make.", metavar="FOLDER")
    ] = Path(".policylong"),
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log and warnings.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command."""
    context.obj = Session(home=home.expanduser().absolute(), verbose=verbose)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    from flows.commands import register_all

    register_all(app)
    _stop_on_termination()
    given = _global_options_first(list(sys.argv[1:] if arguments is None else arguments))
    try:
        outcome = app(args=given, standalone_mode=False, prog_name="policylong")
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the one place where every error ends
        return report(error)
    finally:
        forget_stop()
    if outcome == INTERRUPTED:  # typer turns Ctrl-C into this exit code
        return report(KeyboardInterrupt())
    return outcome if isinstance(outcome, int) else 0


def _global_options_first(arguments: list[str]) -> list[str]:
    first: list[str] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            rest += [argument, *waiting]
        elif argument == "--home":
            first += [argument, *islice(waiting, 1)]
        elif argument.startswith("--home=") or argument in ("--verbose", "-v"):
            first.append(argument)
        else:
            rest.append(argument)
    return [*first, *rest]


def _stop_on_termination() -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        request_stop()
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
    except ValueError:  # not in the main thread: whoever embeds the command line handles signals
        return


if __name__ == "__main__":
    sys.exit(main())
