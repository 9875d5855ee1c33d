"""Learning to hear: which phone sounds in each frame, and what the spectrum is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from brainlit.backbones.base import SpeechBackbone
from brainlit.stories import Story

SILENCE = 0
UNKNOWN = -100
N_MELS = 20
MEL_HOP_S = 0.01
MEL_FLOOR = 1e-6


@dataclass(frozen=True)
class Lesson:
    """One story with the answers: what sounds at any time.

    Parameters
    ----------
    audio : int16 Tensor of shape (n_samples,)
    phone_starts_s, phone_ends_s : arrays of shape (n_phones,)
    phone_ids : int array of shape (n_phones,)
        Number in the inventory, or UNKNOWN.
    log_mel : float32 Tensor of shape (n_hops, N_MELS)
        Every MEL_HOP_S, z-scored over the story.
    """

    audio: Tensor
    phone_starts_s: npt.NDArray[np.float64]
    phone_ends_s: npt.NDArray[np.float64]
    phone_ids: npt.NDArray[np.int64]
    log_mel: Tensor

    def phones_at(self, times_s: npt.NDArray[np.float64]) -> Tensor:
        """Phone at each time: SILENCE between phones, UNKNOWN for labels outside the inventory; int64."""
        k = np.searchsorted(self.phone_starts_s, times_s, side="right") - 1
        inside = (k >= 0) & (times_s < self.phone_ends_s[k])
        return torch.from_numpy(np.where(inside, self.phone_ids[k], SILENCE))

    def log_mel_at(self, times_s: npt.NDArray[np.float64]) -> Tensor:
        """Spectrum at the nearest hop to each time; shape (n_times, N_MELS)."""
        hops = np.clip(np.rint(times_s / MEL_HOP_S).astype(np.int64), 0, len(self.log_mel) - 1)
        return self.log_mel[torch.from_numpy(hops)]


def phone_inventory(stories: Iterable[Story]) -> dict[str, int]:
    """Number of each phone label in these stories, from 1, in alphabetical order; 0 is SILENCE.

    Raises
    ------
    ValueError
        If a story has no phone times.
    """
    labels: set[str] = set()
    for story in stories:
        if story.phones is None or not len(story.phones):
            raise ValueError(f"story {story.name!r} has no phone times, and the tiny backbone learns from them.")
        labels.update(story.phones.labels)
    return {label: number for number, label in enumerate(sorted(labels), start=1)}


def make_lesson(story: Story, inventory: dict[str, int]) -> Lesson:
    """A story with its answers in the numbers of an inventory."""
    phones = story.phones
    if phones is None:
        raise ValueError(f"story {story.name!r} has no phone times, and the tiny backbone learns from them.")
    audio = torch.from_numpy(np.ascontiguousarray(story.audio))
    ids = np.array([inventory.get(label, UNKNOWN) for label in phones.labels], dtype=np.int64)
    return Lesson(audio, phones.start_s, phones.end_s, ids, _log_mel(audio, story.timebase.sample_rate_hz))


class PhoneListener(nn.Module):
    """A backbone with two linear maps from its last hidden state: to phones and to the spectrum."""

    def __init__(self, backbone: SpeechBackbone, n_phones: int, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        n_outputs = n_phones + N_MELS
        self.readout = nn.utils.skip_init(nn.Linear, backbone.hidden_size, n_outputs)  # type: ignore[no-untyped-call]
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.readout.weight, std=backbone.hidden_size**-0.5, generator=generator)
        nn.init.zeros_(self.readout.bias)

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Phone scores (batch, n_frames, n_phones) and spectra (batch, n_frames, N_MELS) of int16 sound."""
        encoded = self.backbone.encode(audio, torch.ones_like(audio, dtype=torch.bool))
        outputs = self.readout(encoded.hidden_states[-1])
        return outputs[..., :-N_MELS], outputs[..., -N_MELS:]

    def loss(self, crops: Sequence[tuple[Lesson, int]], n_samples: int, mel_weight: float) -> Tensor:
        """Cross entropy of the phones plus mel_weight times the squared error of the spectra, over crops.

        Parameters
        ----------
        crops : list of (lesson, first sample)
        n_samples : int
            Length of each crop.
        """
        audio = torch.stack([lesson.audio[start : start + n_samples] for lesson, start in crops])
        frames_s = self.backbone.frame_times_s(n_samples).double().numpy()
        times_s = [frames_s + start / self.backbone.sample_rate_hz for _, start in crops]
        phones = torch.stack([lesson.phones_at(t) for (lesson, _), t in zip(crops, times_s, strict=True)])
        spectra = torch.stack([lesson.log_mel_at(t) for (lesson, _), t in zip(crops, times_s, strict=True)])
        scores, guessed = self(audio)
        phone_loss = functional.cross_entropy(scores.flatten(0, 1), phones.flatten(), ignore_index=UNKNOWN)
        return phone_loss + mel_weight * functional.mse_loss(guessed, spectra)

    @torch.no_grad()
    def accuracy(self, lesson: Lesson, piece_s: float) -> dict[str, float]:
        """Share of frames whose phone is right, in all frames and in those with a phone, in pieces of a story.

        Phones outside the inventory count as wrong.
        """
        n_samples = int(piece_s * self.backbone.sample_rate_hz)
        frames_s = self.backbone.frame_times_s(n_samples).double().numpy()
        right, truth = [], []
        for start in range(0, len(lesson.audio) - n_samples + 1, n_samples):
            scores, _ = self(lesson.audio[None, start : start + n_samples])
            truth.append(lesson.phones_at(frames_s + start / self.backbone.sample_rate_hz))
            right.append(scores[0].argmax(-1) == truth[-1])
        hits, sounding = torch.cat(right).float(), torch.cat(truth) != SILENCE
        return {
            "accuracy_all_frames": float(hits.mean()),
            "accuracy_phone_frames": float(hits[sounding].mean()),
            "share_silence": float((~sounding).float().mean()),
            "n_frames": len(hits),
        }


def draw_crops(lessons: Sequence[Lesson], n: int, n_samples: int, rng: np.random.Generator) -> list[tuple[Lesson, int]]:
    """Crops at random places, longer stories more often."""
    room = np.array([len(lesson.audio) - n_samples for lesson in lessons])
    if room.max() <= 0:
        raise ValueError(f"no story is longer than a crop of {n_samples} samples; make them longer.")
    weights = np.clip(room, 0, None) / np.clip(room, 0, None).sum()
    picks = rng.choice(len(lessons), size=n, p=weights)
    return [(lessons[k], int(rng.integers(room[k]))) for k in picks]


def _log_mel(audio: Tensor, sample_rate_hz: int) -> Tensor:
    """Log power in N_MELS mel bands every MEL_HOP_S, z-scored over the story; shape (n_hops, N_MELS)."""
    from torchaudio.transforms import MelSpectrogram

    hop = round(MEL_HOP_S * sample_rate_hz)
    transform = MelSpectrogram(sample_rate_hz, n_fft=512, win_length=400, hop_length=hop, n_mels=N_MELS)
    log_mel: Tensor = (transform(audio.float() / 32768.0) + MEL_FLOOR).log().T
    return (log_mel - log_mel.mean(0)) / log_mel.std(0).clamp(min=1e-6)
