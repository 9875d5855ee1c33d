"""Which frames are hidden, and who is whose distractor."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from brainlit.backbones import SpeechBackbone
from brainlit.tuning.objectives import ObjectiveConfig
from brainlit.tuning.objectives.masking import clip_generators, draw_others, hide_spans, mask_settings, span_mask
from tests.tuning.objectives.conftest import random_states_untouched, tone_batch


def plain_span_mask(n_frames: int, mask_prob: float, mask_length: int, source: random.Random) -> list[bool]:
    """The same rule in plain words."""
    exact = mask_prob * n_frames / mask_length
    n_spans = int(exact) + (source.random() < exact - int(exact))
    starts = source.sample(range(n_frames - mask_length + 1), min(max(1, n_spans), n_frames // mask_length))
    return [any(start <= frame < start + mask_length for start in starts) for frame in range(n_frames)]


@pytest.mark.parametrize(("mask_prob", "mask_length"), [(0.65, 10), (0.8, 10), (0.3, 3)])
def test_as_many_frames_are_hidden_as_the_plain_rule_hides(mask_prob: float, mask_length: int) -> None:
    rng, source = np.random.default_rng(0), random.Random(0)
    real = np.ones(400, dtype=bool)
    ours = np.mean([span_mask(real, mask_prob, mask_length, rng).mean() for _ in range(150)])
    plain = np.mean([plain_span_mask(400, mask_prob, mask_length, source) for _ in range(150)])
    assert ours == pytest.approx(plain, abs=0.01)
    assert ours == pytest.approx(1 - np.exp(-mask_prob), abs=0.025)


def test_hidden_frames_come_in_spans_and_never_from_padding() -> None:
    real = np.zeros(100, dtype=bool)
    real[20:90] = True
    for seed in range(50):
        hidden = span_mask(real, 0.5, 7, np.random.default_rng(seed))
        assert hidden.any()
        assert not (hidden & ~real).any()
        edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden.astype(int), [0]])))
        assert (edges[1::2] - edges[::2] >= 7).all()


def test_every_real_frame_can_be_hidden() -> None:
    real = np.arange(40) >= 10
    often = np.mean([span_mask(real, 0.5, 5, np.random.default_rng(seed)) for seed in range(400)], axis=0)
    assert (often[10:] > 0).all()


@pytest.mark.parametrize(("n_real", "some"), [(0, False), (10, False), (11, True)])
def test_a_clip_no_longer_than_one_span_is_left_alone(n_real: int, some: bool) -> None:
    assert span_mask(np.arange(30) < n_real, 0.01, 10, np.random.default_rng(0)).any() == some


def test_the_draws_of_a_window_depend_on_seed_step_and_window_alone() -> None:
    batch = tone_batch()
    frames = torch.ones(4, 120, dtype=torch.bool)

    def hidden(seed: int, step: int | None, rows: slice = slice(None)) -> torch.Tensor:
        part = {key: batch[key][rows] for key in ("story", "first_tr")}
        return hide_spans(frames[rows], 0.65, 10, clip_generators(seed, step, part))

    with random_states_untouched():
        all_windows = hidden(0, 3)
    assert torch.equal(all_windows, hidden(0, 3))
    assert torch.equal(all_windows[2:3], hidden(0, 3, slice(2, 3)))
    assert not torch.equal(all_windows[0], all_windows[1])
    for other in (hidden(1, 3), hidden(0, 4), hidden(0, None)):
        assert not torch.equal(all_windows, other)


def test_distractors_are_the_others_each_as_often() -> None:
    drawn = draw_others(5, 4000, np.random.default_rng(0))
    for k, row in enumerate(drawn):
        counts = np.bincount(row, minlength=5)
        assert counts[k] == 0
        assert np.delete(counts, k) == pytest.approx(1000, abs=120)


def test_one_alone_has_no_distractors() -> None:
    assert draw_others(1, 3, np.random.default_rng(0)).tolist() == [[0, 0, 0]]


def test_span_length_follows_the_frame_rate_and_share_the_family(backbone: SpeechBackbone) -> None:
    assert mask_settings(ObjectiveConfig(), backbone) == (0.65, 10)
    backbone.frame_rate_hz, backbone.family = 25.0, "hubert"
    assert mask_settings(ObjectiveConfig(), backbone) == (0.8, 5)
    assert mask_settings(ObjectiveConfig(mask_prob=0.1, mask_length=2), backbone) == (0.1, 2)
