"""The arrows between the packages: flows → tasks → models → storage, and what each may know of the outside."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = ("storage", "models", "tasks", "flows")
BELOW = {package: set(ORDER[: rank + 1]) for rank, package in enumerate(ORDER)}
OF_STORAGE_FOR_MODELS = {"storage.errors", "storage.refs", "storage.digests"}
# Triton comes with torch on a GPU machine and is imported on first use.
FOR_SCORING = {"torch", "transformers", "safetensors", "triton"}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, anywhere in it; ``from a import b`` gives ``a.b`` when that is a module of ours."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                ours = node.module.split(".")[0] in ORDER
                is_module = ours and (ROOT / f"{module.replace('.', '/')}.py").exists()
                yield module if is_module else node.module


def top(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("package", ORDER)
def test_nothing_imports_upwards(package: str) -> None:
    upwards = {
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sources(package)
        for module in imports(path)
        if top(module) in ORDER and top(module) not in BELOW[package]
    }
    assert not upwards


def test_every_package_has_sources() -> None:
    assert all(len(sources(package)) > 3 for package in ORDER)


def test_models_take_only_errors_refs_and_digests_from_storage() -> None:
    others = {
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sources("models")
        for module in imports(path)
        if top(module) == "storage" and module not in OF_STORAGE_FOR_MODELS
    }
    assert not others


@pytest.mark.parametrize("package", ["models", "storage"])
def test_the_lower_packages_do_not_know_prefect(package: str) -> None:
    assert not {str(path) for path in sources(package) for module in imports(path) if top(module) == "prefect"}


def test_the_scoring_engine_runs_on_a_bare_gpu_machine() -> None:
    """Follows the imports of the scoring modules through ours: outside the standard library only torch and its two."""
    import sys

    todo = sorted((ROOT / "models").glob("scoring*.py"))
    assert todo
    seen: set[Path] = set()
    foreign: set[str] = set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in imports(path):
            if top(module) in ORDER:
                todo.append(ROOT / f"{module.replace('.', '/')}.py")
            elif top(module) not in sys.stdlib_module_names:
                foreign.add(top(module))
    assert foreign <= FOR_SCORING


@pytest.mark.parametrize("package", ORDER)
def test_nothing_is_unpickled_evaluated_or_swallowed(package: str) -> None:
    for path in sources(package):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{where}: bare except"
            if isinstance(node, ast.Call):
                named = {keyword.arg: keyword.value for keyword in node.keywords}
                for option in ("trust_remote_code", "shell", "allow_pickle"):
                    value = named.get(option)
                    assert not (isinstance(value, ast.Constant) and value.value is True), f"{where}: {option}=True"
                name = ast.unparse(node.func)
                assert name not in ("eval", "exec", "pickle.load", "pickle.loads", "yaml.load"), f"{where}: {name}"
                if name == "torch.load":
                    safe = named.get("weights_only")
                    assert ast.unparse(safe) == "True" if safe else False, f"{where}: torch.load"
