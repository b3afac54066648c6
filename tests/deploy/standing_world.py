"""A preset file for a standing installation whose campaign takes seconds: a random policy, a recipe without screening.

preset = write_world(home, folder)      makes corpus and policy in the home, and returns the file
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from storage.home import Home
from tests.campaigns import small_preset
from tests.world import make_world

NAME = "tiny"


def write_world(home: Home, folder: Path, *, rounds: int = 1) -> Path:
    """The world of ``tests.world`` and a campaign of the recipe ``standard`` on it, as files."""
    with pytest.MonkeyPatch.context() as patch:
        world = make_world(home, folder, patch)
    preset = small_preset(world, NAME, recipe="standard", rounds=rounds, tokens=256)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(preset.model_dump(mode="json")), encoding="utf-8")
    return path
