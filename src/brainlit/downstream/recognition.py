"""Word and letter error rates of what was written down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from brainlit.downstream.scores import (
    Draws,
    Estimate,
    FloatArray,
    clusters_of,
    estimate,
    interval,
    replicates,
    score_of,
)
from brainlit.downstream.task import TEST, RecognitionTask
from brainlit.hints import did_you_mean
from brainlit.store.atomic import write_json
from brainlit.tuning.objectives.characters import edit_distance

Unit = Literal["words", "characters"]
FORMAT = 1


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

    def error_rate(self, part: str = TEST, unit: Unit = "words", draws: Draws | None = None) -> Estimate:
        """Insertions, deletions and substitutions per word ('words', WER) or letter ('characters', CER) that was said.

        Summed over clips before they are divided; above 1 where more is written than was said.
        """
        return estimate("error_rate", self.sums(part, unit), self.speakers[part], draws)

    def sums(self, part: str = TEST, unit: Unit = "words") -> FloatArray:
        """Errors and units of each clip: (1, n_clips, 2)."""
        if part not in self.said:
            raise ValueError(f"task {self.task!r} has no test part {part!r}. {did_you_mean(part, self.said)}")
        count = word_errors if unit == "words" else character_errors
        pairs = zip(self.said[part], self.read[part], strict=True)
        return np.asarray([[count(said, read) for said, read in pairs]], dtype=np.float64)

    def save(self, path: Path) -> Path:
        """Write it as JSON; `load_recognition_result` reads it."""
        write_json(Path(path), {"format": FORMAT, **asdict(self)})
        return Path(path)


def load_recognition_result(path: Path) -> RecognitionResult:
    """A result from its file.

    Raises
    ------
    ValueError
        If the file is something else.
    """
    record = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(record, dict) or record.pop("format", None) != FORMAT:
        raise ValueError(f"{path} is no recognition result of this version; run the task again.")
    for name in ("clips", "speakers", "said", "read"):
        record[name] = {part: tuple(values) for part, values in record[name].items()}
    return RecognitionResult(**record)


def recognition_result(
    task: RecognitionTask,
    model: str,
    read: Mapping[str, Sequence[str]],
    letters: Callable[[str], str],
    facts: Mapping[str, str],
) -> RecognitionResult:
    """A result with what the task says about the parts that were written down."""
    return RecognitionResult(
        task=task.name,
        model=model,
        clips={part: tuple(clip.name for clip in task.clips[part]) for part in read},
        speakers={part: tuple(clip.speaker for clip in task.clips[part]) for part in read},
        said={part: tuple(letters(clip.text) for clip in task.clips[part]) for part in read},
        read={part: tuple(texts) for part, texts in read.items()},
        facts=dict(facts),
    )


def compare_recognition(
    a: RecognitionResult,
    b: RecognitionResult,
    part: str = TEST,
    unit: Unit = "words",
    draws: Draws | None = None,
) -> Estimate:
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
    how = draws or Draws()
    clusters, drawn = clusters_of(a.speakers[part])
    value = float((score_of("error_rate", sums_b.sum(1)) - score_of("error_rate", sums_a.sum(1)))[0])
    moved = replicates("error_rate", sums_b, clusters, how) - replicates("error_rate", sums_a, clusters, how)
    return Estimate(value, *interval(moved, how), len(clusters), int(clusters.max()) + 1, drawn)


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
