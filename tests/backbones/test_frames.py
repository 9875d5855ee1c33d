"""Frames happen in the middle of what they hear, padding counts for nothing, and a clip is normalised by itself."""

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from brainlit.backbones.frames import (
    FrameGrid,
    attention_of_rows,
    end_of_rows,
    max_of_rows,
    mean_of_rows,
    normalise_clips,
    one_row,
    pool_per_tr,
    pool_window,
    rows_of_frames,
)
from brainlit.backbones.wav2vec_like import Wav2vecBackbone

TINY_ARCHITECTURE = Wav2vecBackbone.tiny_architecture()
BASE = FrameGrid((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), 16_000)
TINY = FrameGrid(TINY_ARCHITECTURE["conv_kernel"], TINY_ARCHITECTURE["conv_stride"], 16_000)


def test_known_grids():
    assert (BASE.hop_samples, BASE.field_samples, BASE.frame_rate_hz) == (320, 400, 50.0)
    assert (TINY.hop_samples, TINY.field_samples, TINY.frame_rate_hz) == (640, 1810, 25.0)


@pytest.mark.parametrize(("grid", "settings"), [(BASE, {}), (TINY, TINY_ARCHITECTURE)])
def test_frame_count_is_that_of_the_convolutions(grid, settings):
    with torch.device("meta"):
        model = Wav2Vec2Model(Wav2Vec2Config(**{**settings, "num_hidden_layers": 1}))
    for n_samples in [*range(grid.field_samples, grid.field_samples + 700, 37), 16_000, 160_000]:
        assert grid.n_frames(n_samples) == int(model._get_feat_extract_output_lengths(torch.tensor(n_samples)))


def test_too_short_audio_is_refused_with_the_length_needed():
    with pytest.raises(ValueError, match=r"399 samples.*400"):
        BASE.n_frames(399)


def test_an_impulse_is_heard_by_the_frames_around_it_and_their_times_say_so():
    """Through the real convolutions with random weights, to half a frame."""
    torch.manual_seed(0)
    model = Wav2Vec2Model(Wav2Vec2Config(**{**TINY_ARCHITECTURE, "num_hidden_layers": 1})).eval()
    n_samples = 32_000
    times_s = TINY.times_s(n_samples)
    with torch.no_grad():
        silence = model.feature_extractor(torch.zeros(1, n_samples))
        for sample in (1_500, 7_777, 16_000, 28_000):
            sound = torch.zeros(1, n_samples)
            sound[0, sample] = 50.0
            heard = ((model.feature_extractor(sound) - silence).abs().amax(1)[0] > 0).nonzero()[:, 0]
            expected = [k for k in range(len(times_s)) if k * 640 <= sample < k * 640 + 1810]
            assert heard.tolist() == expected
            middle_s = float(times_s[heard].mean())
            assert abs(middle_s - (sample + 0.5) / 16_000) <= 0.5 * 640 / 16_000 + 1e-6


def test_times_do_not_drift():
    times_s = BASE.times_s(16_000 * 600)
    assert float(times_s[0]) == pytest.approx(200 / 16_000)
    assert float(times_s[-1]) == pytest.approx((len(times_s) - 1) * 0.02 + 0.0125, abs=1e-4)


@pytest.mark.parametrize(("first", "last"), [(0, 16_000), (5_000, 16_000), (0, 9_001), (3_333, 12_345), (8_000, 8_000)])
def test_mask_against_a_slow_loop(first, last):
    audio_mask = torch.zeros(1, 16_000, dtype=torch.bool)
    audio_mask[0, first:last] = True
    expected = [bool(audio_mask[0, k * 320 : k * 320 + 400].all()) for k in range(BASE.n_frames(16_000))]
    assert BASE.mask(audio_mask)[0].tolist() == expected


def test_normalised_as_the_published_feature_extractor_does_one_clip():
    rng = np.random.default_rng(0)
    clips = [(rng.normal(size=n) * gain + 300).astype(np.int16) for n, gain in [(4000, 50), (6000, 3000), (5000, 900)]]
    audio, mask = torch.zeros(3, 6000, dtype=torch.int16), torch.zeros(3, 6000, dtype=torch.bool)
    for row, clip in enumerate(clips):
        audio[row, 6000 - len(clip) :] = torch.from_numpy(clip)
        mask[row, 6000 - len(clip) :] = True
    ours = normalise_clips(audio, mask)
    reference = Wav2Vec2FeatureExtractor(do_normalize=True)
    for row, clip in enumerate(clips):
        theirs = reference(clip / 32768.0, sampling_rate=16_000).input_values[0]
        torch.testing.assert_close(ours[row, 6000 - len(clip) :], torch.tensor(theirs).float(), rtol=1e-4, atol=1e-4)
        assert (ours[row, : 6000 - len(clip)] == 0).all()


def test_a_clip_does_not_depend_on_its_batch():
    """The error of pitfall 9: normalising over the whole batch."""
    torch.manual_seed(0)
    loud, quiet = torch.randn(1, 2000) * 0.5, torch.randn(1, 2000) * 0.005
    mask = torch.ones(2, 2000, dtype=torch.bool)
    together = normalise_clips(torch.cat([loud, quiet]), mask)
    torch.testing.assert_close(together[1:], normalise_clips(quiet, mask[:1]))
    torch.testing.assert_close(together.std(1), torch.ones(2), rtol=0.02, atol=0)


def test_int16_and_floats_give_the_same():
    sound = torch.randint(-8000, 8000, (2, 1000), dtype=torch.int16)
    mask = torch.ones(2, 1000, dtype=torch.bool)
    torch.testing.assert_close(normalise_clips(sound, mask), normalise_clips(sound.float() / 32768, mask))


def test_silence_and_nothing_stay_zero():
    mask = torch.tensor([[True] * 100, [False] * 100])
    assert (normalise_clips(torch.zeros(2, 100, dtype=torch.int16), mask) == 0).all()


def test_bad_audio_is_refused():
    with pytest.raises(TypeError, match="int64"):
        normalise_clips(torch.zeros(1, 10, dtype=torch.int64), torch.ones(1, 10, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\(1, 10\).*\(1, 11\)"):
        normalise_clips(torch.zeros(1, 10), torch.ones(1, 11, dtype=torch.bool))


# --- rows
# Frames fall into each item's own rows; padding never counts; each way of pooling against a loop.


QUERY = torch.tensor([0.5, -1.0, 2.0, 0.0])
WAYS = {
    "mean": mean_of_rows,
    "max": max_of_rows,
    "first": lambda *args: end_of_rows(*args, "first"),
    "last": lambda *args: end_of_rows(*args, "last"),
    "attention": lambda *args: attention_of_rows(*args, QUERY),
}


def slow_attention(frames):
    weights = [torch.exp(frame @ QUERY / 2) for frame in frames]  # 2 is the root of the hidden size
    return sum(weight * frame for weight, frame in zip(weights, frames, strict=True)) / sum(weights)


SLOW = {
    "mean": lambda frames: sum(frames) / len(frames),
    "max": lambda frames: torch.stack(frames).amax(0),
    "first": lambda frames: frames[0],
    "last": lambda frames: frames[-1],
    "attention": slow_attention,
}


def slow_pool(states, frame_mask, times_s, edges_s, how="mean"):
    n_batch, _, hidden = states.shape
    n_bins = edges_s.shape[1] - 1
    pooled, heard = torch.zeros(n_batch, n_bins, hidden), torch.zeros(n_batch, n_bins, dtype=torch.bool)
    for b in range(n_batch):
        for j in range(n_bins):
            inside = [
                states[b, k]
                for k, t in enumerate(times_s.tolist())
                if float(edges_s[b, j]) <= t < float(edges_s[b, j + 1]) and frame_mask[b, k]
            ]
            if inside:
                pooled[b, j], heard[b, j] = SLOW[how](inside), True
    return pooled, heard


def example(seed=0):
    """Masks with holes, rows of other lengths for each item, frames exactly on edges, frames before and after all."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(4, 48, 4, generator=generator)
    frame_mask = torch.rand(4, 48, generator=generator) > 0.2
    frame_mask[1, :20] = False
    times_s = 0.0625 + torch.arange(48) * 0.125
    edges_s = torch.tensor([0.0, 0.13, -0.4])[:, None] + torch.arange(6) * torch.tensor([1.0, 0.75, 1.1])[:, None]
    on_frames = times_s[[2, 3, 11, 12, 30, 41]][None]
    return states, frame_mask, times_s, torch.cat([edges_s, on_frames])


def pool(how, states, frame_mask, times_s, edges_s):
    return WAYS[how](states, rows_of_frames(frame_mask, times_s, edges_s), edges_s.shape[1] - 1)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("how", WAYS)
def test_equals_a_slow_loop_with_edges_of_its_own_for_each_item(how, seed):
    inputs = example(seed)
    for ours, reference in zip(pool(how, *inputs), slow_pool(*inputs, how), strict=True):
        torch.testing.assert_close(ours, reference)
    heard = pool(how, *inputs)[1]
    assert not heard[1, 0]
    assert heard.any()


@pytest.mark.parametrize("how", WAYS)
def test_a_whole_window_is_one_row(how):
    states, frame_mask, times_s, _ = example()
    frame_mask[2] = False
    everything = torch.tensor([[-1.0, 100.0]]).expand(4, 2)
    pooled, heard = WAYS[how](states, one_row(frame_mask), 1)
    torch.testing.assert_close(pooled, slow_pool(states, frame_mask, times_s, everything, how)[0])
    assert heard[:, 0].tolist() == [True, True, False, True]


def test_the_published_pooling_bit_for_bit():
    """As one sum over frames weighted by belonging, which the published results were computed with."""

    def published(states, frame_mask, belongs):
        counts = belongs.sum(2)
        real = torch.where(frame_mask[:, :, None], states.float(), 0.0)
        return torch.bmm(belongs.float(), real) / counts.clamp(min=1)[:, :, None], counts > 0

    states, frame_mask, times_s, edges_s = example()
    rows = torch.searchsorted(edges_s, times_s.expand(4, 48).contiguous(), right=True) - 1
    belongs = rows.masked_fill(~frame_mask, -1)[:, None, :] == torch.arange(5)[None, :, None]
    pairs = [
        (pool_per_tr(states, frame_mask, times_s, edges_s), published(states, frame_mask, belongs)),
        (pool_window(states, frame_mask), published(states, frame_mask, frame_mask[:, None, :])),
    ]
    for ours, reference in pairs:
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(ours, reference, strict=True))


def test_a_frame_on_an_edge_belongs_to_the_row_that_begins():
    states = torch.tensor([[[1.0], [2.0], [4.0]]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    pooled, _ = pool_per_tr(states, mask, torch.tensor([0.0, 1.0, 2.0]), torch.tensor([[0.0, 1.0, 2.0]]))
    assert pooled[0, :, 0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("how", WAYS)
def test_padding_and_frames_outside_all_rows_may_hold_anything(how):
    states, *others = example()
    frame_mask, times_s, edges_s = others
    counts = frame_mask & (times_s >= edges_s[:, :1]) & (times_s < edges_s[:, -1:])
    clean = pool(how, states, *others)[0]
    dirty = states.clone().requires_grad_()
    with torch.no_grad():
        dirty[~counts] = torch.nan
    pooled, _ = pool(how, dirty, *others)
    torch.testing.assert_close(pooled, clean)
    pooled.square().sum().backward()
    assert (dirty.grad[~counts] == 0).all()
    assert (dirty.grad[counts] != 0).any()
    assert dirty.grad.isfinite().all()


@pytest.mark.parametrize("how", WAYS)
def test_rows_without_frames_are_zero_and_flagged_and_have_no_gradient(how):
    states, _, times_s, edges_s = example()
    states = states.requires_grad_()
    nothing = torch.zeros(4, 48, dtype=torch.bool)
    for rows, n_rows in ((rows_of_frames(nothing, times_s, edges_s), 5), (one_row(nothing), 1)):
        pooled, heard = WAYS[how](states, rows, n_rows)
        assert (pooled == 0).all()
        assert not heard.any()
        (gradient,) = torch.autograd.grad(pooled.sum(), states)
        assert (gradient == 0).all()


@pytest.mark.parametrize("how", WAYS)
def test_gradients_are_those_of_the_slow_loop(how):
    states, *others = example()
    ours, slow = (states.clone().requires_grad_() for _ in range(2))
    pool(how, ours, *others)[0].square().sum().backward()
    slow_pool(slow, *others, how)[0].square().sum().backward()
    torch.testing.assert_close(ours.grad, slow.grad)


@pytest.mark.parametrize("how", WAYS)
def test_fp32_whatever_the_precision_around(how):
    states, *others = example()
    exact = pool(how, states.bfloat16().float(), *others)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pool(how, states.bfloat16(), *others)[0]
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, exact)
