"""What a manifest says, as plain values, and the keys of its YAML file; every complaint names file and place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from brainlit.guard import UnreadableFileError, check_environment, check_interpolations, check_yaml, read_text
from brainlit.hints import did_you_mean
from brainlit.stories.base import SourceError
from brainlit.stories.readers.channels import Channel
from brainlit.stories.readers.tables import float_or_nan
from brainlit.stories.readers.transcripts import NOT_WORDS
from brainlit.stories.regions.config import RegionConfig
from brainlit.stories.response_filter import ResponseFilter
from brainlit.timebase import unlikely_tr

Clock = Literal["audio", "scanner"]

T = TypeVar("T")

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class ManifestError(SourceError):
    """A manifest that says something wrong, or files that do not fit it; the message names file, key and cure."""


@dataclass(frozen=True)
class TierSpec:
    """Where words (or phones) are.

    Parameters
    ----------
    file : str
        TextGrid, CTM, CSV/TSV with onset and duration (or start and end), JSON of an aligner, or subtitles of one word
        each.
    tier : str, tuple of str, or None
        Tier of a TextGrid with several; recording of a CTM file with several. Several are joined in time.
    column : str or None
        Column of a table that holds the text.
    where : mapping of column to texts
        Only rows of a table whose cell in that column is one of the texts.
    clock : 'audio', 'scanner' or None
        Whether its times count from the start of the audio file or from the first volume (row 0 of the response
        file); None: from the first volume in files called *_events.tsv, as BIDS has it, else from the audio.
    """

    file: str
    tier: str | tuple[str, ...] | None = None
    column: str | None = None
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    clock: Clock | None = None

    @property
    def on_scanner_clock(self) -> bool:
        """Whether times count from the first volume."""
        return self.clock == "scanner" or (self.clock is None and self.file.endswith("_events.tsv"))


@dataclass(frozen=True)
class StorySpec:
    """One story: its sound, its words and its clock.

    Parameters
    ----------
    audio : str
        Any format that libsndfile reads, any rate, any number of channels.
    channel : 'left', 'right', number from 0, 'mean' or None
        What is read of several channels; None: the mean, after finding that they belong together.
    words, phones : TierSpec
        Phones may be missing; then so are the features that need them.
    tr_s : float or None
        Repetition time in seconds; None takes what the JSON beside an image says, or else its header.
    onset_s : float or None
        Where row 0 of the response file starts, in seconds of the audio file (negative if before the sound).
    tr_starts : str or None
        Instead of onset_s, a table with the start of each row of the response file, for an irregular clock. Its name,
        and those of words and phones, may hold {subject}.
    volumes_discarded : int
        Rows at the start of the response file that are not used; the clock moves with them.
    n_trs : int or None
        Rows that are used after those; longer files are cut. None uses all, and all files must be alike.
    repeats : tuple of str or 'all'
        Names of the presentations where the story was heard several times: for {repeat} in the response files, or
        runs and sessions of fMRIPrep (run-1, ses-2); 'all' takes every run that fMRIPrep has of it.
    silence_after_s : float
        How long the scanner may run on after the sound has ended; more is taken for a wrong clock.
    sound_start_s, sound_end_s : float, float or None
        Stretch of the audio file that was played; None: to its end. The clock (onset_s, tr_starts) counts from where
        that stretch begins; the times of transcripts count from the start of the file.
    """

    audio: str
    words: TierSpec
    channel: Channel | None = None
    tr_s: float | None = None
    phones: TierSpec | None = None
    onset_s: float | None = None
    tr_starts: str | None = None
    volumes_discarded: int = 0
    n_trs: int | None = None
    repeats: tuple[str, ...] | Literal["all"] = ()
    silence_after_s: float = 0.0
    sound_start_s: float = 0.0
    sound_end_s: float | None = None

    @property
    def is_whole_sound(self) -> bool:
        """Whether the audio file was played from its start to its end."""
        return self.sound_start_s == 0 and self.sound_end_s is None


@dataclass(frozen=True)
class Confounds:
    """Columns of a confounds table (names may hold *); the file is None where fMRIPrep's is found by its name."""

    columns: tuple[str, ...]
    file: str | None = None


@dataclass(frozen=True)
class ResponseSpec:
    """Where the responses are, and what is done to them.

    Parameters
    ----------
    file : str or None
        Path with {subject}, {story}, {repeat} and, for pairs of GIFTI files, {hemi} (L, R).
    fmriprep : str or None
        Instead of `file`, the folder of fMRIPrep's derivatives.
    task, space, desc : str
        fMRIPrep: name of the task, the output space as fMRIPrep takes it ('fsaverage5', 'fsLR:den-91k'), and what was
        done to the runs as their names have it ('denoised' of XCP-D). `space` may also be given for files:
        'fsaverage5' places their columns on the surface.
    dataset : str or None
        Name inside an HDF5, .npz or .mat file, with the same placeholders as `file`.
    transposed : bool
        The tables have a column per volume, and a row per voxel.
    mask : str or None
        NIfTI mask whose voxels are the columns. None with fMRIPrep: the voxels in all brain masks of a subject.
    columns : tuple of str or None
        Names of the columns; None takes the header of the file, if it has one.
    regions : mapping of name to column names, or None
        Named regions; None makes a region of each named column.
    region_files : RegionConfig or None
        Named regions from files.
    preprocessed : bool
        The values are clean: nothing is taken out, each column is only z-scored.
    high_pass_s, low_pass_s : float or None
        Slower than the first and faster than the second is taken out (seconds).
    confounds : Confounds or None
        What is regressed out together with them.
    response_filter : ResponseFilter or None
        What the responses passed in all, before and here; None takes what is taken out here, if anything is.
    slice_reference : float or None
        Part of the TR that the values of a volume belong to; None takes what the JSON of an fMRIPrep run says, or the
        middle.
    """

    file: str | None = None
    fmriprep: str | None = None
    task: str = "{story}"
    space: str | None = None
    desc: str = "preproc"
    dataset: str | None = None
    transposed: bool = False
    mask: str | None = None
    columns: tuple[str, ...] | None = None
    regions: Mapping[str, tuple[str, ...]] | None = None
    region_files: RegionConfig | None = None
    preprocessed: bool = False
    high_pass_s: float | None = 128.0
    low_pass_s: float | None = None
    confounds: Confounds | None = None
    response_filter: ResponseFilter | None = None
    slice_reference: float | None = None


@dataclass(frozen=True)
class Manifest:
    """A data set: its stories, its subjects with the stories that each heard, its responses and roles.

    Parameters
    ----------
    subjects : mapping of name to names of stories, or None
        None where those that fMRIPrep has are taken.
    on_other_clocks : mapping of story to story
        Stories that are another one for subjects whose rows began at other times: 'frog.ben' is 'frog' of ben.
    parts : mapping of story to (story, part)
        Stories that are one run of a story told over several: 'sloth.run-2' is ('sloth', 'run-2').
    """

    name: str
    root: Path
    stories: Mapping[str, StorySpec]
    subjects: Mapping[str, tuple[str, ...]] | None
    responses: ResponseSpec
    roles: Mapping[str, tuple[str, ...]]
    not_words: frozenset[str] = field(default=NOT_WORDS)
    licence: str | None = None
    citation: str | None = None
    on_other_clocks: Mapping[str, str] = field(default_factory=dict, metadata={"is_no_key": True})
    parts: Mapping[str, tuple[str, str]] = field(default_factory=dict, metadata={"is_no_key": True})

    def told(self, story: str) -> dict[str, str]:
        """What {story} and {part} stand for: the name that a story has for all subjects, and which run of it it is."""
        name, part = self.parts.get(self.on_other_clocks.get(story, story), (None, ""))
        return {"story": name or self.on_other_clocks.get(story, story), "part": part}

    def settings(self) -> dict[str, Any]:
        """What decides how stories and responses look, as plain JSON: no folders, and not who is asked for."""
        said = asdict(self)
        for key in ("root", "subjects", "licence", "citation"):
            del said[key]
        said["not_words"] = sorted(self.not_words)
        if self.responses.fmriprep is not None:
            said["responses"]["fmriprep"] = Path(self.responses.fmriprep).name
        return _plain(said)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


# --- Values of a YAML mapping, taken key by key ---


def load_yaml(path: Path) -> Any:
    """Content of a YAML file with ${oc.env:NAME} and other interpolations resolved.

    What YAML would write otherwise (010, 1e3, 1:20, no) stays the text of the file: it may be a name. Somebody may have
    sent the file: what would take a parser forever, or a variable of the environment into a record, is refused.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf._yaml import get_yaml_loader
    from omegaconf.errors import OmegaConfBaseException

    class AsWritten(get_yaml_loader()):  # type: ignore[misc]
        pass

    def as_written(loader: Any, node: Any) -> Any:
        value, written = yaml.SafeLoader.yaml_constructors[node.tag](loader, node), node.value
        return value if written in (str(value), str(value).lower()) else written

    for kind in ("int", "float", "bool"):
        AsWritten.add_constructor(f"tag:yaml.org,2002:{kind}", as_written)
    what, cure = "a valid YAML mapping", "Look at the line that is named."
    try:
        text = read_text(path, what, cure)
        check_yaml(text, path, what, cure)
        content = yaml.load(text, AsWritten)
        if isinstance(content, Mapping):
            check_environment(content, f"{path}")
            check_interpolations(content, f"{path}")
        return OmegaConf.to_container(OmegaConf.create({} if content is None else content), resolve=True)
    except UnreadableFileError as error:
        raise ManifestError(str(error)) from error
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        cure = "Set the variable, or give a default: ${oc.env:NAME,default}."
        raise ManifestError(f"{path}: {reason}. {cure if 'environment' in reason.lower() else ''}".strip()) from error
    except (yaml.YAMLError, UnicodeError, ValueError, TypeError, OSError, ArithmeticError, RecursionError) as error:
        raise ManifestError(f"{path} is not a valid YAML mapping: {error or type(error).__name__}") from error


class Keys:
    """The keys of one mapping of the manifest.

    Parameters
    ----------
    values : Any
        What stands there; refused if it is no mapping.
    where : str
        File and place, for messages.
    """

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, Mapping):
            raise ManifestError(f"{where} is {values!r}; need a mapping of keys to values.")
        for key in values:
            if key is None or isinstance(key, bool):
                raise ManifestError(f"{where}: the key {key!r} is no text in YAML; put it in quotes.")
        self.values: dict[str, Any] = {str(key): value for key, value in values.items()}
        self.where = where

    def only(self, known: Iterable[str]) -> None:
        """Refuse every key that is not known, with the nearest that is."""
        for key in self.values:
            if key not in known:
                raise ManifestError(f"{self.where}: unknown key {key!r}. {did_you_mean(key, known)}")

    def get(self, key: str, convert: Callable[[Any], T], default: Any = ...) -> T:
        """The converted value; the default (none: it is required) where the key is missing or null."""
        value = self.values.get(key)
        if value is None:
            if default is ...:
                raise ManifestError(f"{self.where}: {key!r} is missing.")
            return default  # type: ignore[no-any-return]
        try:
            return convert(value)
        except ManifestError:
            raise
        except (TypeError, ValueError) as error:
            raise ManifestError(f"{self.where}: {key} is {value!r}; {error}.") from error

    def sub(self, key: str) -> Keys:
        """The mapping below a key; empty where the key is missing or null."""
        value = self.values.get(key)
        return Keys({} if value is None else value, f"{self.where}: {key}")


def text(value: Any) -> str:
    """One text that is not empty; numbers count as their digits."""
    if value is None or isinstance(value, bool):
        raise TypeError(f"{value!r} is no text in YAML; put it in quotes if it is a name")
    if isinstance(value, (Mapping, list)) or not str(value).strip():
        raise TypeError("need one text")
    return str(value)


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts, none of them twice."""
    if not isinstance(value, list) or not value:
        raise TypeError("need a list such as [a, b]")
    items = tuple(text(item) for item in value)
    doubled = [item for item in items if items.count(item) > 1]
    if doubled:
        raise ValueError(f"{doubled[0]!r} stands there twice")
    return items


def pattern(*names: str) -> Callable[[Any], str]:
    """Converter of a path whose {placeholders} are among the names."""

    def checked(value: Any) -> str:
        for name in _PLACEHOLDER.findall(text(value)):
            if name not in names:
                known = ", ".join(f"{{{known}}}" for known in names) or "none here"
                raise ValueError(f"{{{name}}} is no placeholder; known: {known}")
        return text(value)

    return checked


def filled(template: str, **names: str) -> str:
    """A checked pattern with its placeholders filled in.

    >>> filled("{subject}/{story}.npy", subject="anna", story="frog")
    'anna/frog.npy'
    """
    return _PLACEHOLDER.sub(lambda match: names[match[1]], template)


def placeholders(template: str) -> set[str]:
    """Names of the placeholders of a pattern."""
    return set(_PLACEHOLDER.findall(template))


def number(value: Any) -> float:
    """A finite number."""
    result = float("nan") if isinstance(value, bool) else float_or_nan(value)
    if not np.isfinite(result):
        raise ValueError("need a number")
    return result


def seconds(value: Any) -> float:
    """A positive number of seconds."""
    if number(value) <= 0:
        raise ValueError("need a positive number of seconds")
    return number(value)


def repetition_time(value: Any) -> float:
    """Seconds from volume to volume, as scanners have them."""
    question = unlikely_tr(seconds(value))
    if question is not None:
        raise ValueError(f"need seconds: {question}")
    return seconds(value)


def part(value: Any) -> float:
    """A number from 0 to 1."""
    if not 0 <= number(value) <= 1:
        raise ValueError("need a part, 0 to 1")
    return number(value)


def whole(value: Any) -> int:
    """A whole number, zero or more."""
    if number(value) < 0 or number(value) != int(number(value)):
        raise ValueError("need a whole number, zero or more")
    return int(number(value))


def channel(value: Any) -> Channel:
    """left, right, mean, or a number from 0."""
    if value in ("left", "right", "mean"):
        return value  # type: ignore[no-any-return]
    try:
        return whole(value)
    except ValueError as error:
        raise ValueError("need left, right, a number (0 is the first) or mean") from error


def flag(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise TypeError("need true or false")
    return value
