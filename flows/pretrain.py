"""The pretraining flow: the small base model from nothing to its card.

    documents of the installed packages → tokenizer → mixture → weights → measurements → model card

Killed, it is carried on by the same call from its last checkpoint. Takes hours on two cores.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow, task

from storage.home import Home
from tasks.pretraining.base_model import BaseModelConfig, measure_base, pretrain_base
from tasks.progress import progress


@flow(name="pretrain", flow_run_name="pretrain {out}")
def pretrain(home_path: str, out: str, config: BaseModelConfig, measure_only: bool = False) -> dict[str, Any]:
    """Trains the base model into the folder ``out``, measures it and writes its card; returns the card's figures.

    ``measure_only`` measures the model that lies there already.
    """
    home = Home.open(Path(home_path))
    with home.lock("pretrain"):
        if not measure_only:
            train_base(home_path, out, config)
        return measure(out, config)


@task(name="pretrain-base", task_run_name="pretrain {out}")
def train_base(home_path: str, out: str, config: BaseModelConfig) -> None:
    """See ``tasks.pretraining.base_model.pretrain_base``; checkpoints lie in the home's ``pretrain`` folder."""
    work = Home.open(Path(home_path)).folder("pretrain")
    total = config.pretraining.total_tokens
    with progress("pretraining", total=total, unit="tokens") as advance:
        done = 0

        def report(tokens: int, _: float) -> None:
            nonlocal done
            advance(tokens - done)
            done = tokens

        pretrain_base(config, Path(out), work=work, report=report)


@task(name="measure-base", task_run_name="measure {out}")
def measure(out: str, config: BaseModelConfig) -> dict[str, Any]:
    """See ``tasks.pretraining.base_model.measure_base``."""
    with progress("measuring", total=None, unit="lines") as advance:
        return asdict(measure_base(config, Path(out), report=lambda _: advance(1)))
