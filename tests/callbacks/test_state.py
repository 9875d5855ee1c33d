from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from brainlit.callbacks.state import borrowed_state


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def seed() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)


def disturb(model: nn.Sequential) -> None:
    draw()
    model.train()
    model[1].eval()


@pytest.mark.parametrize("fails", [False, True])
def test_random_states_and_every_modules_own_mode_come_back(fails: bool) -> None:
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[2].eval()
    modes = [part.training for part in model.modules()]
    seed()
    expected = draw()
    seed()
    try:
        with borrowed_state(model):
            disturb(model)
            if fails:
                raise KeyError("inside")
    except KeyError:
        assert fails
    assert draw() == expected
    assert [part.training for part in model.modules()] == modes


def test_threads_come_back() -> None:
    before = torch.get_num_threads()
    with borrowed_state(nn.Linear(1, 1)):
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before
