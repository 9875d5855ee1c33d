"""Roles of a store's stories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from brainlit.datamodules.roles import same_length_sounds, settle_roles
from brainlit.encoding.roles import LeakError
from brainlit.store import build_store
from brainlit.stories import Story
from tests.toy import ToySource


class Twins(ToySource):
    """toy5 has the sound of toy0; toy3 is a sample shorter than the others."""

    name = "twins"

    def story(self, name: str) -> Story:
        story = super().story("toy0" if name == "toy5" else name)
        return replace(story, name=name, audio=story.audio[:-1] if name == "toy3" else story.audio)


def test_one_sound_under_two_names_serves_one_role(tmp_path: Path) -> None:
    store = build_store(Twins(), tmp_path / "store")
    sounds = same_length_sounds(store)
    assert sounds["toy0"] == sounds["toy5"]
    assert len(set(sounds.values())) == 4
    assert "toy3" not in sounds
    with pytest.raises(LeakError, match=r"'toy0' \(tune\) and 'toy5' \(score\) are the same sound under two names"):
        settle_roles(store, {"tune": ["toy0"], "score": ["toy5"]}, 6)
    assert settle_roles(store, {"tune": ["toy0", "toy5"], "score": ["toy4"]}, 6).stories("score") == ("toy4",)
    assert settle_roles(store, {"tune": ["toy0"], "score": ["toy5"]}, 6, ["tune and score"]).n_trs("score") == 40
