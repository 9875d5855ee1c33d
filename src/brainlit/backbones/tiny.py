"""Small speech models that first learn to hear: phones and spectra of synthetic speech, from scratch, in minutes.

They stand in for published weights where nothing can be downloaded, and train in seconds where those need a GPU. What
they have learned is the sound of words, not their meaning; their record says how well they know phones in a story that
they never heard. Every family has one: the backbone's class says what its architecture is, the lessons are the same.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from brainlit.backbones.addresses import RANDOM_PREFIX
from brainlit.backbones.base import SpeechBackbone
from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.weights import cached_folder, random_model
from brainlit.files import write_json
from brainlit.guard import read_json
from brainlit.stories import Intervals, Story
from brainlit.weight_files import without_bars

log = logging.getLogger(__name__)

RECORD_FILE = "phones.json"
RECIPE_VERSION = 1
"""Part of the cache's key: another number wherever the training below changes."""

CORPUS_FILES = ("source.py", "speech.py", "text.py")

SILENCE = 0
UNKNOWN = -100
N_MELS = 20
MEL_HOP_S = 0.01
MEL_FLOOR = 1e-6
SHORTEST_S, LONGEST_S = 0.4, 6.0
"""Of clips that are heard with silence after them."""


WIDE_AND_DEEP: dict[str, int] = {
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "intermediate_size": 512,
    "d_model": 256,
    "encoder_layers": 6,
    "encoder_ffn_dim": 512,
}
"""What tiny-large changes, under the names that the families have for it; about 4 times the parameters."""


@dataclass(frozen=True)
class TinyRecipe:
    """How a tiny backbone learns to hear.

    Parameters
    ----------
    seed : int
        Of the speech, the initial weights and the crops.
    steps : int
        Optimiser steps.
    minutes : float
        Speech to learn from; a further story is held out.
    batch_size, crop_s : int, float
        Random crops per step, and how long each is.
    lr : float
        Peak learning rate of a one-cycle schedule.
    mel_weight : float
        Weight of the spectral error beside the phone error.
    long_steps : int or None
        So many of the steps, the last ones, hear long_batch crops of long_s instead: families whose positions are
        absolute must learn them all. Short crops first, because they are cheaper.
    long_batch, long_s : int, float or None
    clip_every : int or None
        Of every so many long steps one hears SHORTEST_S to LONGEST_S of its crops and silence after it, as families
        that add silence hear clips.
    """

    seed: int = 0
    steps: int = 220
    minutes: float = 30.0
    batch_size: int = 8
    crop_s: float = 6.0
    lr: float = 4e-3
    mel_weight: float = 0.5
    long_steps: int | None = None
    long_batch: int | None = None
    long_s: float | None = None
    clip_every: int | None = None

    @property
    def heard_at_once_s(self) -> float:
        """The longest crops."""
        return self.long_s or self.crop_s

    def settings(self) -> dict[str, Any]:
        """As plain JSON; what does not apply is left out, so that it is in no key of the cache."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def steps_heard(self, rng: np.random.Generator) -> Iterator[tuple[int, float, float]]:
        """Of each step how many crops, their length in seconds, and how much of it is heard before the silence."""
        n_short = self.steps - (self.long_steps or 0)
        for step in range(self.steps):
            n, length_s = self.batch_size, self.crop_s
            if step >= n_short and self.long_batch and self.long_s:
                n, length_s = self.long_batch, self.long_s
            is_clip = self.clip_every is not None and step >= n_short and (step - n_short) % self.clip_every == 0
            yield n, length_s, float(rng.uniform(SHORTEST_S, LONGEST_S)) if is_clip else length_s


class TinySize(NamedTuple):
    """One size of tiny models: what it changes of the family's tiny architecture, and of the family's recipe."""

    architecture: Mapping[str, Any]
    recipe: Mapping[str, Any]


TINY_SIZES: dict[str, TinySize] = {
    "tiny": TinySize({}, {}),
    "tiny-large": TinySize(WIDE_AND_DEEP, {"steps": 200, "lr": 2e-3}),
}


def tiny_folder(family: type[SpeechBackbone], seed: int = 0, size: str = "tiny") -> Path:
    """The save_pretrained folder of a family's tiny backbone; made once per seed and size, then kept in the cache."""
    changes = {**family.tiny_recipe, **TINY_SIZES[size].recipe}
    return recipe_folder(family, replace(TinyRecipe(seed=seed), **changes), size)


def tiny_architecture(family: type[SpeechBackbone], size: str = "tiny") -> dict[str, Any]:
    """Settings of a family's tiny backbone, as its config.json would hold them."""
    settings = family.tiny_architecture()
    return settings | {name: value for name, value in TINY_SIZES[size].architecture.items() if name in settings}


def recipe_folder(family: type[SpeechBackbone], recipe: TinyRecipe, size: str = "tiny") -> Path:
    """The save_pretrained folder that a recipe makes, from the cache or made now."""
    settings = {
        "recipe": recipe.settings(),
        "recipe_version": RECIPE_VERSION,
        "architecture": tiny_architecture(family, size),
        "corpus_version": corpus_version(),
    }
    return cached_folder(f"{size}-{family.family}", settings, lambda folder: _teach(recipe, family, size, folder))


def corpus_version(files: Sequence[str] = CORPUS_FILES) -> str:
    """Changes whenever the code that writes and speaks the corpus does; the first 16 hex digits of its SHA-256."""
    folder = resources.files("brainlit.demo")
    return hashlib.sha256(b"".join(folder.joinpath(name).read_bytes() for name in files)).hexdigest()[:16]


def tiny_record(folder: str | Path) -> dict[str, Any]:
    """What a tiny backbone's folder says about its training: phone accuracy on held-out stories, steps, seconds."""
    record: dict[str, Any] = read_json(Path(folder) / RECORD_FILE, "a record of training", "Delete its folder.")
    return record


def _teach(recipe: TinyRecipe, family: type[SpeechBackbone], size: str, folder: Path) -> None:
    """Train and save into an empty folder."""
    from brainlit.demo.source import speech_corpus

    log.info("teaching the %s %s backbone to hear phones, once: a minute or a few", size, family.family)
    started = time.monotonic()
    *stories, held_out = speech_corpus(recipe.seed, recipe.minutes)
    inventory = phone_inventory(stories)
    backbone = _untaught(family, size, recipe.seed)
    listener = PhoneListener(backbone, len(inventory) + 1, recipe.seed)
    loss = learn_phones(listener, [make_lesson(story, inventory) for story in stories], recipe)
    accuracy = listener.accuracy(make_lesson(held_out, inventory), recipe.heard_at_once_s)
    record: dict[str, Any] = {
        "recipe": recipe.settings(),
        "phones": sorted(inventory),
        "final_loss": loss,
        "held_out": {"story": held_out.name, **accuracy},
        "seconds": round(time.monotonic() - started, 1),
    }
    log.info("phones right in %.0f %% of held-out frames", 100 * record["held_out"]["accuracy_all_frames"])
    with without_bars():
        backbone.model.save_pretrained(folder)
    write_json(folder / RECORD_FILE, record)


def _untaught(family: type[SpeechBackbone], size: str, seed: int) -> SpeechBackbone:
    """A tiny backbone with random weights, as `random:<size>` loads it."""
    config = BackboneConfig(family.family, f"{RANDOM_PREFIX}{size}", seed, positions="truncated")
    config_class, model_class = family.transformers_classes()
    settings = {**tiny_architecture(family, size), **family.switches(config)}
    return family(random_model(model_class, config_class(**settings), seed), config, {"kind": "random", "seed": seed})


# --- Lessons: which phone sounds in each frame, and what the spectrum is there ---


def learn_phones(listener: PhoneListener, lessons: Sequence[Lesson], recipe: TinyRecipe) -> float:
    """Train a listener on random crops, as train_one_cycle does; uses its own random generator."""
    rng = np.random.default_rng(recipe.seed)
    asked = recipe.steps_heard(rng)

    def next_loss() -> Tensor:
        n_crops, length_s, heard_s = next(asked)
        n_samples, n_heard = (int(seconds * listener.backbone.sample_rate_hz) for seconds in (length_s, heard_s))
        crops = draw_crops(lessons, n_crops, n_samples, rng)
        return listener.loss(crops, n_samples, recipe.mel_weight, n_heard)

    return train_one_cycle(
        listener,
        next_loss,
        recipe.steps,
        recipe.lr,
        pct_start=0.15,
        what="Tiny backbone learns phones",
        fused=True,
    )


def train_one_cycle(
    model: nn.Module, next_loss: Callable[[], Tensor], steps: int, lr: float, pct_start: float, what: str, fused: bool
) -> float:
    """Train by a one-cycle schedule up to lr; returns the mean loss of the last tenth of the steps.

    Gradients are there even where the caller has switched them off. `what` stands before the progress bar.
    """
    from tqdm import tqdm

    losses = []
    with torch.inference_mode(False), torch.enable_grad():
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01, fused=fused)
        schedule = OneCycleLR(optimizer, lr, total_steps=steps, pct_start=pct_start)
        for _ in tqdm(range(steps), desc=what, unit="step"):
            loss = next_loss()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
    return float(np.mean(losses[-max(1, steps // 10) :]))


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
    labels = {label for story in stories for label in _phones_of(story).labels}
    return {label: number for number, label in enumerate(sorted(labels), start=1)}


def make_lesson(story: Story, inventory: dict[str, int]) -> Lesson:
    """A story with its answers in the numbers of an inventory."""
    phones = _phones_of(story)
    audio = torch.from_numpy(np.ascontiguousarray(story.audio))
    ids = np.array([inventory.get(label, UNKNOWN) for label in phones.labels], dtype=np.int64)
    return Lesson(audio, phones.start_s, phones.end_s, ids, _log_mel(audio, story.timebase.sample_rate_hz))


def _phones_of(story: Story) -> Intervals:
    if story.phones is None or not len(story.phones):
        raise ValueError(f"story {story.name!r} has no phone times, and the tiny backbone learns from them.")
    return story.phones


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

    def loss(
        self, crops: Sequence[tuple[Lesson, int]], n_samples: int, mel_weight: float, n_heard: int | None = None
    ) -> Tensor:
        """Cross entropy of the phones plus mel_weight times the squared error of the spectra, over crops.

        Parameters
        ----------
        crops : list of (lesson, first sample)
        n_samples : int
            Length of each crop.
        n_heard : int, optional
            Silence stands in place of the samples from here on, and its frames do not count.
        """
        audio = torch.stack([lesson.audio[start : start + n_samples] for lesson, start in crops])
        if n_heard is not None:
            audio[:, n_heard:] = 0
        frames_s = self._frames_s(n_samples, n_heard)
        times_s = [frames_s + start / self.backbone.sample_rate_hz for _, start in crops]
        phones = torch.stack([lesson.phones_at(t) for (lesson, _), t in zip(crops, times_s, strict=True)])
        spectra = torch.stack([lesson.log_mel_at(t) for (lesson, _), t in zip(crops, times_s, strict=True)])
        scores, guessed = (outputs[:, : len(frames_s)] for outputs in self(audio))
        phone_loss = functional.cross_entropy(scores.flatten(0, 1), phones.flatten(), ignore_index=UNKNOWN)
        return phone_loss + mel_weight * functional.mse_loss(guessed, spectra)

    @torch.no_grad()
    def accuracy(self, lesson: Lesson, piece_s: float) -> dict[str, float]:
        """Share of frames whose phone is right, in all frames and in those with a phone, in pieces of a story.

        Phones outside the inventory count as wrong.
        """
        n_samples = int(piece_s * self.backbone.sample_rate_hz)
        frames_s = self._frames_s(n_samples)
        right, truth = [], []
        for start in range(0, len(lesson.audio) - n_samples + 1, n_samples):
            scores, _ = self(lesson.audio[None, start : start + n_samples])
            truth.append(lesson.phones_at(frames_s + start / self.backbone.sample_rate_hz))
            right.append(scores[0, : len(frames_s)].argmax(-1) == truth[-1])
        hits, sounding = torch.cat(right).float(), torch.cat(truth) != SILENCE
        return {
            "accuracy_all_frames": float(hits.mean()),
            "accuracy_phone_frames": float(hits[sounding].mean()),
            "share_silence": float((~sounding).float().mean()),
            "n_frames": len(hits),
        }

    def _frames_s(self, n_samples: int, n_heard: int | None = None) -> npt.NDArray[np.float64]:
        """Times of the frames of n_samples that lie in what is heard, not in silence after it."""
        frames_s = np.asarray(self.backbone.frame_times_s(n_samples).double())
        return frames_s[frames_s * self.backbone.sample_rate_hz < (n_samples if n_heard is None else n_heard)]


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
