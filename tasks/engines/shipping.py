"""A shard on its way to a node: a Prefect task whose body runs the step there.

The step travels by name, its inputs and config as they are (refs, digests, numbers), the result as JSON of refs. No
table, tensor or model is sent.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Task, task
from pydantic import BaseModel

from storage.errors import PolicylongError
from storage.home import Home
from tasks.checkpointed import Step
from tasks.engines.carrying import Load, computed
from tasks.engines.nodes import Wanted, check_here, named_here, node_name, take_gpu

Answer = dict[str, Any]
"""``refs`` (name → ref as JSON), ``node`` and ``seconds``."""


@dataclass(frozen=True)
class Shipped:
    """A step as it is sent to nodes that are like ``wanted``."""

    step: Step[Any, Any]
    wanted: Wanted

    @property
    def task(self) -> Task[..., Answer]:
        """The Prefect task, called as the step's own is."""
        return task(
            name=self.step.name,
            task_run_name=f"{self.step.name} {{label}}",
            persist_result=False,
            cache_result_in_memory=False,
        )(self.body)

    def body(self, home: str, inputs: BaseModel, config: BaseModel, label: str, load: Load | None) -> Answer:
        """Runs on the node: looks whether it is fit, then computes the shard, or finds it finished."""
        check_here(self.wanted)
        take_gpu(_assigned(), os.environ)
        try:
            if load is None:
                at = Home(Path(home))
                refs, seconds = self.step.run(at, inputs, config), self.step.seconds(at, inputs, config)
            else:
                refs, seconds = computed(load, self.step, inputs, config)
        except PolicylongError as error:
            raise named_here(error) from error
        return {
            "refs": {name: ref.model_dump(mode="json") for name, ref in refs.items()},
            "node": node_name(),
            "seconds": seconds,
        }


def _assigned() -> list[str]:
    import ray

    return [str(name) for name in ray.get_runtime_context().get_accelerator_ids().get("GPU", [])]
