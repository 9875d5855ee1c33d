"""Which channels of a sound file are the sound that was heard.

Stereo of one scene is averaged. Two other things come in two channels. In laboratories the second one often carries
triggers (or the room, or another speaker), which would be mixed into the speech without a word; and a channel with its
polarity turned round takes the other away. Both are found from two numbers over the whole file:

* r of the waveforms, at lag 0. One source in two channels has |r| above .2 (panned 90 : 10 still .23), while triggers,
  hum, noise or another voice stay within .03. Microphones far apart in a reverberant room have r near 0 too, hence
* r of the loudness in frames of 20 ms, each channel differentiated before (a long pulse is silent then, but for its
  edges) and without what changes slower than 3 s. One scene has .9 and more even in a hall with 10 ms between the
  microphones; triggers every few seconds or at every word, two voices, hum and noise stay between -.14 and .08.

Channels are taken to belong together if |r| > .15 or the loudness has r > .3; between lie duets of panned instruments
and interviews with two microphones that hear each other, which are let pass. What is not found: triggers that are
bursts of sound as long as each word (r = .4), and anything in less than 10 s of sound, where two words are loud
together by chance. The numbers were taken from synthetic speech with artificial rooms; the tests repeat some.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from brainlit.stories.base import FloatArray

Channel = int | Literal["left", "right", "mean"]
"""A channel of a file (left is 0, right is 1), or the mean of all whatever they hold."""

_ONE_SOUND_R = 0.15
_ONE_LOUDNESS_R = 0.3
_MIN_JUDGED_S = 10.0
_SILENT_DB = -40.0
"""A channel so far below the loudest is left out of the mean, where it would halve the sound and add its noise."""
_CANCELLED_PART = 0.1
"""Of the energy of a sound; less may cancel in a room."""
_COARSE_HZ = 8_000
_LARGE = 1e15
"""Squares of larger values do not fit into float32."""
_FRAME_S, _SLOW_S = 0.02, 3.0


@dataclass(frozen=True)
class Relation:
    """How the channels of a file belong together.

    Parameters
    ----------
    level_db : array of shape (n_channels,)
        Root mean square without the mean, over full scale.
    waveform_r, loudness_r : arrays of shape (n_channels, n_channels)
        0 where a channel is silent, or the file too short to judge.
    cancelled_part : float
        Part of the energy that lies where the mean of all channels has less than half of the power that it would have
        if they had nothing in common.
    """

    level_db: FloatArray
    waveform_r: FloatArray
    loudness_r: FloatArray
    cancelled_part: float
    duration_s: float

    @property
    def heard(self) -> list[int]:
        """The channels that are not silent; all of them if all are."""
        loudest = float(self.level_db.max(initial=-np.inf))
        heard = [k for k, level_db in enumerate(self.level_db) if level_db > loudest + _SILENT_DB]
        return heard or list(range(len(self.level_db)))

    @property
    def cancels(self) -> bool:
        """Whether the mean takes away much of what each channel holds."""
        return self.cancelled_part > _CANCELLED_PART

    def strangers(self, channels: list[int]) -> tuple[int, int] | None:
        """Two channels that have nothing in common, also through none of the others; None if all belong together."""
        if len(channels) < 2 or self.duration_s < _MIN_JUDGED_S:
            return None
        near = (np.abs(self.waveform_r) > _ONE_SOUND_R) | (self.loudness_r > _ONE_LOUDNESS_R)
        together = [channels[0]]
        for k in together:
            together += [other for other in channels if near[k, other] and other not in together]
        strange = [k for k in channels if k not in together]
        return (channels[0], strange[0]) if strange else None


class RelationOfChannels:
    """Gathers `Relation` block by block."""

    def __init__(self, n_channels: int, rate_hz: int, full_scale: float) -> None:
        self._n_channels, self._rate_hz, self._full_scale = n_channels, rate_hz, full_scale
        self._n_frames: list[int] = []
        self._means: list[FloatArray] = []
        self._products = np.zeros((n_channels, n_channels))
        self._energy, self._cancelled = 0.0, 0.0
        self._loudness: list[FloatArray] = []

    def add(self, block: npt.NDArray[Any]) -> None:
        """A block of samples, (n_frames, n_channels)."""
        values: npt.NDArray[Any] = block.astype(np.float32, copy=False)
        if not max(values.max(), -values.min()) < _LARGE:
            values = values.astype(np.float64)
        means = np.ones(len(values), dtype=values.dtype) @ values / len(values)
        values = values - means
        products = (values.T @ values).astype(np.float64)
        self._n_frames.append(len(values))
        self._means.append(means.astype(np.float64))
        self._products += products
        energy = float(np.trace(products))
        self._energy += energy
        if 2 * float(products.mean()) * self._n_channels < energy / self._n_channels:
            self._cancelled += energy
        self._loudness.append(_loudness(values, self._rate_hz))

    def result(self) -> Relation:
        """What was gathered."""
        n_frames, n_each = max(sum(self._n_frames), 1), np.array(self._n_frames)[:, None]
        means = np.array(self._means).reshape(-1, self._n_channels)
        apart = means - (n_each * means).sum(axis=0) / n_frames
        power = (self._products + (n_each * apart).T @ apart) / n_frames
        rms = np.sqrt(np.diag(power))
        with np.errstate(divide="ignore"):
            level_db = 20 * np.log10(rms / self._full_scale)
        loudness = np.concatenate(self._loudness) if self._loudness else np.zeros((0, self._n_channels))
        return Relation(
            level_db,
            _without_scale(power),
            _without_scale(loudness.T @ loudness),
            self._cancelled / self._energy if self._energy > 0 else 0.0,
            sum(self._n_frames) / self._rate_hz,
        )


def number_of(channel: int | Literal["left", "right"]) -> int:
    """Which channel a name means, from 0."""
    return {"left": 0, "right": 1}[channel] if isinstance(channel, str) else channel


def name_of(k: int, n_channels: int) -> str:
    """'channel 1 (right)' of two; plain numbers of more."""
    return f"channel {k}{(' (left)', ' (right)')[k] if n_channels == 2 else ''}"


def _loudness(values: npt.NDArray[Any], rate_hz: int) -> FloatArray:
    """Root mean squares of frames of 20 ms, less their mean over 3 s: (n_windows x n_frames, n_channels)."""
    n_channels, step = values.shape[1], max(1, rate_hz // _COARSE_HZ)
    # einsum adds a few neighbours several times faster than mean does
    coarse = np.einsum("nkc->nc", values[: len(values) // step * step].reshape(-1, step, n_channels))
    changes = np.diff(coarse, axis=0).astype(np.float64) / step
    n_frame = max(1, round(_FRAME_S * rate_hz / step))
    frames = changes[: len(changes) // n_frame * n_frame].reshape(-1, n_frame, n_channels)
    rms = np.sqrt((frames**2).mean(axis=1))
    n_window = min(round(_SLOW_S / _FRAME_S), max(len(rms), 1))
    windows = rms[: len(rms) // n_window * n_window].reshape(-1, n_window, n_channels)
    return np.asarray(windows - windows.mean(axis=1, keepdims=True)).reshape(-1, n_channels)


def _without_scale(products: FloatArray) -> FloatArray:
    """Correlations from covariances; 0 where there is no variance."""
    scale = np.sqrt(np.maximum(np.outer(np.diag(products), np.diag(products)), 0))
    return np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
