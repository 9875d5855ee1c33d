"""Steps of an epoch: a function of seed and number, one subject at a time where asked, shared between processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from torch.utils.data import DataLoader

from brainlit.datamodules.steps import EpochSteps, Hearers
from brainlit.datamodules.windows import Step, Window, WindowConfig
from brainlit.encoding.roles import Span

SPANS = [Span("toy0", 0, 100), Span("toy1", 20, 90), Span("toy2", 0, 33)]
CONFIG = WindowConfig(n_trs=8)
HEARD = {"toy0": ("sub-A", "sub-B"), "toy1": ("sub-A",), "toy2": ("sub-A", "sub-B")}


def steps_of(number: int = 0, hearers: Hearers | None = None, batch_size: int = 3, **settings: int) -> list[Step]:
    sampler = EpochSteps(SPANS, CONFIG, settings.pop("seed", 0), batch_size, hearers, **settings)
    sampler.set_epoch(number)
    assert len(list(sampler)) == len(sampler)
    return list(sampler)


def windows_of(steps: list[Step]) -> list[Window]:
    return [window for step in steps for window in step.windows]


def test_an_epoch_depends_on_seed_and_number_only() -> None:
    again = EpochSteps(SPANS, CONFIG, 3, 3)
    for earlier in range(5):  # what was iterated before leaves no trace
        again.set_epoch(earlier)
        list(again)
    again.set_epoch(5)
    assert list(again) == steps_of(5, seed=3)
    assert sorted(windows_of(steps_of(5, seed=3))) != sorted(windows_of(steps_of(6, seed=3)))
    assert sorted(windows_of(steps_of(5, seed=3))) != sorted(windows_of(steps_of(5, seed=4)))


def test_without_a_phase_the_windows_stay_and_their_order_changes() -> None:
    fixed = [EpochSteps(SPANS, replace(CONFIG, random_phase=False), 0, 3) for _ in range(2)]
    fixed[1].set_epoch(1)
    first, second = (windows_of(list(sampler)) for sampler in fixed)
    assert sorted(first) == sorted(second)
    assert first != second


def test_a_draw_leaves_the_global_generators_alone() -> None:
    np.random.seed(0)  # noqa: NPY002
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index, union-attr]  # noqa: NPY002
    steps_of(hearers=HEARD.__getitem__)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(torch_before, torch.get_rng_state())


def test_one_subject_at_a_time_gives_each_subject_all_its_windows() -> None:
    for number in range(6):
        steps = steps_of(number, HEARD.__getitem__)
        assert len(steps) == len(steps_of(0, HEARD.__getitem__))  # so the length of a run is known
        assert all(1 <= len(step.windows) <= 3 for step in steps)
        by_subject = {who: windows_of([step for step in steps if step.subject == who]) for who in ("sub-A", "sub-B")}
        together = windows_of(steps_of(number))
        assert sorted(by_subject["sub-A"]) == sorted(together)
        assert sorted(by_subject["sub-B"]) == sorted(w for w in together if w.story != "toy1")


def test_each_batch_comes_once_per_subject_in_turn() -> None:
    steps = steps_of(2, HEARD.__getitem__)
    place = 0
    while place < len(steps):
        subjects = HEARD[steps[place].windows[0].story]
        turn = steps[place : place + len(subjects)]
        assert tuple(step.subject for step in turn) == subjects
        assert len({step.windows for step in turn}) == 1
        place += len(subjects)
    assert any(len({window.story for window in step.windows}) > 1 for step in steps)  # stories are mixed


@pytest.mark.parametrize("hearers", [None, HEARD.__getitem__])
@pytest.mark.parametrize("n_ranks", [2, 3])
def test_processes_share_every_step(hearers: Hearers | None, n_ranks: int) -> None:
    ranks = [steps_of(1, hearers, 2, rank=rank, n_ranks=n_ranks) for rank in range(n_ranks)]
    alone = steps_of(1, hearers, 2 * n_ranks)
    assert [len(own) for own in ranks] == [len(alone)] * n_ranks
    for parts, whole in zip(zip(*ranks, strict=True), alone, strict=True):
        assert {part.subject for part in parts} == {whole.subject}
        assert set(whole.windows) == {window for part in parts for window in part.windows}
        assert all(part.windows for part in parts)
        if len(whole.windows) >= n_ranks:
            assert sum(len(part.windows) for part in parts) == len(whole.windows)


def test_lightning_sets_the_epoch_and_puts_no_sampler_around_it() -> None:
    sampler = EpochSteps(SPANS, CONFIG, 0, 3)
    loader: DataLoader[Step] = DataLoader([], batch_size=None, sampler=sampler)  # type: ignore[arg-type]
    _set_sampler_epoch(loader, 4)
    assert sampler.epoch == 4
    assert isinstance(loader.sampler, torch.utils.data.DistributedSampler)  # those it leaves as they are


def test_the_first_steps_can_be_left_out() -> None:
    sampler = EpochSteps(SPANS, CONFIG, 0, 3)
    whole, sampler.first = list(sampler), 5
    assert list(sampler) == whole[5:]
