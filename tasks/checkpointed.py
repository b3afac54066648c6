"""A checkpointed step: a pure function over digests, made into a Prefect task that is never done twice.

A step is ``produce(home, inputs, config) -> {name: Ref}``. Its key is step name + code version + digests of its inputs
+ its config. Fields of ``inputs`` declared with ``exclude=True`` (a path, a label) are told to the step but are no
part of the key.

What a step reads is hashed before it runs, too: a table that was damaged after it was made must not get into others.

Two records say that a step is done. Ours (``storage.checkpoints``) is written right after the output and is the truth;
Prefect's cached result makes it visible as *Cached* in the UI. Before either is believed the output is hashed again;
if the bytes are not what was recorded both are dropped and the step runs. That is exactly-once for finished steps,
at-least-once for a step that was killed half way (its half-written file was never renamed into place).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

from prefect import Task, task
from prefect.context import TaskRunContext
from prefect.settings import get_current_settings
from prefect.task_runners import TaskRunner
from pydantic import BaseModel

from storage.checkpoints import StepKey, finished, run_step, seconds_of
from storage.home import Home
from storage.refs import Ref

Inputs = TypeVar("Inputs", bound=BaseModel)
Config = TypeVar("Config", bound=BaseModel)
Produce = Callable[[Home, Inputs, Config], Mapping[str, Ref]]


tally: Counter[str] = Counter()
"""Steps of this process: ``computed`` now, ``found`` finished."""


def identity(value: Any) -> Any:
    """A value as it enters a key: a ref counts by its digest alone, so where a file lies changes nothing.

    What a model's own dump leaves out (fields that are excluded, options that are off) is no part of the key.
    """
    if isinstance(value, Ref):
        return value.sha256
    if isinstance(value, BaseModel):
        return {name: identity(getattr(value, name)) for name in value.model_dump(warnings=False)}
    if isinstance(value, Mapping):
        return {str(key): identity(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [identity(item) for item in value]
    return value


def refs_in(value: Any) -> Iterator[Ref]:
    """Every ref in a step's inputs."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from refs_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from refs_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from refs_in(item)


class Step(Generic[Inputs, Config]):
    """One step: callable without Prefect (``run``), as a task inside a flow (``task``)."""

    scores = False
    """Whether the step asks a policy, so that an engine may run its shards on other machines."""

    def __init__(self, name: str, code_version: int, produce: Produce[Inputs, Config], *, scores: bool = False) -> None:
        self.name = name
        self.scores = scores
        self.code_version = code_version
        self.produce = produce
        self.task: Task[..., dict[str, dict[str, Any]]] = task(
            name=name,
            task_run_name=f"{name} {{label}}",
            cache_key_fn=self._cache_key,
            persist_result=True,
            result_serializer="json",
            cache_result_in_memory=False,
        )(self._body)

    def __reduce__(self) -> tuple[Any, ...]:
        """A step travels as the name it has in its module: the other process runs its own code of that name."""
        return step_named, (self.produce.__module__, self.produce.__qualname__)

    def key(self, inputs: Inputs, config: Config) -> StepKey:
        """The step's key for these inputs and this config."""
        return StepKey(step=self.name, code_version=self.code_version, inputs=identity(inputs), config=identity(config))

    def run(self, home: Home, inputs: Inputs, config: Config) -> dict[str, Ref]:
        """The step's refs: from its checkpoint when it is finished, else computed now."""

        def produce() -> Mapping[str, Ref]:
            tally["computed"] += 1
            return self.produce(home, inputs, config)

        return run_step(home, self.key(inputs, config), produce, read=refs_in(inputs))

    def seconds(self, home: Home, inputs: Inputs, config: Config) -> float:
        """Seconds the step took when it was computed (in this run or an earlier one)."""
        return seconds_of(home, self.key(inputs, config))

    def submit(
        self, home: Home, inputs: Inputs, config: Config, *, label: str, runner: TaskRunner[Any] | None = None
    ) -> Callable[[], dict[str, Ref]]:
        """Submits the step to ``runner``, else the flow's task runner; call what it returns to wait for the refs."""
        if runner is None:
            future = self.task.submit(str(home.path), inputs, config, label)
        else:
            parameters = {"home": str(home.path), "inputs": inputs, "config": config, "label": label}
            future = runner.submit(self.task, parameters=parameters)
        return lambda: _refs(future.result())

    def __call__(self, home: Home, inputs: Inputs, config: Config, *, label: str) -> dict[str, Ref]:
        """Runs the step as a task of the current flow and waits."""
        return _refs(self.task(str(home.path), inputs, config, label))

    def _body(self, home: str, inputs: Inputs, config: Config, label: str) -> dict[str, dict[str, Any]]:
        return {name: ref.model_dump() for name, ref in self.run(Home.open(Path(home)), inputs, config).items()}

    def _cache_key(self, context: TaskRunContext, parameters: dict[str, Any]) -> str:
        home = Home.open(Path(parameters["home"]))
        key = self.key(parameters["inputs"], parameters["config"])
        if finished(home, key) is None:
            _forget_prefect_result(key.digest)
        else:
            tally["found"] += 1
        return key.digest


def step(
    name: str, *, code_version: int, scores: bool = False
) -> Callable[[Produce[Inputs, Config]], Step[Inputs, Config]]:
    """Makes a step of a function; raise ``code_version`` when its output would change for the same inputs.

    ``scores`` says that the step's work is that of a policy and that a shard of it may run in any process that has the
    home and the policy.
    """
    return lambda produce: Step(name, code_version, produce, scores=scores)


def step_named(module: str, name: str) -> Step[Any, Any]:
    """The step that a module of this process has under a name."""
    found = getattr(import_module(module), name)
    if not isinstance(found, Step):
        raise TypeError(f"{module}.{name} is no step")
    return found


def _refs(value: Mapping[str, Any]) -> dict[str, Ref]:
    return {name: Ref.model_validate(ref) for name, ref in value.items()}


def _forget_prefect_result(key: str) -> None:
    (get_current_settings().results.local_storage_path / key).unlink(missing_ok=True)
