"""What a manifest may say: the YAML file that describes a data set, checked key by key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from brainlit.hints import did_you_mean
from brainlit.stories.base import ROLES
from brainlit.stories.transcripts import NOT_WORDS

T = TypeVar("T")


class ManifestError(ValueError):
    """A manifest that says something wrong; the message names file, key, value and cure."""


@dataclass(frozen=True)
class TierSpec:
    """Where words (or phones) are: a file, and the tier if it is a TextGrid with several."""

    file: str
    tier: str | None = None


@dataclass(frozen=True)
class StorySpec:
    """One story: its sound, its words and its clock.

    Parameters
    ----------
    audio : str
        Any format that libsndfile reads, any rate, any number of channels.
    words, phones : TierSpec
        Phones may be missing; then so are the features that need them.
    tr_s : float
        Repetition time in seconds.
    onset_s : float or None
        Where row 0 of the responses starts, in seconds of the audio file (negative if before the sound).
    tr_starts : str or None
        Instead of onset_s, a table with the start of each row, for scanners with an irregular clock.
    repeats : tuple of str
        Names of the presentations where the story was heard several times, for {repeat} in the response files.
    silence_after_s : float
        How long the scanner may run on after the sound has ended; more is taken for a wrong clock.
    """

    audio: str
    words: TierSpec
    tr_s: float
    phones: TierSpec | None = None
    onset_s: float | None = None
    tr_starts: str | None = None
    repeats: tuple[str, ...] = ()
    silence_after_s: float = 0.0


@dataclass(frozen=True)
class ResponseSpec:
    """Where the responses are, and what is done to them.

    Parameters
    ----------
    file : str
        Path with {subject}, {story} and {repeat} in it; one row per volume, one column per voxel or region.
    dataset : str or None
        Name inside an HDF5 file, with the same placeholders.
    columns : tuple of str or None
        Names of the columns; None takes the header of the file, if it has one.
    regions : mapping of name to column names, or None
        Named regions; None makes a region of each named column.
    high_pass_s : float or None
        Drift slower than this many seconds is removed; None where that was done before.
    """

    file: str
    dataset: str | None = None
    columns: tuple[str, ...] | None = None
    regions: Mapping[str, tuple[str, ...]] | None = None
    high_pass_s: float | None = 128.0


@dataclass(frozen=True)
class Manifest:
    """A data set: its stories, its subjects with the stories that each heard, its responses and roles."""

    name: str
    root: Path
    stories: Mapping[str, StorySpec]
    subjects: Mapping[str, tuple[str, ...]]
    responses: ResponseSpec
    roles: Mapping[str, tuple[str, ...]]
    word_vectors: str | None = None
    not_words: frozenset[str] = field(default=NOT_WORDS)


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest; ${oc.env:NAME} and other interpolations are resolved.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ManifestError
        If it is no YAML mapping, or a key is unknown, missing or of the wrong kind.
    """
    if not path.is_file():
        near = sorted(str(other) for other in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        raise FileNotFoundError(f"there is no manifest {path}. {did_you_mean(str(path), near)}")
    keys = _Keys(_loaded(path), f"{path}")
    keys.only(("name", "root", "each_story", "stories", "subjects", "responses", "roles", "word_vectors", "not_words"))
    shared = keys.sub("each_story", required=False)
    shared.only(tuple(StorySpec.__dataclass_fields__))
    stories = {name: _story(name, spec, shared) for name, spec in keys.sub_mappings("stories").items()}
    return Manifest(
        name=keys.get("name", _text),
        root=path.parent / Path(keys.get("root", _text, ".")).expanduser(),
        stories=stories,
        subjects=_subjects(keys, list(stories)),
        responses=_responses(keys.sub("responses")),
        roles=_roles(keys.sub("roles")),
        word_vectors=keys.get("word_vectors", _text, None),
        not_words=keys.get("not_words", lambda value: frozenset(word.lower() for word in _texts(value)), NOT_WORDS),
    )


def _loaded(path: Path) -> Any:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except yaml.YAMLError as error:
        raise ManifestError(f"{path} is not valid YAML: {error}") from error
    except (OmegaConfBaseException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ManifestError(
            f"{path}: {reason}. Set the variable, or give a default: ${{oc.env:NAME,default}}."
        ) from error


def _story(name: str, spec: Mapping[str, Any], shared: _Keys) -> StorySpec:
    keys = _Keys({**shared.values, **spec}, f"{shared.file}: stories.{name}", shared.file)
    keys.only(tuple(StorySpec.__dataclass_fields__))
    story = StorySpec(
        audio=keys.get("audio", _text),
        words=keys.get("words", _tier),
        tr_s=keys.get("tr_s", _number),
        phones=keys.get("phones", _tier, None),
        onset_s=keys.get("onset_s", _number, None),
        tr_starts=keys.get("tr_starts", _text, None),
        repeats=keys.get("repeats", _texts, ()),
        silence_after_s=keys.get("silence_after_s", _number, 0.0),
    )
    if (story.onset_s is None) == (story.tr_starts is None):
        raise ManifestError(
            f"{keys.where}: give onset_s (second of the audio file at which row 0 starts) or tr_starts (a table with"
            " the start of each row), and not both."
        )
    return story


def _subjects(keys: _Keys, stories: list[str]) -> dict[str, tuple[str, ...]]:
    value = keys.get("subjects", lambda value: value)
    if isinstance(value, list):
        return {name: tuple(stories) for name in _texts(value)}
    subjects = {}
    for name, heard in keys.sub("subjects").values.items():
        subjects[str(name)] = tuple(stories) if heard == "all" else _texts(heard)
        for story in subjects[str(name)]:
            if story not in stories:
                raise ManifestError(
                    f"{keys.where}: {name} heard {story!r}: no such story. {did_you_mean(story, stories)}"
                )
    return subjects


def _responses(keys: _Keys) -> ResponseSpec:
    keys.only(tuple(ResponseSpec.__dataclass_fields__))
    return ResponseSpec(
        file=keys.get("file", _text),
        dataset=keys.get("dataset", _text, None),
        columns=keys.get("columns", _texts, None),
        regions=keys.get("regions", lambda value: {str(k): _texts(v) for k, v in _mapping(value).items()}, None),
        high_pass_s=keys.get("high_pass_s", _number, 128.0, null=True),
    )


def _roles(keys: _Keys) -> dict[str, tuple[str, ...]]:
    keys.only(ROLES)
    return {role: keys.get(role, _texts) for role in keys.values}


class _Keys:
    """The keys of one mapping in the manifest; every complaint says where it stands."""

    def __init__(self, values: Any, where: str, file: str | None = None) -> None:
        if not isinstance(values, dict):
            raise ManifestError(f"{where} is {values!r}; need a mapping of keys to values.")
        self.values: dict[str, Any] = {str(key): value for key, value in values.items()}
        self.where = where
        self.file = file or where

    def only(self, known: tuple[str, ...]) -> None:
        for key in self.values:
            if key not in known:
                raise ManifestError(f"{self.where}: unknown key {key!r}. {did_you_mean(key, known)}")

    def get(self, key: str, convert: Callable[[Any], T], default: Any = ..., null: bool = False) -> T:
        value = self.values.get(key)
        if value is None:
            if default is ...:
                raise ManifestError(f"{self.where}: {key!r} is missing.")
            return default if not (null and key in self.values) else None  # type: ignore[return-value]
        try:
            return convert(value)
        except (TypeError, ValueError) as error:
            raise ManifestError(f"{self.where}: {key} is {value!r}; {error}.") from error

    def sub(self, key: str, required: bool = True) -> _Keys:
        if self.values.get(key) is None and required:
            raise ManifestError(f"{self.where}: {key!r} is missing.")
        return _Keys(self.values.get(key) or {}, f"{self.file}: {key}", self.file)

    def sub_mappings(self, key: str) -> dict[str, Mapping[str, Any]]:
        value = self.values.get(key)
        if isinstance(value, list):
            return {str(name): {} for name in value}
        return {
            name: _Keys(spec or {}, f"{self.where}: {key}.{name}").values for name, spec in self.sub(key).values.items()
        }


def _text(value: Any) -> str:
    if isinstance(value, (dict, list)) or not str(value):
        raise TypeError("need one text")
    return str(value)


def _number(value: Any) -> float:
    if isinstance(value, (bool, dict, list)):
        raise TypeError("need a number")
    try:
        return float(value)
    except ValueError as error:
        raise ValueError("need a number") from error


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise TypeError("need a list such as [a, b]")
    return tuple(_text(item) for item in value)


def _mapping(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise TypeError("need a mapping of names to lists of columns")
    return value


def _tier(value: Any) -> TierSpec:
    if not isinstance(value, dict):
        return TierSpec(_text(value))
    keys = _Keys(value, "a tier")
    keys.only(("file", "tier"))
    return TierSpec(keys.get("file", _text), keys.get("tier", _text, None))
