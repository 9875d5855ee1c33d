"""A sound that is not in the store is cut as the same sound in the store is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from brainlit.datamodules import WindowConfig
from brainlit.datamodules.sounds import SoundDataModule, SoundStories, rows_at, sound_clock
from tests.datamodules.test_story import data_module


@pytest.mark.parametrize("window", [WindowConfig(16, 8.0), WindowConfig(1, 8.0, shift_s=-1.5), WindowConfig(64, 20.0)])
def test_windows_are_those_of_the_same_sound_in_the_store(toy_store_path: Path, window: WindowConfig) -> None:
    of_run = data_module(toy_store_path, window=window, batch_size=3)
    store = of_run.store
    sounds = SoundDataModule(of_run, {"heard again": store.audio("toy5", 0, store.n_samples("toy5"))})
    sounds.prepare_data()
    sounds.setup("predict")
    assert sounds.stories.n_trs("heard again") == store.n_trs("toy5") == 40
    pairs = list(zip(sounds.predict_dataloader(), of_run.predict_dataloader(), strict=True))
    assert len(pairs) == -(-len(range(0, 40, window.n_trs)) // 3)
    for ours, theirs in pairs:
        for key in ("audio", "audio_mask", "bin_edges_s", "read_s", "row_mask", "first_tr"):
            assert torch.equal(ours[key], theirs[key]), key  # type: ignore[literal-required]
        assert ours["text"] == [""] * len(theirs["text"])
        assert {name: values.shape[:2] for name, values in ours["targets"].items()} == {
            name: values.shape[:2] for name, values in theirs["targets"].items()
        }
        assert not any(mask.any() for mask in ours["target_mask"].values())


def test_it_answers_what_a_model_asks_its_data(toy_store_path: Path) -> None:
    of_run = data_module(toy_store_path)
    sounds = SoundDataModule(of_run, {"a": np.ones(16_000 * 4, dtype=np.int16)})
    sounds.setup("predict")
    for name in ("regime", "tr_s", "context_trs", "target_sizes", "target_columns"):
        assert getattr(sounds, name) is getattr(of_run, name) or getattr(sounds, name) == getattr(of_run, name)
    assert set(sounds.target_ceilings) == set(of_run.target_ceilings)


def test_sound_is_read_where_it_is() -> None:
    samples = np.arange(1, 32_001, dtype=np.int16)
    stories = SoundStories({"a": samples}, tr_s=1.0, slice_reference=0.5)
    for start, n in ((-5, 10), (0, 32_000), (31_995, 10), (40_000, 4), (-10, 4)):
        out = np.full(n, -1, dtype=np.int16)
        part = stories.read_audio("a", start, out)
        inside = [k for k in range(n) if 0 <= start + k < 32_000]
        assert list(range(n))[part] == inside
        assert out[part].tolist() == [samples[start + k] for k in inside]
        assert (np.delete(out, inside) == -1).all()


def test_a_sound_of_less_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^bell lasts 1\.50 s, less than one row of 2 s"):
        sound_clock("bell", 24_000, tr_s=2.0)
    assert sound_clock("bell", 32_000, tr_s=2.0).n_trs == 1


@pytest.mark.parametrize("reference", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("tr_s", [0.72, 1.0, 1.5, 2.0, 2.3, 40.0])
def test_rows_at_another_tr_lie_between_rows(tr_s: float, reference: float) -> None:
    rows = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    found = rows_at(rows, 2.0, tr_s, reference)
    assert found.dtype == np.float32
    assert len(found) == int(40 / tr_s + 1e-6)
    moments_s = (np.arange(20) + reference) * 2.0
    asked_s = (np.arange(len(found)) + reference) * tr_s
    for column in range(3):
        np.testing.assert_allclose(found[:, column], np.interp(asked_s, moments_s, rows[:, column]), atol=1e-6)


def test_at_the_same_tr_rows_stay_what_they_are() -> None:
    rows = np.random.default_rng(0).standard_normal((7, 2)).astype(np.float32)
    assert np.array_equal(rows_at(rows, 2.0045, 2.0045, 0.5), rows)
    assert np.array_equal(rows_at(rows[:1], 2.0, 2.0, 0.5), rows[:1])
