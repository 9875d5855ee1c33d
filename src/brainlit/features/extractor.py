"""Placeholder until the room is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from brainlit.features.config import FeatureConfig
from brainlit.stories import FeatureSpace, Intervals, Story


class FeatureExtractor:
    def __init__(self, config: FeatureConfig, story_names: Sequence[str], phones_of: Callable[[str], Intervals | None]):
        self.config = config

    def settings(self) -> dict[str, Any]:
        return asdict(self.config)

    def files(self) -> list[Path]:
        return []

    def left_out(self) -> dict[str, str]:
        return {}

    def spaces(self, story: Story, own: Sequence[FeatureSpace] = ()) -> list[FeatureSpace]:
        from brainlit.features import low_level_spaces

        return list(own) if any(s.kind == "low_level" for s in own) else [*low_level_spaces(story), *own]
