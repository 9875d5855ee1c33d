"""Recognition: a linear CTC head on a backbone that is fine-tuned or frozen, and word and letter error rates."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from brainlit.backbones import SpeechBackbone
from brainlit.backbones.trainable import count_layer_parameters
from brainlit.downstream.clip import Clip
from brainlit.downstream.features import evaluating
from brainlit.downstream.scores import BootstrapConfig, estimate
from brainlit.downstream.task import CHOOSE, TEST, TRAIN, RecognitionTask
from brainlit.encoding.arrays import FloatArray
from brainlit.encoding.statistics import Score
from brainlit.files import write_json
from brainlit.guard import read_json
from brainlit.hints import did_you_mean
from brainlit.tuning.objectives import CharacterCtc
from brainlit.tuning.objectives.ctc import BLANK, collapse, edit_distance
from brainlit.tuning.schedule import (
    default_learning_rates,
    optimizer_with_schedule,
    parameter_groups,
)

log = logging.getLogger(__name__)

Unit = Literal["words", "characters"]
_FORMAT = 1
_LEAST_HEAD_LR = 1e-3
"""The head begins at random, so it is not slowed further in long runs."""


@dataclass(frozen=True)
class CtcConfig:
    """How a model learns to write down what it hears.

    Parameters
    ----------
    tune_backbone : bool
        Train the transformer too, on a copy; the front end stays frozen. Otherwise only the linear head learns.
    layer : int or None
        Hidden state that the head reads; None: the last.
    epochs : int
        Passes over the training clips; the one with the fewest wrong letters on 'choose' counts.
    backbone_lr, head_lr : float or None
        Peak learning rates; None: those that suit the model's size and the number of steps (see
        tuning.schedule.default_learning_rates), the head's 1e-3 at least.
    batch_s : float
        Seconds of sound in a batch, at most.
    warmup_fraction : float
        Share of the steps in which the rates rise; then they fall to 0.
    weight_decay : float
    clip_norm : float
        Longest gradient.
    seed : int
        Of the head's initial weights, the order of batches, and dropout where the backbone has any.
    """

    tune_backbone: bool = True
    layer: int | None = None
    epochs: int = 20
    backbone_lr: float | None = None
    head_lr: float | None = None
    batch_s: float = 60.0
    warmup_fraction: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.batch_s > 0 or not self.clip_norm > 0:
            raise ValueError(
                f"ctc epochs {self.epochs}, batch_s {self.batch_s}, clip_norm {self.clip_norm}; all must be above 0."
            )
        if not 0 <= self.warmup_fraction <= 1:
            raise ValueError(f"ctc warmup_fraction is {self.warmup_fraction}; it is a share, 0 to 1.")
        if self.layer is not None and self.layer < 0:
            raise ValueError(f"ctc layer is {self.layer}; count layers from 0 (the input of the first one).")


def recognise(
    backbone: SpeechBackbone,
    task: RecognitionTask,
    config: CtcConfig | None = None,
    *,
    model: str = "",
    device: torch.device | str | None = None,
    progress: bool = True,
) -> RecognitionResult:
    """Train on 'train', keep the best epoch on 'choose', write down the test parts.

    Training clips are padded to the longest of their batch; clips that are scored are heard one at a time, so that no
    padding decides what is written. Training is by CTC over letters, decoding takes the likeliest label of each frame:
    no language model helps.

    Parameters
    ----------
    backbone : SpeechBackbone
        A copy of it is trained; it stays as it is.
    model : str
        Name of the model, for tables.
    device : torch.device or str, optional
        None: where the backbone is.

    Raises
    ------
    ValueError
        If the layer does not exist, or a training clip is shorter than one frame.
    """
    how = config or CtcConfig()
    layer = backbone.n_layers if how.layer is None else how.layer
    if layer > backbone.n_layers:
        raise ValueError(f"ctc layer is {layer}; {backbone.family} has layers 0 to {backbone.n_layers}.")
    at = torch.device(device) if device is not None else next(backbone.parameters()).device
    recogniser = _Recogniser(copy.deepcopy(backbone).to(at), task.alphabet, layer, how)
    best_epoch = _train(recogniser, task, how, progress)
    clips = {part: found for part, found in task.clips.items() if part not in (TRAIN, CHOOSE)}
    return RecognitionResult(
        task=task.name,
        model=model,
        clips={part: tuple(clip.name for clip in found) for part, found in clips.items()},
        speakers={part: tuple(clip.speaker for clip in found) for part, found in clips.items()},
        said={part: tuple(recogniser.letters(clip.text) for clip in found) for part, found in clips.items()},
        read={
            part: tuple(map(recogniser.read, tqdm(found, f"{task.name}: {part}", disable=not progress, leave=False)))
            for part, found in clips.items()
        },
        facts={**task.facts, "best_epoch": str(best_epoch)},
    )


class _Recogniser(nn.Module):
    """A backbone with a CTC head."""

    def __init__(self, backbone: SpeechBackbone, alphabet: str, layer: int, config: CtcConfig) -> None:
        super().__init__()
        self.backbone, self.layer, self.tuned = backbone, layer, config.tune_backbone
        self.ctc = CharacterCtc(alphabet, backbone.hidden_size, config.seed).to(next(backbone.parameters()).device)
        backbone.freeze_feature_encoder()
        if not self.tuned:
            backbone.requires_grad_(False)
        backbone.eval()

    def logits(self, audio: Tensor, audio_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, n_frames, 1 + n_letters), and which frames are real."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.tuned):
            encoded = self.backbone.encode(audio, audio_mask)
        return self.ctc.linear(encoded.hidden_states[self.layer].float()), encoded.frame_mask

    def read(self, clip: Clip) -> str:
        """What a clip says, heard by itself."""
        sound = torch.from_numpy(clip.sound()[: self.backbone.max_samples].copy())[None]
        with evaluating(self.backbone) as at:
            logits, frame_mask = self.logits(sound.to(at), torch.ones_like(sound, dtype=torch.bool, device=at))
        return self.ctc.decode(collapse(logits[0][frame_mask[0]].argmax(-1).tolist(), BLANK)).strip()

    def letters(self, text: str) -> str:
        """A text in the letters of the alphabet; other signs are left out."""
        return self.ctc.decode(self.ctc.encode(text))


def _train(recogniser: _Recogniser, task: RecognitionTask, config: CtcConfig, progress: bool) -> int:
    """Leaves the recogniser as it was after its best epoch on 'choose'; returns which that was, from 1."""
    lengths = [len(clip.sound()) for clip in task.clips[TRAIN]]
    batches = _batches(
        lengths, config.batch_s * recogniser.backbone.sample_rate_hz, recogniser.backbone.encoded_samples
    )
    generator = torch.Generator().manual_seed(config.seed)
    solver, schedule = _solver(recogniser, config, len(batches))
    fewest, best_epoch, best = float("inf"), 0, _trained_state(recogniser)
    device = next(recogniser.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(config.seed)
        for epoch in tqdm(range(1, config.epochs + 1), f"{task.name}: CTC", disable=not progress, leave=False):
            recogniser.ctc.train()
            for k in torch.randperm(len(batches), generator=generator).tolist():
                _step(recogniser, [task.clips[TRAIN][place] for place in batches[k]], solver, config.clip_norm)
                schedule.step()
            wrong = _wrong_letters(recogniser, task.clips[CHOOSE])
            log.info("%s epoch %d: %.3f wrong letters per letter on 'choose'", task.name, epoch, wrong)
            if wrong < fewest:
                fewest, best_epoch, best = wrong, epoch, _trained_state(recogniser)
    recogniser.load_state_dict(best, strict=False)
    return best_epoch


def _solver(recogniser: _Recogniser, config: CtcConfig, n_batches: int) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW whose rates rise and fall by step."""
    n_steps = config.epochs * n_batches
    suits = default_learning_rates(count_layer_parameters(recogniser.backbone), n_steps, lora=False)
    backbone_lr = suits[0] if config.backbone_lr is None else config.backbone_lr
    head_lr = max(suits[1], _LEAST_HEAD_LR) if config.head_lr is None else config.head_lr
    groups = parameter_groups(
        recogniser.backbone, recogniser.ctc.parameters(), backbone_lr, head_lr, 1.0, config.weight_decay
    )
    groups = [group for group in groups if group["params"]]
    made = optimizer_with_schedule(groups, n_steps, n_batches, config.warmup_fraction, fused=False)
    return made["optimizer"], made["lr_scheduler"]["scheduler"]


def _step(recogniser: _Recogniser, clips: Sequence[Clip], solver: torch.optim.Optimizer, clip_norm: float) -> None:
    audio, audio_mask = _padded(clips, recogniser.backbone.max_samples, next(recogniser.parameters()).device)
    logits, frame_mask = recogniser.logits(audio, audio_mask)
    loss = recogniser.ctc.score(logits, frame_mask, [clip.text for clip in clips])["loss"]
    solver.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(recogniser.parameters(), clip_norm)
    solver.step()


def _wrong_letters(recogniser: _Recogniser, clips: Sequence[Clip]) -> float:
    counts = np.sum([character_errors(recogniser.letters(clip.text), recogniser.read(clip)) for clip in clips], axis=0)
    return float(counts[0] / counts[1])


def _trained_state(recogniser: _Recogniser) -> dict[str, Tensor]:
    """Copies of what training changes."""
    return {name: one.detach().clone() for name, one in recogniser.named_parameters() if one.requires_grad}


def _batches(lengths: Sequence[int], batch_samples: float, encoded: Callable[[int], int]) -> list[list[int]]:
    """Places of clips of similar lengths, as many together as fit when padded and encoded."""
    batches: list[list[int]] = []
    for place in np.argsort(lengths, kind="stable")[::-1].tolist():
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and encoded(longest) * (len(batches[-1]) + 1) <= batch_samples:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _padded(clips: Sequence[Clip], max_samples: int | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sounds (batch, n_samples), zero after their end, and which samples are sound."""
    sounds = [torch.from_numpy(clip.sound()[:max_samples].copy()) for clip in clips]
    audio = nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    lengths = torch.tensor([len(sound) for sound in sounds])
    return audio.to(device), (torch.arange(audio.shape[1]) < lengths[:, None]).to(device)


# --- What was written, and its word and letter error rates ---


@dataclass(frozen=True, eq=False)
class RecognitionResult:
    """What one model wrote down of the test parts of a task.

    Parameters
    ----------
    task, model : str
    clips, speakers : mapping of test part to tuple of str
    said, read : mapping of test part to tuple of str
        The transcript of each clip, and what the model wrote, both in the letters of the task's alphabet.
    facts : mapping of str to str
        Of the task, and `best_epoch`.
    """

    task: str
    model: str
    clips: Mapping[str, tuple[str, ...]]
    speakers: Mapping[str, tuple[str, ...]]
    said: Mapping[str, tuple[str, ...]]
    read: Mapping[str, tuple[str, ...]]
    facts: Mapping[str, str] = field(default_factory=dict)

    def error_rate(self, part: str = TEST, unit: Unit = "words", bootstrap: BootstrapConfig | None = None) -> Score:
        """Insertions, deletions and substitutions per word ('words', WER) or letter ('characters', CER) that was said.

        Summed over clips before they are divided; above 1 where more is written than was said.
        """
        return estimate("error_rate", self.sums(part, unit), self.speakers[part], bootstrap)

    def sums(self, part: str = TEST, unit: Unit = "words") -> FloatArray:
        """Errors and units of each clip: (1, n_clips, 2)."""
        if part not in self.said:
            raise ValueError(f"task {self.task!r} has no test part {part!r}. {did_you_mean(part, self.said)}")
        count = word_errors if unit == "words" else character_errors
        pairs = zip(self.said[part], self.read[part], strict=True)
        return np.asarray([[count(said, read) for said, read in pairs]], dtype=np.float64)

    def save(self, path: Path) -> Path:
        """Write it as JSON; `load_recognition_result` reads it."""
        write_json(Path(path), {"format": _FORMAT, **asdict(self)})
        return Path(path)


def load_recognition_result(path: Path) -> RecognitionResult:
    """A result from its file.

    Raises
    ------
    ValueError
        If the file is something else.
    """
    record = read_json(Path(path), "a recognition result", "Delete it and run the task again.")
    if record.pop("format", None) != _FORMAT:
        raise ValueError(f"{path} is no recognition result of this version; run the task again.")
    for name in ("clips", "speakers", "said", "read"):
        record[name] = {part: tuple(values) for part, values in record[name].items()}
    return RecognitionResult(**record)


def find_recognition(folder: Path) -> dict[str, RecognitionResult]:
    """What one model wrote down, by task; none where the folder is missing."""
    return {result.task: result for result in map(load_recognition_result, sorted(folder.glob("*.json")))}


def compare_recognition(
    a: RecognitionResult,
    b: RecognitionResult,
    part: str = TEST,
    unit: Unit = "words",
    bootstrap: BootstrapConfig | None = None,
) -> Score:
    """Error rate of b minus that of a; both answer for the same drawn speakers or clips. Below 0: b is better.

    Raises
    ------
    ValueError
        If the two did not hear the same clips.
    """
    sums_a, sums_b = a.sums(part, unit), b.sums(part, unit)
    if a.task != b.task or a.clips[part] != b.clips[part] or a.said[part] != b.said[part]:
        raise ValueError(
            f"the two results are not of the same clips ({part!r} of {a.task!r} and {b.task!r}); they cannot be paired."
        )
    return estimate("error_rate", sums_b, a.speakers[part], bootstrap, minus=sums_a)


def word_errors(said: str, read: str) -> tuple[int, int]:
    """Wrong words, and words that were said.

    >>> word_errors("the cat sat", "a cat sat down")
    (2, 3)
    """
    numbers: dict[str, int] = {}
    first, second = ([numbers.setdefault(word, len(numbers)) for word in text.split()] for text in (said, read))
    return edit_distance(first, second), len(first)


def character_errors(said: str, read: str) -> tuple[int, int]:
    """Wrong letters and spaces, and how many were said.

    >>> character_errors("cat", "cart")
    (1, 3)
    """
    return edit_distance([ord(letter) for letter in said], [ord(letter) for letter in read]), len(said)
