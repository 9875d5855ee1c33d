"""Windows hold the sound and rows that a sample-by-sample loop says they should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.fabric.utilities.data import _set_sampler_epoch
from torch.utils.data import DataLoader

from brainlit.datamodules.dataset import WindowDataset
from brainlit.datamodules.targets.stored import VoxelTargets
from brainlit.datamodules.windows import (
    EpochSteps,
    EvaluationSteps,
    Hearers,
    Step,
    Window,
    WindowBatch,
    WindowConfig,
    evaluation_windows,
    training_windows,
)
from brainlit.splits import Span
from brainlit.store import StoryStore, build_store
from brainlit.stories import Story
from brainlit.timebase import TimeBase
from tests.toy import ToySource

ALL = np.arange(12)


class Logged(ToySource):
    """The toy data set on an irregular clock that begins 3.1 s before the sound."""

    def story(self, name: str) -> Story:
        story = super().story(name)
        steps_s = 2.0045 + self._rng(name, 9).uniform(-0.01, 0.01, self.n_trs - 1)
        return replace(story, timebase=TimeBase(np.concatenate([[0.0], np.cumsum(steps_s)]) - 3.1, 2.0))


@pytest.fixture(scope="module")
def logged_store(tmp_path_factory: pytest.TempPathFactory) -> StoryStore:
    return build_store(Logged(n_trs=20), tmp_path_factory.mktemp("logged"), progress=False)


def dataset(store: StoryStore, config: WindowConfig) -> WindowDataset:
    return WindowDataset(store, config, VoxelTargets(store, {"sub-A": ALL, "sub-B": ALL[:3]}))


def read_one(store: StoryStore, config: WindowConfig, window: Window) -> WindowBatch:
    return dataset(store, config).read([window])


@pytest.mark.parametrize("first_tr", [0, 1, 7, 16])
@pytest.mark.parametrize(
    "config",
    [WindowConfig(n_trs=4, context_s=3.0), WindowConfig(n_trs=1, context_s=8.0), WindowConfig(4, 0.0, shift_s=-1.3)],
)
def test_sound_equals_a_loop_over_samples(logged_store: StoryStore, config: WindowConfig, first_tr: int) -> None:
    batch = read_one(logged_store, config, Window("toy1", first_tr, first_tr, first_tr + config.n_trs))
    clock = logged_store.timebase("toy1")
    whole = logged_store.audio("toy1", 0, logged_store.n_samples("toy1"))
    end = round((clock.tr_edges_s(first_tr, config.n_trs)[-1] + config.shift_s) * 16_000)
    length = round((config.n_trs * 2.0 + config.context_s) * 16_000)
    samples = range(end - length, end)
    inside = [0 <= k < len(whole) for k in samples]
    assert batch["audio"][0].tolist() == [int(whole[k]) if ok else 0 for k, ok in zip(samples, inside, strict=True)]
    assert batch["audio_mask"][0].tolist() == inside


def test_a_window_is_the_delayed_segments_put_together(toy_store: StoryStore) -> None:
    """At a TR of 2 s the paper's window is TRs k-4 .. k, one after the other."""
    batch = read_one(toy_store, WindowConfig(n_trs=1, context_s=8.0), Window("toy0", 20, 20, 21))
    segments = [toy_store.audio("toy0", 32_000 * k, 32_000 * (k + 1)) for k in range(16, 21)]
    np.testing.assert_array_equal(batch["audio"][0].numpy(), np.concatenate(segments))


@pytest.mark.parametrize("shift_s", [0.0, -1.5, 2.0])
def test_bin_edges_point_at_the_sound_of_their_rows(logged_store: StoryStore, shift_s: float) -> None:
    config = WindowConfig(n_trs=4, context_s=5.0, shift_s=shift_s)
    batch = read_one(logged_store, config, Window("toy2", 9, 9, 13))
    clock = logged_store.timebase("toy2")
    start, _ = clock.window_samples(9, 4, 5.0, shift_s)
    edges_s = batch["bin_edges_s"][0].numpy() + start / 16_000
    assert len(edges_s) == 2 + 4 + 1  # two whole TRs fit into 5 s of context
    np.testing.assert_allclose(edges_s, clock.tr_starts_s[7:14] + shift_s, atol=1e-4)
    assert batch["bin_edges_s"][0, -1] == pytest.approx(13.0, abs=1e-4)


@pytest.mark.parametrize("reference", [0.0, 0.5, 1.0])
def test_rows_are_read_at_the_part_of_the_tr_that_slice_timing_refers_to(
    logged_store: StoryStore, reference: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StoryStore, "slice_reference", reference)
    config = WindowConfig(n_trs=4, context_s=5.0, shift_s=-0.7)
    batch = read_one(logged_store, config, Window("toy2", 9, 9, 13))
    clock = logged_store.timebase("toy2")
    start, _ = clock.window_samples(9, 4, 5.0, -0.7)
    for k in range(4):
        begin_s, end_s = clock.tr_starts_s[9 + k], clock.tr_starts_s[10 + k]
        read_s = begin_s + reference * (end_s - begin_s) - 0.7 - start / 16_000
        assert float(batch["read_s"][0, k]) == pytest.approx(read_s, abs=1e-4)


def test_rows_are_read_in_the_middle_where_nothing_is_known(toy_store: StoryStore) -> None:
    batch = read_one(toy_store, WindowConfig(n_trs=3, context_s=4.0), Window("toy0", 5, 5, 8))
    np.testing.assert_allclose(batch["read_s"][0].numpy(), [5.0, 7.0, 9.0], atol=1e-5)


def test_batches_have_the_promised_keys_shapes_and_types(toy_store: StoryStore) -> None:
    windows = [Window("toy0", 0, 0, 5), Window("toy1", 3, 3, 8), Window("toy5", 35, 35, 40)]
    batch = dataset(toy_store, WindowConfig(n_trs=5, context_s=4.0)).read(windows)
    text = batch.pop("text")  # type: ignore[misc]
    assert len(text) == 3
    assert all(isinstance(words, str) for words in text)
    described = {
        key: {name: (value.dtype, tuple(value.shape)) for name, value in part.items()}
        if isinstance(part, dict)
        else (part.dtype, tuple(part.shape))
        for key, part in batch.items()
    }
    assert described == {
        "audio": (torch.int16, (3, 224_000)),
        "audio_mask": (torch.bool, (3, 224_000)),
        "bin_edges_s": (torch.float32, (3, 8)),
        "read_s": (torch.float32, (3, 5)),
        "targets": {"sub-A": (torch.float32, (3, 5, 12)), "sub-B": (torch.float32, (3, 5, 3))},
        "target_mask": {"sub-A": (torch.bool, (3, 5)), "sub-B": (torch.bool, (3, 5))},
        "row_mask": (torch.bool, (3, 5)),
        "story": (torch.int64, (3,)),
        "first_tr": (torch.int64, (3,)),
    }
    assert batch["story"].tolist() == [0, 1, 5]
    assert batch["first_tr"].tolist() == [0, 3, 35]


def test_targets_are_the_rows_of_those_who_heard_the_story(toy_store: StoryStore) -> None:
    batch = dataset(toy_store, WindowConfig(n_trs=5)).read([Window("toy1", 3, 3, 8), Window("toy2", 10, 10, 15)])
    for k, (story, rows) in enumerate([("toy1", slice(3, 8)), ("toy2", slice(10, 15))]):
        responses = toy_store.responses("sub-A", story)
        assert responses is not None
        np.testing.assert_array_equal(batch["targets"]["sub-A"][k].numpy(), responses[rows])
    assert batch["target_mask"]["sub-A"].all()
    assert batch["target_mask"]["sub-B"].any(dim=1).tolist() == [False, True]
    assert not batch["targets"]["sub-B"][0].any()
    assert batch["row_mask"].all()


@pytest.mark.parametrize("shift_s", [0.0, -1.7])
def test_text_is_the_words_wholly_inside_the_sound(logged_store: StoryStore, shift_s: float) -> None:
    """Also where the window begins before the sound, and where its last rows are padding."""
    config = WindowConfig(n_trs=4, context_s=3.0, shift_s=shift_s)
    places = [("toy1", 0, 4), ("toy1", 8, 12), ("toy2", 15, 17), ("toy1", 16, 20)]
    windows = [Window(story, first, first, stop) for story, first, stop in places]
    batch = dataset(logged_store, config).read(windows)
    for k, window in enumerate(windows):
        clock, words = logged_store.timebase(window.story), logged_store.words(window.story)
        end_s = clock.tr_edges_s(window.stop_tr, 0)[0] + shift_s
        n_s = logged_store.n_samples(window.story) / 16_000
        start_s = clock.tr_edges_s(window.first_tr + 4, 0)[0] + shift_s - 11.0
        expected = [
            word
            for word, begin_s, stop_s in zip(words.labels, words.start_s, words.end_s, strict=True)
            if max(start_s, 0.0) - 1e-4 <= begin_s and stop_s <= min(end_s, n_s) + 1e-4
        ]
        assert batch["text"][k] == " ".join(expected)
    assert len(batch["text"][1].split()) > 8


class Shouted(ToySource):
    """Words in capitals, with spaces around and within."""

    def story(self, name: str) -> Story:
        story = super().story(name)
        labels = tuple(f" Ice  {word.upper()} " for word in story.words.labels)
        return replace(story, words=replace(story.words, labels=labels))


def test_text_is_lower_case_with_one_space_between_words(tmp_path: Path) -> None:
    store = build_store(Shouted(n_trs=20), tmp_path / "store", progress=False)
    text = dataset(store, WindowConfig(n_trs=4)).read([Window("toy0", 6, 6, 10)])["text"][0]
    assert text == " ".join(text.lower().split())
    assert text.startswith("ice ")


def test_a_step_of_one_subject_reads_that_subject_only(toy_store: StoryStore) -> None:
    data = dataset(toy_store, WindowConfig(n_trs=4))
    windows = (Window("toy0", 3, 3, 7), Window("toy1", 9, 9, 13))
    batch = data[Step(windows, "sub-B")]
    assert batch["target_mask"]["sub-B"].any(dim=1).tolist() == [True, False]  # sub-B did not hear toy1
    assert not batch["target_mask"]["sub-A"].any()
    assert not batch["targets"]["sub-A"].any()
    everyone = data[Step(windows)]
    assert torch.equal(batch["targets"]["sub-B"], everyone["targets"]["sub-B"])
    assert torch.equal(batch["audio"], everyone["audio"])
    assert everyone["target_mask"]["sub-A"].all()


def test_a_span_shorter_than_a_window_is_padded_and_nothing_after_it_is_heard(logged_store: StoryStore) -> None:
    config = WindowConfig(n_trs=8, context_s=4.0)
    window = Window("toy0", 9, 9, 12)
    batch = read_one(logged_store, config, window)
    assert batch["row_mask"][0].tolist() == [True] * 3 + [False] * 5
    assert batch["target_mask"]["sub-A"][0].tolist() == [True] * 3 + [False] * 5
    assert not batch["targets"]["sub-A"][0, 3:].any()
    last_edge_s = float(batch["bin_edges_s"][0, 2 + 3])
    heard_s = torch.nonzero(batch["audio_mask"][0]).max().item() / 16_000
    assert heard_s == pytest.approx(last_edge_s, abs=1e-3)
    assert not batch["audio"][0][~batch["audio_mask"][0]].any()


spans = st.builds(lambda start, n: Span("toy0", start, start + n), st.integers(0, 50), st.integers(1, 120))


@given(span=spans, n_trs=st.integers(1, 40))
def test_evaluation_counts_each_row_once(span: Span, n_trs: int) -> None:
    windows = evaluation_windows([span], n_trs)
    rows = [row for window in windows for row in range(window.start_tr, window.stop_tr)]
    assert rows == list(range(span.start_tr, span.stop_tr))
    for window in windows:
        assert window.first_tr >= span.start_tr
        assert window.first_tr <= window.start_tr < window.stop_tr <= window.first_tr + n_trs
        if span.n_trs >= n_trs:
            assert window.first_tr + n_trs <= span.stop_tr


@given(
    span=spans,
    n_trs=st.integers(1, 40),
    stride=st.one_of(st.none(), st.integers(1, 50)),
    random_phase=st.booleans(),
    seed=st.one_of(st.none(), st.integers(0, 99)),
)
def test_training_windows_stay_inside_and_their_number_is_fixed(
    span: Span, n_trs: int, stride: int | None, random_phase: bool, seed: int | None
) -> None:
    config = WindowConfig(n_trs=n_trs, stride_trs=stride, random_phase=random_phase)
    rng = np.random.default_rng(seed) if random_phase and seed is not None else None
    windows = training_windows([span], config, rng)
    assert len(windows) == len(training_windows([span], config, None))
    for window in windows:
        assert span.start_tr <= window.first_tr <= window.start_tr < window.stop_tr <= span.stop_tr
        assert window.stop_tr == min(window.first_tr + n_trs, span.stop_tr), "no sound after its rows is left unheard"
    if stride in (None, n_trs):
        rows = [row for window in windows for row in range(window.start_tr, window.stop_tr)]
        assert rows == list(range(span.start_tr, span.stop_tr)), "each row once"
    elif rng is None and stride is not None and stride <= n_trs:
        covered = {row for window in windows for row in range(window.start_tr, window.stop_tr)}
        assert covered == set(range(span.start_tr, span.stop_tr))


@pytest.mark.parametrize("n_rows", [48, 50, 53, 55, 120])
def test_over_epochs_a_row_is_met_in_many_places_of_a_window_and_once_in_each(n_rows: int) -> None:
    sampler = EpochSteps([Span("toy0", 0, n_rows)], WindowConfig(n_trs=8), seed=0, batch_size=3)
    places = set()
    for epoch in range(200):
        sampler.set_epoch(epoch)
        windows = [window for step in sampler for window in step.windows]
        met = Counter(row for window in windows for row in range(window.start_tr, window.stop_tr))
        assert met == Counter(range(n_rows))
        places |= {25 - window.first_tr for window in windows if window.start_tr <= 25 < window.stop_tr}
    assert len(places) >= 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_trs": 0}, "n_trs is 0"),
        ({"context_s": -1.0}, "context_s is -1"),
        ({"context_s": float("nan")}, "context_s is nan"),
        ({"stride_trs": 0}, "stride_trs is 0"),
        ({"shift_s": float("inf")}, "shift_s is inf"),
    ],
)
def test_impossible_windows_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("tr_s", "n"), [(1.5, 5), (2.0, 4), (2.0045, 3), (8.0, 1), (9.0, 0)])
def test_context_rows_are_the_whole_ones(tr_s: float, n: int) -> None:
    assert WindowConfig(context_s=8.0).context_trs(tr_s) == n


@given(
    context_s=st.floats(0, 20),
    shift_s=st.floats(-4, 4),
    tr_s=st.sampled_from([1.5, 2.0, 2.0045]),
    n_trs=st.integers(1, 20),
    delay=st.integers(0, 6),
)
def test_the_purge_keeps_the_sound_of_two_roles_apart(
    context_s: float, shift_s: float, tr_s: float, n_trs: int, delay: int
) -> None:
    """What a later span hears, delays included, begins after the earlier span's rows and after what they hear."""
    config = WindowConfig(n_trs=n_trs, context_s=context_s, shift_s=shift_s)
    clock, stop = TimeBase.regular(300, tr_s), 100
    later = stop + config.purge_trs(tr_s, delay)
    first_heard, _ = clock.window_samples(later - delay, n_trs, context_s, shift_s)
    earlier_end_s = clock.tr_edges_s(stop, 0)[0] + max(shift_s, 0.0)
    assert first_heard / 16_000 >= earlier_end_s - 1 / 16_000


def test_a_window_in_which_no_row_counts_is_silent(logged_store: StoryStore) -> None:
    window = Window("toy0", 3, 3, 7)
    batch = dataset(logged_store, WindowConfig(n_trs=4, context_s=3.0)).read([window, window.without_rows()])
    assert batch["row_mask"].any(1).tolist() == [True, False]
    assert batch["audio_mask"].any(1).tolist() == [True, False]
    assert not batch["audio"][1].any()
    assert not batch["target_mask"]["sub-A"][1].any()
    assert batch["text"][0]
    assert batch["text"][1] == ""
    assert torch.equal(batch["bin_edges_s"][0], batch["bin_edges_s"][1])


# --- steps
# Steps of an epoch: a function of seed and number, one subject at a time where asked, shared between processes.


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


def rows_of(windows: Sequence[Window]) -> Counter[tuple[str, int]]:
    return Counter((w.story, row) for w in windows for row in range(w.start_tr, w.stop_tr))


@pytest.mark.parametrize("hearers", [None, HEARD.__getitem__])
@pytest.mark.parametrize("n_ranks", [2, 3, 4, 7])
def test_processes_share_every_step_and_no_row_comes_twice(hearers: Hearers | None, n_ranks: int) -> None:
    ranks = [steps_of(1, hearers, 2, rank=rank, n_ranks=n_ranks) for rank in range(n_ranks)]
    alone = steps_of(1, hearers, 2 * n_ranks)
    assert [len(own) for own in ranks] == [len(alone)] * n_ranks
    for parts, whole in zip(zip(*ranks, strict=True), alone, strict=True):
        assert {part.subject for part in parts} == {whole.subject}
        assert all(part.windows for part in parts)
        assert rows_of(whole.windows) == rows_of([window for part in parts for window in part.windows])


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("n_windows", [1, 2, 7, 12])
def test_an_evaluation_sees_each_row_in_one_process(n_ranks: int, n_windows: int) -> None:
    windows = evaluation_windows([Span("toy0", 3, 3 + 8 * n_windows)], 8)
    ranks = [list(EvaluationSteps(windows, 2, rank, n_ranks)) for rank in range(n_ranks)]
    assert len({len(steps) for steps in ranks}) == 1, "processes that wait for each other take as many steps"
    assert rows_of(windows) == rows_of([window for steps in ranks for window in windows_of(steps)])
    if n_ranks == 1:
        assert windows_of(ranks[0]) == windows


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
