"""What was heard and what the brain did: the shapes in which every data set arrives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from brainlit.stories.response_filter import ResponseFilter
from brainlit.timebase import TimeBase

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

FeatureKind = Literal["low_level", "semantic"]
ROLES = ("tune", "fit", "choose", "score")


@dataclass(frozen=True)
class Intervals:
    """Words or phones with their times.

    Parameters
    ----------
    labels : tuple of str, length n
    start_s, duration_s : arrays of shape (n,)
        Seconds of sound; starts do not decrease, durations are not negative.
    """

    labels: tuple[str, ...]
    start_s: FloatArray
    duration_s: FloatArray

    def __post_init__(self) -> None:
        start_s = np.asarray(self.start_s, dtype=np.float64)
        duration_s = np.asarray(self.duration_s, dtype=np.float64)
        if not len(self.labels) == len(start_s) == len(duration_s):
            raise ValueError(
                f"{len(self.labels)} labels, {len(start_s)} starts and {len(duration_s)} durations; need one of each."
            )
        if len(start_s) and ((np.diff(start_s) < 0).any() or (duration_s < 0).any()):
            raise ValueError("interval starts must not decrease and durations must not be negative.")
        object.__setattr__(self, "start_s", start_s)
        object.__setattr__(self, "duration_s", duration_s)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def middle_s(self) -> FloatArray:
        """Middle of each interval, shape (n,)."""
        return self.start_s + self.duration_s / 2

    @property
    def end_s(self) -> FloatArray:
        """End of each interval, shape (n,)."""
        return self.start_s + self.duration_s


@dataclass(frozen=True)
class SoundNote:
    """What was done to the sound of a story when it was read, or noticed about it; the store keeps it.

    Parameters
    ----------
    kind : str
        As `brainlit data check` has it: 'scaled_sound', 'soft_sound', 'clipped_sound', 'silent_channel',
        'strange_channels' or 'open_length'.
    message, cure : str
        Sentences.
    """

    kind: str
    level: Literal["error", "warning", "info"]
    message: str
    cure: str


@dataclass(frozen=True)
class Story:
    """One story as it was heard, on the scanner's clock.

    Parameters
    ----------
    audio : int16 array of shape (n_samples,)
        Mono, at timebase.sample_rate_hz.
    phones : Intervals or None
        None where the data set has no phone times.
    sound_notes : tuple of SoundNote
        What was done to the sound.
    """

    name: str
    audio: npt.NDArray[np.int16]
    words: Intervals
    phones: Intervals | None
    timebase: TimeBase
    sound_notes: tuple[SoundNote, ...] = ()


@dataclass(frozen=True)
class TimedValues:
    """A feature space at its own rate: frames of sound, or words, phones and what else happens at a moment.

    Parameters
    ----------
    values : float32 array of shape (n_times, n_features)
    times_s : float64 array of shape (n_times,)
        Middles in seconds of sound, increasing; events may coincide.
    duration_s : float or None
        Spacing of frames, for each of which a value stands; None: the values are impulses.

    Raises
    ------
    ValueError
        If shapes do not fit, something is not finite, times decrease (or frames coincide), or duration_s is not
        positive.
    """

    values: Float32Array
    times_s: FloatArray
    duration_s: float | None = None

    def __post_init__(self) -> None:
        values, times_s = np.asarray(self.values, dtype=np.float32), np.asarray(self.times_s, dtype=np.float64)
        if values.ndim != 2 or times_s.shape != values.shape[:1]:
            raise ValueError(
                f"values at their own times have shape {values.shape} and their times {times_s.shape}; need"
                " (n_times, n_features) and (n_times,)."
            )
        if not (np.isfinite(values).all() and np.isfinite(times_s).all()):
            raise ValueError("values at their own times, or the times, hold NaN or infinite values.")
        if self.duration_s is not None and not (np.isfinite(self.duration_s) and self.duration_s > 0):
            raise ValueError(
                f"duration_s is {self.duration_s}; give the seconds between two frames, or None for events."
            )
        steps_s = np.diff(times_s)
        if (steps_s < 0).any() or (self.duration_s is not None and (steps_s == 0).any()):
            k = int(np.argmin(steps_s))
            raise ValueError(
                f"time {k + 1} is {times_s[k + 1]:.4f} s and time {k} {times_s[k]:.4f} s; times must increase (those of"
                " events may be equal). Sort them."
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "times_s", times_s)


@dataclass(frozen=True)
class FeatureSpace:
    """A stimulus feature space on the TR grid: values (n_trs, n_features), float32, not delayed, not z-scored.

    Parameters
    ----------
    kind : 'low_level' or 'semantic'
        The band of the probe that the space belongs to.
    columns : tuple of str, length n_features
    source : str
        Where the numbers come from, in words (formula, file, paper).
    coverage : float
        Share of words for which the space has a value (1 for spaces of the sound).
    timed : TimedValues, optional
        The same columns at their own rate; None where they are known per TR only.
    """

    name: str
    kind: FeatureKind
    columns: tuple[str, ...]
    source: str
    values: Float32Array
    coverage: float = 1.0
    timed: TimedValues | None = None

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float32)
        if values.ndim != 2 or values.shape[1] != len(self.columns):
            raise ValueError(
                f"feature space {self.name!r} has values of shape {values.shape} and {len(self.columns)} column names;"
                " need (n_trs, n_features) with one name each."
            )
        if not np.isfinite(values).all():
            raise ValueError(f"feature space {self.name!r} holds NaN or infinite values.")
        if self.timed is not None and self.timed.values.shape[1] != len(self.columns):
            raise ValueError(
                f"feature space {self.name!r} has {len(self.columns)} columns and {self.timed.values.shape[1]} at its"
                " own rate; they must be the same."
            )
        object.__setattr__(self, "values", values)


@dataclass(frozen=True)
class Responses:
    """One subject's responses to one story.

    Parameters
    ----------
    values : float32 array of shape (n_trs, n_voxels)
        z-scored over time. Where the story was heard several times: the mean of the z-scored presentations, which is
        not z-scored again. Its signal then is as large as that of a single presentation, so that weights fitted on
        one predict the other; only its noise is smaller, and its variance below 1. NaN marks voxels without data.
    repeats : sequence of float32 arrays of shape (n_trs, n_voxels), or None
        The single presentations, each z-scored over time, where the story was heard more than once: an array of shape
        (n_repeats, n_trs, n_voxels), or anything with a length that reads repeat k when asked for it (ten repeats of
        a whole brain do not fit into memory).
    members : tuple of str
        Of a group, whose responses the presentations are, in their order; nobody for a person.

    Raises
    ------
    ValueError
        If there is not one presentation for each member.
    """

    values: Float32Array
    repeats: Sequence[Float32Array] | Float32Array | None = None
    members: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n_repeats = 0 if self.repeats is None else len(self.repeats)
        if self.members and len(self.members) != n_repeats:
            raise ValueError(f"{len(self.members)} members and {n_repeats} presentations; a group has one of each.")


class LazyRepeats(Sequence[Float32Array]):
    """Repeats of a story, each (n_trs, n_voxels), read by `read(k)` when asked for; a slice reads all of its own."""

    def __init__(self, n_repeats: int, read: Callable[[int], Float32Array]) -> None:
        self._indices, self._read = range(n_repeats), read

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._read(k) for k in self._indices[index]]
        return self._read(self._indices[index])


@dataclass(frozen=True)
class Subject:
    """What belongs to a subject's voxels and not to a story.

    Parameters
    ----------
    n_voxels : int
        Voxels, vertices or regions: whatever the columns of the responses are.
    regions : mapping of name to bool array of shape (n_voxels,)
        Named masks; they may overlap.
    vertices : int array of shape (n_voxels,) or None
        Vertex on fsaverage5: 0..10241 left hemisphere, 10242..20483 right.
    coordinates_mm : array of shape (n_voxels, 3) or None
    truth : mapping of name to array whose first axis is voxels
        Planted answers of simulated subjects; empty for real ones.
    """

    name: str
    n_voxels: int
    regions: Mapping[str, BoolArray] = field(default_factory=dict)
    vertices: npt.NDArray[np.int64] | None = None
    coordinates_mm: FloatArray | None = None
    truth: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for region, mask in self.regions.items():
            if mask.shape != (self.n_voxels,) or mask.dtype != np.bool_:
                raise ValueError(
                    f"region {region!r} of {self.name} is {mask.dtype} of shape {mask.shape}; need bool of shape"
                    f" ({self.n_voxels},), one entry per voxel of the responses."
                )


class SourceError(ValueError):
    """Files of a data set that are missing, damaged or do not fit; the message names file, place, cause and cure."""


class SubjectLeftOut(SourceError):
    """A subject of whom nothing can be used; the message is the reason, which every report repeats."""


@dataclass(frozen=True)
class Remote:
    """Where the files that a source asks for are published, for `brainlit data download`.

    Parameters
    ----------
    url : str
        's3://bucket/prefix' for a bucket that anyone may read, or 'https://host/folder'.
    root : Path
        Local folder that mirrors it.
    paths : tuple of str
        Files below url that the asked stories and subjects need, with forward slashes. '*', '?' and '[..]' match
        within one folder (S3 only, where folders can be listed).
    licence : str
        What the publisher allows, in a few words.
    """

    url: str
    root: Path
    paths: tuple[str, ...]
    licence: str


class StorySource(ABC):
    """A data set: stories, subjects and responses, loaded one at a time.

    Cheap to construct (nothing is read or downloaded before a method is called), so that it can sit in a config.
    `settings`, `story_names`, `subject_names`, `story_files`, `subject_files`, `default_roles` and `facts` read no
    story and no response: they are asked each time a store is reopened. Wherever a file is read, FileNotFoundError
    says that it is missing, and SourceError that it is damaged, or does not fit the others or what is published.
    """

    name: str

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that decides what a story or a subject looks like in the store, as plain JSON values.

        Compared when a store is reopened. Which subjects are asked for is no part of it, so that a store can grow;
        neither are folders, so that it can move.
        """

    @abstractmethod
    def story_names(self) -> Sequence[str]:
        """All stories, in the order in which the store lists them."""

    @abstractmethod
    def subject_names(self) -> Sequence[str]:
        """All subjects."""

    @abstractmethod
    def story(self, name: str) -> Story:
        """One story with its audio."""

    @abstractmethod
    def subject(self, name: str) -> Subject:
        """Voxels, regions and places of one subject.

        Raises
        ------
        SubjectLeftOut
            If nothing of the subject can be used; the store is then built without, and says so.
        """

    @abstractmethod
    def responses(self, subject: str, story: str) -> Responses | None:
        """One subject's responses to one story; None if the subject did not hear it."""

    @abstractmethod
    def default_roles(self) -> dict[str, list[str]]:
        """Which stories (or spans, as 'story[start:stop]' in TRs) tune, fit, choose and score by default."""

    def on_other_clocks(self) -> dict[str, str]:
        """Stories that are another one, with the rows of subjects for whom it began at another time: name to name."""
        return {}

    def parts(self) -> dict[str, str]:
        """Stories that are one run of a story that was told over several: name to the name of that story."""
        return {}

    def phones(self, story: str) -> Intervals | None:
        """Phones of one story; override where that is cheaper than reading the whole story."""
        return self.story(story).phones

    def feature_spaces(self, story: Story) -> list[FeatureSpace]:
        """Spaces that only this source can give, besides those of `brainlit.features` (the demo's true meanings)."""
        return []

    def story_files(self, name: str) -> Sequence[Path]:
        """Files that a story is made from; the store remembers their hashes and refuses changed ones."""
        return ()

    def subject_files(self, name: str) -> Sequence[Path]:
        """Files that a subject's part of the store is made from."""
        return ()

    def left_out(self) -> dict[str, str]:
        """Parts that the source is known to lack or refuses, each with its reason; repeated by every report."""
        return {}

    def response_filter(self) -> ResponseFilter | None:
        """What the responses were filtered by over time; None where nobody knows."""
        return None

    def before_sound(self) -> Literal["silence", "mean"]:
        """What responses count as having preceded the sound: silence, which its onset ends, or the story's mean."""
        return "silence"

    def slice_reference(self) -> float:
        """The moment of a volume that its values belong to, as a part of the TR: 0 its start, 1 its end.

        Slices are acquired one after the other; slice timing correction takes all of them to one moment. The middle
        where nothing is known.
        """
        return 0.5

    def facts(self) -> dict[str, str]:
        """What every report says of the data, by key: 'clock', 'licence', 'citation', 'preprocessing', ..."""
        return {}

    def remote(self) -> Remote | None:
        """Where the files can be downloaded; None where they are not published or nothing is read from disk."""
        return None
