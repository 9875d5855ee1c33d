"""One vector per clip and layer: the mean over the frames of a frozen backbone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from tqdm.auto import tqdm

from brainlit.backbones import SpeechBackbone
from brainlit.backbones.base import eval_mode
from brainlit.backbones.frames import pool_window
from brainlit.downstream.clip import Clip, Int16Array
from brainlit.downstream.task import Task
from brainlit.downstream.words import StoryWords, WordStates
from brainlit.encoding.arrays import Float32Array

log = logging.getLogger(__name__)

Layers = Sequence[int] | Literal["all"]
LayerFeatures: TypeAlias = dict[int, Float32Array]
"""Layer -> array of shape (n_clips, hidden_size)."""

_HELD_S = 1800.0
"""Sound held at a time, in seconds; 58 MB."""


def clip_features(
    backbone: SpeechBackbone,
    clips: Sequence[Clip],
    layers: Layers = "all",
    *,
    batch_s: float = 60.0,
    max_clip_s: float | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> LayerFeatures:
    """Mean over each clip's frames, layer by layer, in the order of the clips.

    No clip is padded to the length of another: a batch holds clips of one length, after each has lost at its end what
    is too short for another frame (less than one step, 20 ms in published models). So a clip's vector does not depend
    on what else is in its batch, and that holds for all families: group normalisation in the convolutions of wav2vec
    2.0 base and HuBERT base hears padding even where it is masked, and Whisper hears it at the end of the sound.
    Whisper adds 30 s of silence to a short clip, as published, unless its positions are truncated.

    Parameters
    ----------
    layers : 'all' or sequence of int
        Hidden states, 0 being the input of the first layer.
    batch_s : float
        Seconds of sound in a batch, at most, added silence included; a longer clip is a batch of its own.
    max_clip_s : float or None
        Hear no more than the first so many seconds of each clip; what the backbone takes at most (30 s of Whisper) is
        another limit. How many clips were cut is logged.
    device : torch.device or str, optional
        Where to compute; the backbone comes back to where it was. None: where it is.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict of layer to float32 array of shape (n_clips, hidden_size)

    Raises
    ------
    ValueError
        If a layer does not exist, or a clip is shorter than one frame; the clip is named.
    RuntimeError
        If a state is not finite.
    """
    asked = _checked(layers, backbone.n_layers)
    values = np.zeros((len(asked), len(clips), backbone.hidden_size), dtype=np.float32)
    cutter = _Cutter(backbone, max_clip_s)
    with (
        evaluating(backbone, device) as at,
        tqdm(total=len(clips), desc="clips", disable=not progress, leave=False) as bar,
    ):
        for first, sounds in _held(clips, cutter):
            for places in _same_length([len(sound) for sound in sounds], batch_s * backbone.sample_rate_hz, backbone):
                audio = torch.from_numpy(np.stack([sounds[k] for k in places])).to(at)
                encoded = backbone.encode(audio, torch.ones_like(audio, dtype=torch.bool))
                means = [pool_window(encoded.hidden_states[layer], encoded.frame_mask)[0][:, 0] for layer in asked]
                values[:, first + np.asarray(places)] = torch.stack(means).cpu().numpy()
                bar.update(len(places))
    if cutter.n_cut and cutter.limit:
        log.warning("%d clips are longer than %g s and end there", cutter.n_cut, cutter.limit / backbone.sample_rate_hz)
    lost = np.flatnonzero(~np.isfinite(values).all(axis=(0, 2)))
    if len(lost):
        raise RuntimeError(f"states of {clips[lost[0]].name!r} hold NaN or infinite values: the model has diverged.")
    return dict(zip(asked, values, strict=True))


def task_features(
    backbone: SpeechBackbone,
    tasks: Sequence[Task],
    layers: Layers = "all",
    *,
    batch_s: float = 60.0,
    max_clip_s: float | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> dict[str, dict[str, LayerFeatures]]:
    """Features of all parts of some tasks: task -> part -> layer -> array; a clip that tasks share is heard once.

    Parameters are those of clip_features.
    """
    distinct = list({id(clip): clip for task in tasks for part in task.parts for clip in task.clips[part]}.values())
    place = {id(clip): k for k, clip in enumerate(distinct)}
    values = clip_features(
        backbone, distinct, layers, batch_s=batch_s, max_clip_s=max_clip_s, device=device, progress=progress
    )

    def taken(clips: Sequence[Clip]) -> LayerFeatures:
        places = [place[id(clip)] for clip in clips]
        return {layer: array[places] for layer, array in values.items()}

    return {task.name: {part: taken(task.clips[part]) for part in task.parts} for task in tasks}


def word_states(
    backbone: SpeechBackbone,
    words: StoryWords,
    *,
    batch_s: float = 60.0,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> WordStates:
    """What each layer of a backbone makes of the words, each heard by itself; parameters as in clip_features."""
    layers = clip_features(backbone, words.clips, batch_s=batch_s, device=device, progress=progress)
    return replace(words.states, layers=layers)


@contextmanager
def evaluating(backbone: SpeechBackbone, device: torch.device | str | None = None) -> Iterator[torch.device]:
    """Eval mode, no gradients, on a device; each submodule gets its mode back, and the backbone its device.

    In eval mode nothing is drawn, so random states stay as they were.
    """
    home = next(backbone.parameters()).device
    at = torch.device(device) if device is not None else home
    # no_grad and not inference mode: what models keep between calls must serve training later
    with eval_mode(backbone), torch.no_grad():
        try:
            backbone.to(at)
            yield at
        finally:
            backbone.to(home)


class _Cutter:
    """Cuts sounds to their whole frames; refuses those that have none."""

    def __init__(self, backbone: SpeechBackbone, max_clip_s: float | None) -> None:
        self.backbone = backbone
        self.hop_samples = round(backbone.sample_rate_hz / backbone.frame_rate_hz)
        limits = [backbone.max_samples, None if max_clip_s is None else round(max_clip_s * backbone.sample_rate_hz)]
        self.limit = min((limit for limit in limits if limit is not None), default=None)
        self.n_cut = 0
        self._whole_of: dict[int, int] = {}

    def sound(self, clip: Clip) -> Int16Array:
        """As many samples of a clip as its whole frames take."""
        heard = clip.sound()
        self.n_cut += self.limit is not None and len(heard) > self.limit
        n_samples = len(heard[: self.limit])
        if n_samples not in self._whole_of:
            self._whole_of[n_samples] = self._whole(n_samples)
        if not self._whole_of[n_samples]:
            raise ValueError(
                f"clip {clip.name!r} is {1000 * n_samples / self.backbone.sample_rate_hz:.0f} ms long, less than one"
                f" frame of {self.backbone.family}; leave it out, or cut it with more sound around it."
            )
        return heard[: self._whole_of[n_samples]]

    def _whole(self, n_samples: int) -> int:
        """The fewest samples with as many frames as n_samples have, by bisection; 0 where there is no frame."""
        n_frames = self._n_frames(n_samples)
        too_few, enough = max(n_samples - self.hop_samples, 0), n_samples
        while n_frames and enough - too_few > 1:
            middle = (too_few + enough) // 2
            too_few, enough = (too_few, middle) if self._n_frames(middle) == n_frames else (middle, enough)
        return enough if n_frames else 0

    def _n_frames(self, n_samples: int) -> int:
        """Frames of real sound; 0 where the backbone refuses so little."""
        try:
            return int(self.backbone.frame_mask(torch.ones(1, n_samples, dtype=torch.bool)).sum())
        except ValueError:
            return 0


def _checked(layers: Layers, n_layers: int) -> list[int]:
    asked = list(range(n_layers + 1)) if layers == "all" else [int(layer) for layer in layers]
    wrong = [layer for layer in asked if not 0 <= layer <= n_layers]
    if wrong or not asked:
        raise ValueError(f"layers are {layers}; give 'all' or some of 0 (the input of the first layer) to {n_layers}.")
    return asked


def _held(clips: Sequence[Clip], cutter: _Cutter) -> Iterator[tuple[int, list[Int16Array]]]:
    """Sounds of some consecutive clips at a time, with the number of the first."""
    first, sounds, n_held = 0, [], 0
    for k, clip in enumerate(clips):
        sounds.append(cutter.sound(clip))
        n_held += len(sounds[-1])
        if n_held >= _HELD_S * cutter.backbone.sample_rate_hz or k == len(clips) - 1:
            yield first, sounds
            first, sounds, n_held = k + 1, [], 0


def _same_length(lengths: Sequence[int], batch_samples: float, backbone: SpeechBackbone) -> Iterator[list[int]]:
    """Places of sounds of one length, as many at a time as the batch holds when encoded, the longest first."""
    of_length: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        of_length.setdefault(length, []).append(place)
    for length in sorted(of_length, reverse=True):
        n_together = max(1, int(batch_samples // backbone.encoded_samples(length)))
        places = of_length[length]
        yield from (places[k : k + n_together] for k in range(0, len(places), n_together))
