"""Recognition: a linear CTC head on a backbone that is fine-tuned or frozen, and word and letter error rates."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from brainlit.backbones import SpeechBackbone
from brainlit.downstream.clip import Clip
from brainlit.downstream.features import evaluating
from brainlit.downstream.recognition import RecognitionResult, character_errors, recognition_result
from brainlit.downstream.task import CHOOSE, TRAIN, RecognitionTask
from brainlit.tuning.objectives import CharacterCtc
from brainlit.tuning.objectives.characters import collapse
from brainlit.tuning.objectives.ctc import BLANK
from brainlit.tuning.schedule import default_learning_rates, optimizer_with_schedule, parameter_groups

log = logging.getLogger(__name__)


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
        Peak learning rates; None: those that suit the weights (2e-3 and 3e-3 for tiny models, 5e-5 and 1e-3 else).
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


HEAD_LR = 1e-3
"""Of a new head on published weights."""


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
    reader = _Reader(copy.deepcopy(backbone).to(at), task.alphabet, layer, how)
    best_epoch = _train(reader, task, how, progress)
    said = {
        part: [reader.read(clip) for clip in tqdm(clips, f"{task.name}: {part}", disable=not progress, leave=False)]
        for part, clips in task.clips.items()
        if part not in (TRAIN, CHOOSE)
    }
    return recognition_result(task, model, said, reader.letters, {**task.facts, "best_epoch": str(best_epoch)})


class _Reader(nn.Module):
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


def _train(reader: _Reader, task: RecognitionTask, config: CtcConfig, progress: bool) -> int:
    """Leaves the reader as it was after its best epoch on 'choose'; returns which that was, from 1."""
    batches = _batches(
        [len(clip.sound()) for clip in task.clips[TRAIN]], config.batch_s * reader.backbone.sample_rate_hz
    )
    generator = torch.Generator().manual_seed(config.seed)
    solver, schedule = _solver(reader, config, len(batches))
    fewest, best_epoch, best = float("inf"), 0, _trained_state(reader)
    device = next(reader.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(config.seed)
        for epoch in tqdm(range(1, config.epochs + 1), f"{task.name}: CTC", disable=not progress, leave=False):
            reader.ctc.train()
            for k in torch.randperm(len(batches), generator=generator).tolist():
                _step(reader, [task.clips[TRAIN][place] for place in batches[k]], solver, config.clip_norm)
                schedule.step()
            wrong = _wrong_letters(reader, task.clips[CHOOSE])
            log.info("%s epoch %d: %.3f wrong letters per letter on 'choose'", task.name, epoch, wrong)
            if wrong < fewest:
                fewest, best_epoch, best = wrong, epoch, _trained_state(reader)
    reader.load_state_dict(best, strict=False)
    return best_epoch


def _solver(reader: _Reader, config: CtcConfig, n_batches: int) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW whose rates rise and fall by step."""
    suits = default_learning_rates(reader.backbone.config.weights, lora=False)
    published = suits[1] < HEAD_LR
    backbone_lr = suits[0] if config.backbone_lr is None else config.backbone_lr
    head_lr = config.head_lr if config.head_lr is not None else HEAD_LR if published else suits[1]
    groups = parameter_groups(reader.backbone, reader.ctc.parameters(), backbone_lr, head_lr, 1.0, config.weight_decay)
    groups = [group for group in groups if group["params"]]
    made = optimizer_with_schedule(groups, config.epochs * n_batches, n_batches, config.warmup_fraction, fused=False)
    return made["optimizer"], made["lr_scheduler"]["scheduler"]


def _step(reader: _Reader, clips: Sequence[Clip], solver: torch.optim.Optimizer, clip_norm: float) -> None:
    audio, audio_mask = _padded(clips, reader.backbone.max_samples, next(reader.parameters()).device)
    logits, frame_mask = reader.logits(audio, audio_mask)
    loss = reader.ctc.score(logits, frame_mask, [clip.text for clip in clips])["loss"]
    solver.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(reader.parameters(), clip_norm)
    solver.step()


def _wrong_letters(reader: _Reader, clips: Sequence[Clip]) -> float:
    counts = np.sum([character_errors(reader.letters(clip.text), reader.read(clip)) for clip in clips], axis=0)
    return float(counts[0] / counts[1])


def _trained_state(reader: _Reader) -> dict[str, Tensor]:
    """Copies of what training changes."""
    trained = {name for name, parameter in reader.named_parameters() if parameter.requires_grad}
    return {name: value.detach().clone() for name, value in reader.state_dict().items() if name in trained}


def _batches(lengths: Sequence[int], batch_samples: float) -> list[list[int]]:
    """Places of clips of similar lengths, as many together as fit when padded."""
    batches: list[list[int]] = []
    for place in np.argsort(lengths, kind="stable")[::-1].tolist():
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and longest * (len(batches[-1]) + 1) <= batch_samples:
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
