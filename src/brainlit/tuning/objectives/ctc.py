"""Spell the words of a window from its last hidden states: connectionist temporal classification."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from brainlit.backbones import FrontEnd, SpeechBackbone
from brainlit.tuning.across_processes import sum_over_processes
from brainlit.tuning.heads import initial_map
from brainlit.tuning.objectives.base import Batch, Objective, check_characters

# --- The letters of a transcript, for CTC ---


APOSTROPHE = "'"


def plain(text: str) -> str:
    """Lower case, composed accents, straight apostrophes, one space between words.

    >>> plain(" She\u2019s  HERE ")
    "she's here"
    """
    composed = unicodedata.normalize("NFC", text).lower().replace("\u2019", APOSTROPHE)
    return " ".join(composed.split())


def inventory_of(texts: Iterable[str]) -> str:
    """The alphabet of texts: a space, then their letters and apostrophe in order.

    Digits and other signs are not in it, for they do not say how they were spoken.

    Raises
    ------
    ValueError
        If the texts have no letters.

    >>> inventory_of(["The cat's mat", "No. 7"])
    " 'acehmnost"
    """
    found = {character for text in texts for character in plain(text) if _is_spoken(character)}
    if not found - {APOSTROPHE}:
        raise ValueError(
            "the words of the training stories have no letters, so there is nothing for CTC to learn; CTC needs stories"
            " with a transcript: give --model.objective.ctc 0, or other stories."
        )
    return " " + "".join(sorted(found))


def _is_spoken(character: str) -> bool:
    """Letters, the marks that go with letters in some scripts, and the apostrophe."""
    return character == APOSTROPHE or unicodedata.category(character)[0] in "LM"


def collapse(path: Iterable[int], blank: int = 0) -> list[int]:
    """What a CTC path spells: repeats count once, blanks not at all.

    >>> collapse([0, 3, 3, 0, 3, 1])
    [3, 3, 1]
    """
    return [label for label, _ in groupby(path) if label != blank]


def frames_needed(labels: Sequence[int]) -> int:
    """Frames that a CTC path for these labels takes at least: one each, and a blank between two of the same.

    >>> frames_needed([3, 3, 1])
    4
    """
    return len(labels) + sum(a == b for a, b in pairwise(labels))


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """Fewest insertions, deletions and substitutions from one to the other (Levenshtein).

    >>> edit_distance([1, 2, 3], [2, 3, 4])
    2
    """
    there = np.asarray(second)
    steps = np.arange(len(there) + 1)
    row = steps
    for k, label in enumerate(first, start=1):
        # An insertion goes one to the right at a cost of one: the best place to come from is a running minimum of cost
        # minus place, so that no loop over the row is needed.
        diagonal = row[:-1] + (there != label)
        above = np.concatenate([[k], np.minimum(diagonal, row[1:] + 1)])
        row = np.minimum.accumulate(above - steps) + steps
    return int(row[-1])


log = logging.getLogger(__name__)

BLANK = 0


class CharacterCtc(Objective):
    """CTC over characters (Graves et al. 2006, doi:10.1145/1143844.1143891), in nats per character.

    Frames of padding are taken out, on whichever side they are. Windows without words do not count; nor do windows
    whose text needs more frames than there are, which are counted and logged. English is spoken at some 15 characters
    a second, so a model of 25 frames per second suffices and one of less would lose fast passages.

    Parameters
    ----------
    characters : str
        The alphabet, beginning with a space (see inventory_of); kept in the state_dict, and a state of another
        alphabet is refused.
    hidden_size : int
        Of the states that are read.
    seed : int
        Of the initial weights.
    """

    code_points: Tensor

    def __init__(self, characters: str, hidden_size: int, seed: int) -> None:
        super().__init__()
        self.characters = check_characters(characters)
        self.linear = initial_map(hidden_size, len(characters) + 1, torch.Generator().manual_seed(seed))
        self.register_buffer("code_points", torch.tensor([ord(character) for character in characters]))
        self.register_load_state_dict_pre_hook(_check_alphabet)  # type: ignore[no-untyped-call]
        self._index = {character: k for k, character in enumerate(characters, start=BLANK + 1)}
        self._named_unknown: set[str] = set()
        self._named_too_long = False

    def forward(
        self, backbone: SpeechBackbone, front: FrontEnd, batch: Batch, step: int, states: Sequence[Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Loss, windows that counted and windows left out; character_error_rate in eval mode (NaN without characters).

        See Objective.forward.
        """
        if states is None:
            states = backbone.trunk(front.features, front.frame_mask)
        with torch.autocast(front.features.device.type, enabled=False):
            logits = self.linear(states[-1].float())
            return self.score(logits, front.frame_mask, batch["text"])

    def score(self, logits: Tensor, frame_mask: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        """Loss from logits (batch, n_frames, 1 + n_characters), blank first."""
        n_frames = frame_mask.sum(1).tolist()
        labels = [self.encode(text) for text in texts]
        needed = [frames_needed(label) for label in labels]
        kept = [k for k, label in enumerate(labels) if label and needed[k] <= n_frames[k]]
        too_long = [k for k in range(len(labels)) if needed[k] > n_frames[k]]
        if too_long and not self._named_too_long:
            k = too_long[0]
            log.warning(
                "a text of %d characters needs %d frames and its window has %d of sound; CTC leaves such windows"
                " out and logs how many as n_too_long",
                len(labels[k]),
                needed[k],
                n_frames[k],
            )
            self._named_too_long = True
        log_probs = compact(logits.log_softmax(-1), frame_mask)[kept]
        chosen = [labels[k] for k in kept]
        n_labels = sum(map(len, chosen))
        counts = torch.tensor([len(kept), len(too_long), n_labels], device=logits.device)
        n_windows, n_too_long, n_labels_of_all = sum_over_processes(counts)
        nats = _nats(log_probs, [n_frames[k] for k in kept], chosen) if kept else logits.sum() * 0
        parts = {
            "loss": sum_over_processes(nats) / n_labels_of_all.clamp(min=1),
            "n_windows": n_windows,
            "n_too_long": n_too_long,
        }
        if not self.training:
            paths = log_probs.detach().argmax(-1).tolist()
            spelt = [collapse(path[: n_frames[k]], BLANK) for path, k in zip(paths, kept, strict=True)]
            wrong = sum(edit_distance(a, b) for a, b in zip(spelt, chosen, strict=True))
            n_wrong = sum_over_processes(torch.tensor(float(wrong), device=logits.device))
            parts["character_error_rate"] = n_wrong / n_labels_of_all
        return parts

    def encode(self, text: str) -> list[int]:
        """Numbers of a text's characters, from 1; characters that the alphabet lacks are dropped and logged once."""
        text = plain(text)
        unknown = set(text) - set(self._index)
        if unknown - self._named_unknown:
            new = sorted(unknown - self._named_unknown)
            log.warning("CTC drops characters that its alphabet %r lacks: %s", self.characters, " ".join(new))
            self._named_unknown |= unknown
        known = " ".join("".join(character for character in text if character in self._index).split())
        return [self._index[character] for character in known]

    def decode(self, labels: Sequence[int]) -> str:
        """The text of some numbers, as encode gives them."""
        return "".join(self.characters[label - 1] for label in labels)


def compact(rows: Tensor, frame_mask: Tensor) -> Tensor:
    """Real frames first, in their order: (batch, n_frames, n) -> (batch, n_frames, n)."""
    order = (~frame_mask).long().argsort(dim=1, stable=True)
    return rows.gather(1, order[:, :, None].expand_as(rows))


def _nats(log_probs: Tensor, n_frames: Sequence[int], labels: Sequence[Sequence[int]]) -> Tensor:
    """Of all clips of (batch, n_frames, n_labels) together."""
    lengths = [len(label) for label in labels]
    return functional.ctc_loss(
        log_probs.transpose(0, 1),
        torch.tensor([label for clip in labels for label in clip], device=log_probs.device),
        torch.tensor(n_frames),
        torch.tensor(lengths),
        blank=BLANK,
        reduction="sum",
        zero_infinity=True,
    )


def _check_alphabet(module: CharacterCtc, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
    """Refuse the state of another alphabet before it is loaded."""
    found = state.get(f"{prefix}code_points")
    if found is not None and found.tolist() != module.code_points.tolist():
        theirs = "".join(map(chr, found.tolist()))
        raise ValueError(
            f"the checkpoint's CTC spells with {theirs!r} and this model with {module.characters!r}; give"
            " --model.objective.characters the checkpoint's alphabet, or the stories that it was trained on."
        )
