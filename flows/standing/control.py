"""Starting and ending an installation from a command: ``policylong up`` and ``policylong down``."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import uuid

import psutil

from flows.server import living_commands
from flows.standing.processes import end, members
from flows.standing.record import Installation, forget_installation, log_path, read_installation
from flows.standing.services import SUPERVISOR, Options, check_ports, environment
from flows.standing.supervisor import GRACE_SECONDS, START_SECONDS, last_error
from storage.addresses import split_credentials
from storage.errors import BusyError, ConfigError, InputError, ServiceError
from storage.home import Home


def check_can_start(home: Home, options: Options) -> None:
    """Raises what stands against starting an installation in a home; ends what a killed one left behind.

    ``BusyError`` when it is up or a command runs flows with a server of its own, ``ConfigError`` when the environment
    names a Prefect server or MLflow's address with a password, ``ServiceError`` for a port that is taken.
    """
    found = read_installation(home)
    if found is not None and found.lives:
        raise BusyError(
            f"an installation is {found.state} in {home.path}: Prefect {found.prefect}, process {found.pid}.",
            hint="policylong status shows it, policylong down ends it.",
        )
    if address := os.environ.get("PREFECT_API_URL"):
        raise ConfigError(
            f"PREFECT_API_URL is set to {address}, and policylong up starts a server of its own.",
            hint="Unset it; or use that server: policylong deploy, and policylong worker POOL for each work pool.",
        )
    if split_credentials(os.environ.get("MLFLOW_TRACKING_URI", ""))[1] is not None:
        # Pages and the record of the installation name the address.
        raise ConfigError(
            "MLFLOW_TRACKING_URI is a database's address with a password in it.",
            hint="Unset it and give the address as MLFLOW_BACKEND_STORE_URI: policylong up starts MLflow on it.",
        )
    if busy := living_commands(home):
        raise BusyError(
            f"process {busy[0]} runs flows in {home.path} with a Prefect server of its own.",
            hint="Wait for it or stop it; then policylong up.",
        )
    if found is not None:
        end(members(found.id), grace_seconds=GRACE_SECONDS)
    check_ports(options)


def start(home: Home, options: Options) -> Installation:
    """Starts an installation in the background and waits until it is up; raises what kept it from coming up."""
    check_can_start(home, options)
    installation = uuid.uuid4().hex
    log = log_path(home, SUPERVISOR)
    with log.open("wb") as output:
        given = json.dumps(dataclasses.asdict(options))
        module = ["-P", "-m", "flows.standing.supervisor"]
        child = subprocess.Popen(
            [sys.executable, *module, str(home.path), installation, given],
            env=environment(home, options, installation, SUPERVISOR),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=home.path,
        )
    try:
        return _came_up(home, child, installation)
    except BaseException:
        child.send_signal(signal.SIGTERM)
        child.wait()
        end(members(installation), grace_seconds=GRACE_SECONDS)
        forget_installation(home)
        raise


def _came_up(home: Home, child: subprocess.Popen[bytes], installation: str) -> Installation:
    deadline = time.monotonic() + 4 * START_SECONDS
    while time.monotonic() < deadline:
        ended = child.poll() is not None
        found = read_installation(home)
        if found is not None and found.id == installation:
            if found.failure is not None:
                raise found.failure.error()
            if found.state == "up" and not ended:
                return found
        if ended:
            break
        time.sleep(0.1)
    log = log_path(home, SUPERVISOR)
    said = last_error(log)
    raise ServiceError(f"the installation did not come up{f' ({said})' if said else ''}; its log is {log}.")


def stop(home: Home) -> int:
    """Ends the installation of a home, also one whose supervisor was killed; returns how many processes it had.

    Raises ``InputError`` when nothing is up and nothing was left behind.
    """
    found = read_installation(home)
    if found is None:
        raise InputError(f"nothing is up in {home.path}.", hint="policylong up starts an installation.")
    left = members(found.id)
    count = len({process.pid for process in left} | ({found.pid} if found.lives else set()))
    if found.lives:
        _end_supervisor(found)
    end(members(found.id), grace_seconds=GRACE_SECONDS)
    forget_installation(home)
    return count


def _end_supervisor(found: Installation) -> None:
    os.kill(found.pid, signal.SIGTERM)
    # It waits for flow runs, then for the servers, and kills what has not ended after its grace.
    deadline = time.monotonic() + 6 * GRACE_SECONDS
    while found.lives:
        if time.monotonic() > deadline:
            end([psutil.Process(found.pid)], grace_seconds=1)
            return
        time.sleep(0.1)
