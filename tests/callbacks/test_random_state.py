"""Random states come back, and what cannot come back is said."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from brainlit.callbacks import random_state
from brainlit.callbacks.random_state import KEY, RandomState, random_states, set_random_states
from brainlit.callbacks.state import borrowed_state


@pytest.fixture(autouse=True)
def borrowed() -> Any:
    """The tests' own random states are given back."""
    with borrowed_state(torch.nn.Identity()):
        yield


def draw() -> tuple[float, ...]:
    """One number of each source; an odd number of normals leaves one in numpy's pocket."""
    return random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(()))  # noqa: NPY002


def reseed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def process(rank: int = 0, world_size: int = 1) -> Any:
    return SimpleNamespace(global_rank=rank, world_size=world_size)


def test_states_survive_a_file_that_holds_plain_values_only(tmp_path: Path) -> None:
    reseed(1)
    draw()
    torch.save(random_states(), tmp_path / "states.pt")
    expected = draw(), draw()
    reseed(2)
    draw()
    set_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert (draw(), draw()) == expected


@pytest.mark.parametrize("within_epoch", [False, True])
def test_states_come_back_in_their_moment(within_epoch: bool) -> None:
    saving, checkpoint = RandomState(), {}
    reseed(3)
    if within_epoch:
        saving.on_train_epoch_start(process(), None)  # type: ignore[arg-type]
    saving.on_save_checkpoint(process(), None, checkpoint)  # type: ignore[arg-type]
    expected = draw()
    reseed(4)
    loading = RandomState()
    loading.on_load_checkpoint(process(), None, checkpoint)  # type: ignore[arg-type]
    if within_epoch:
        assert draw() != expected, "the loader has not made its iterator yet"
    else:
        assert draw() == expected
    loading.on_train_start(process(), None)  # type: ignore[arg-type]
    assert (draw() == expected) == within_epoch
    loading.on_train_start(process(), None)  # type: ignore[arg-type]
    assert draw() != expected, "once"


def test_each_process_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(everyones: list[Any], own: dict[str, Any]) -> None:
        reseed(6)
        everyones[:] = [own, random_states()]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    reseed(5)
    checkpoint: dict[str, Any] = {}
    RandomState().on_save_checkpoint(process(0, 2), None, checkpoint)  # type: ignore[arg-type]
    for rank, seed in ((0, 5), (1, 6)):
        reseed(seed)
        expected = draw()
        RandomState().on_load_checkpoint(process(rank, 2), None, checkpoint)  # type: ignore[arg-type]
        assert draw() == expected


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        ({}, "holds no random states"),
        ({KEY: {"within_epoch": False, "processes": [{}, {}]}}, "had 2 processes and has 1 now"),
    ],
)
def test_what_cannot_come_back_is_said(
    checkpoint: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    reseed(7)
    expected = draw()
    reseed(7)
    callback = RandomState()
    callback.on_load_checkpoint(process(), None, checkpoint)  # type: ignore[arg-type]
    callback.on_train_start(process(), None)  # type: ignore[arg-type]
    assert words in caplog.text
    assert draw() == expected, "nothing was changed"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_goes_on_too() -> None:
    torch.cuda.manual_seed(1)
    states = random_state.random_states()
    expected = torch.rand(3, device="cuda")
    set_random_states(states)
    assert torch.equal(torch.rand(3, device="cuda"), expected)
