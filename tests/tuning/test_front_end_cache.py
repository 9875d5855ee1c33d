"""What the front end makes is kept exactly, within a budget."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from brainlit.backbones import BackboneConfig, SpeechBackbone, load_backbone
from brainlit.tuning.front_end_cache import FrontEndCache, FrontEndCacheConfig, front_end_key

WINDOW_BYTES = 10_000  # a little more than one window's file below


@pytest.fixture
def backbone(mini_folder: Path) -> SpeechBackbone:
    loaded = load_backbone(BackboneConfig(weights=str(mini_folder)))
    loaded.freeze_feature_encoder()
    return loaded


def sound(n: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randint(-9000, 9000, (n, 40_000), generator=generator).to(torch.int16)
    mask = torch.ones_like(audio, dtype=torch.bool)
    mask[0, :9000] = False
    return audio * mask, mask


def make(folder: Path, backbone: SpeechBackbone, **settings: Any) -> FrontEndCache:
    return FrontEndCache(FrontEndCacheConfig(**{"max_gb": 1.0, "folder": str(folder), **settings}), backbone)


def test_what_is_read_is_what_was_computed(tmp_path: Path, backbone: SpeechBackbone) -> None:
    audio, mask = sound()
    direct = backbone.front_end(audio, mask)
    cache = make(tmp_path, backbone)
    for front in (cache.front_end(audio, mask), cache.front_end(audio, mask)):
        torch.testing.assert_close(front.features, direct.features, atol=0, rtol=0)
        assert torch.equal(front.frame_mask, direct.frame_mask)
        assert torch.equal(front.frame_times_s, direct.frame_times_s)
    assert (cache.n_hits, cache.n_misses) == (3, 3)


def test_windows_are_found_in_any_order_and_by_another_process(tmp_path: Path, backbone: SpeechBackbone) -> None:
    audio, mask = sound()
    make(tmp_path, backbone).front_end(audio, mask)
    later = make(tmp_path, backbone)
    order = [2, 0, 1]
    front = later.front_end(audio[order], mask[order])
    torch.testing.assert_close(front.features, backbone.front_end(audio, mask).features[order], atol=0, rtol=0)
    assert later.n_misses == 0


def test_a_batch_of_known_and_new_windows(tmp_path: Path, backbone: SpeechBackbone) -> None:
    audio, mask = sound()
    cache = make(tmp_path, backbone)
    cache.front_end(audio[1:2], mask[1:2])
    torch.testing.assert_close(cache.front_end(audio, mask).features, backbone.front_end(audio, mask).features)
    assert (cache.n_hits, cache.n_misses) == (1, 3)


def test_another_mask_or_front_end_is_another_window(tmp_path: Path, backbone: SpeechBackbone) -> None:
    audio, mask = sound()
    cache = make(tmp_path, backbone)
    cache.front_end(audio, mask)
    cache.front_end(audio, torch.ones_like(mask))
    assert cache.n_misses == 4  # only the first clip has another mask
    key = front_end_key(backbone)
    with torch.no_grad():
        next(backbone.front_end_modules()[0].parameters()).add_(0.1)
    assert front_end_key(backbone) != key


def test_bfloat16_halves_the_space(tmp_path: Path, backbone: SpeechBackbone) -> None:
    audio, mask = sound()
    sizes = {}
    for dtype in ("float32", "bfloat16"):
        cache = make(tmp_path / dtype, backbone, dtype=dtype)
        cache.front_end(audio, mask)
        sizes[dtype] = sum(path.stat().st_size for path in (tmp_path / dtype).rglob("*.npy"))
    again = make(tmp_path / "bfloat16", backbone, dtype="bfloat16").front_end(audio, mask).features
    torch.testing.assert_close(again, backbone.front_end(audio, mask).features, rtol=8e-3, atol=1e-5)
    assert sizes["bfloat16"] < 0.6 * sizes["float32"]


def test_the_budget_is_kept_and_said(
    tmp_path: Path, backbone: SpeechBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    audio, mask = sound()
    cache = make(tmp_path, backbone, max_gb=WINDOW_BYTES / 1e9)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            torch.testing.assert_close(cache.front_end(audio, mask).features, backbone.front_end(audio, mask).features)
    assert len(list(tmp_path.rglob("*.npy"))) == 1
    assert len([r for r in caplog.records if "is full" in r.message]) == 1
    assert make(tmp_path, backbone, max_gb=WINDOW_BYTES / 1e9)._bytes > 0, "what an earlier run kept counts"


def test_a_trained_front_end_is_refused(tmp_path: Path, mini_folder: Path) -> None:
    with pytest.raises(ValueError, match="front end is trained"):
        make(tmp_path, load_backbone(BackboneConfig(weights=str(mini_folder))))


@pytest.mark.parametrize(("settings", "match"), [({"max_gb": -1.0}, "max_gb is -1"), ({"dtype": "int8"}, "'int8'")])
def test_bad_settings(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        FrontEndCacheConfig(**settings)


@pytest.mark.parametrize("harm", ["bit", "cut", "empty", "folder"])
def test_a_damaged_entry_is_computed_again_and_said_once(
    tmp_path: Path, backbone: SpeechBackbone, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    audio, mask = sound()
    direct = backbone.front_end(audio, mask)
    make(tmp_path, backbone).front_end(audio, mask)
    for path in list(tmp_path.rglob("*.npy")):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 4
        path.write_bytes({"bit": bytes(raw), "cut": bytes(raw[:-9])}.get(harm, b""))
        if harm == "folder":
            path.unlink()
            path.mkdir()
    cache = make(tmp_path, backbone)
    torch.testing.assert_close(cache.front_end(audio, mask).features, direct.features, rtol=0, atol=0)
    assert (cache.n_hits, cache.n_misses) == (0, 3)
    assert caplog.text.count("cannot be used") == 1
    if harm != "folder":
        again = make(tmp_path, backbone)
        torch.testing.assert_close(again.front_end(audio, mask).features, direct.features, rtol=0, atol=0)
        assert again.n_hits == 3, "it was written again"


def test_a_full_disk_stops_nothing(
    tmp_path: Path, backbone: SpeechBackbone, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    audio, mask = sound()
    direct, cache = backbone.front_end(audio, mask), make(tmp_path, backbone)
    torch.testing.assert_close(cache.front_end(audio, mask).features, direct.features, rtol=0, atol=0)
    assert caplog.text.count("No space left") == 1
    assert list(tmp_path.rglob("*.npy")) == []
