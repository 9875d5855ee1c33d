"""Weights and settings of the objectives, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from brainlit.tuning.objectives import ObjectiveConfig


def test_the_targets_alone_are_the_default() -> None:
    config = ObjectiveConfig()
    assert (config.targets, config.self_supervised, config.ctc) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": 0.0}, "all 0, so nothing is trained"),
        ({"ctc": -1.0}, r"objective.ctc is -1.0; a weight is 0 or more"),
        ({"self_supervised": float("nan")}, "objective.self_supervised is nan"),
        ({"mask_prob": 1.5}, "mask_prob is 1.5"),
        ({"mask_length": 0}, "mask_length is 0; give at least 1"),
        ({"n_negatives": 0}, "n_negatives is 0"),
        ({"n_clusters": 1}, "n_clusters is 1; telling clusters apart needs at least 2"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"gumbel_start": 0.2}, "gumbel_start is 0.2 and gumbel_stop 0.5"),
        ({"gumbel_decay": 1.1}, "gumbel_decay is 1.1"),
        ({"characters": "abc"}, "begins with a space"),
        ({"characters": " aa"}, "each letter once"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectiveConfig(**settings)


def test_the_gumbel_temperature_falls_to_its_floor_and_never_rises() -> None:
    config = ObjectiveConfig(gumbel_start=2.0, gumbel_stop=0.5, gumbel_decay=0.9)
    temperatures = [config.gumbel_temperature(step) for step in range(40)]
    assert temperatures[:2] == [2.0, 1.8]
    assert temperatures == sorted(temperatures, reverse=True)
    assert temperatures[-1] == 0.5
