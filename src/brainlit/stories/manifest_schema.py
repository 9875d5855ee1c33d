"""What a manifest may say: the YAML file that describes a data set, checked key by key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from brainlit.hints import did_you_mean
from brainlit.stories.base import ROLES
from brainlit.stories.manifest_keys import (
    Keys,
    ManifestError,
    flag,
    load_yaml,
    number,
    pattern,
    placeholders,
    seconds,
    text,
    texts,
    whole,
)
from brainlit.stories.regions import RegionConfig
from brainlit.stories.text_files import require_file
from brainlit.stories.transcripts import NOT_WORDS

__all__ = ["Confounds", "Manifest", "ManifestError", "ResponseSpec", "StorySpec", "TierSpec", "read_manifest"]

Clock = Literal["audio", "scanner"]

_RUN = ("subject", "story", "repeat")
_SPAN = re.compile(r"([^\[\]]+)(\[\d*:\d*\])?")
_MOVED = "features are chosen in the experiment now: data.features.vectors: <file> (docs/features.md)"


@dataclass(frozen=True)
class TierSpec:
    """Where words (or phones) are.

    Parameters
    ----------
    file : str
        TextGrid, CTM, or CSV/TSV with onset and duration.
    tier : str or None
        Tier of a TextGrid with several; recording of a CTM file with several.
    column : str or None
        Column of a table that holds the text.
    where : mapping of column to texts
        Only rows of a table whose cell in that column is one of the texts.
    clock : 'audio', 'scanner' or None
        Whether its times count from the start of the audio file or from the first volume (row 0 of the response
        file); None: from the first volume in files called *_events.tsv, as BIDS has it, else from the audio.
    """

    file: str
    tier: str | None = None
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
    words, phones : TierSpec
        Phones may be missing; then so are the features that need them.
    tr_s : float or None
        Repetition time in seconds; None takes what NIfTI, CIFTI or the JSON beside an fMRIPrep run says.
    onset_s : float or None
        Where row 0 of the response file starts, in seconds of the audio file (negative if before the sound).
    tr_starts : str or None
        Instead of onset_s, a table with the start of each row of the response file, for an irregular clock.
    volumes_discarded : int
        Rows at the start of the response file that are not used; the clock moves with them.
    n_trs : int or None
        Rows that are used after those; longer files are cut. None uses all, and all files must be alike.
    repeats : tuple of str or 'all'
        Names of the presentations where the story was heard several times: for {repeat} in the response files, or
        runs and sessions of fMRIPrep (run-1, ses-2); 'all' takes every run that fMRIPrep has of it.
    silence_after_s : float
        How long the scanner may run on after the sound has ended; more is taken for a wrong clock.
    """

    audio: str
    words: TierSpec
    tr_s: float | None = None
    phones: TierSpec | None = None
    onset_s: float | None = None
    tr_starts: str | None = None
    volumes_discarded: int = 0
    n_trs: int | None = None
    repeats: tuple[str, ...] | Literal["all"] = ()
    silence_after_s: float = 0.0


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
    task, space : str
        fMRIPrep: name of the task, and the output space as fMRIPrep takes it ('fsaverage5', 'fsLR:den-91k'). `space`
        may also be given for files: 'fsaverage5' places their columns on the surface.
    dataset : str or None
        Name inside an HDF5 file, with the same placeholders as `file`.
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
    """

    file: str | None = None
    fmriprep: str | None = None
    task: str = "{story}"
    space: str | None = None
    dataset: str | None = None
    mask: str | None = None
    columns: tuple[str, ...] | None = None
    regions: Mapping[str, tuple[str, ...]] | None = None
    region_files: RegionConfig | None = None
    preprocessed: bool = False
    high_pass_s: float | None = 128.0
    low_pass_s: float | None = None
    confounds: Confounds | None = None


@dataclass(frozen=True)
class Manifest:
    """A data set: its stories, its subjects with the stories that each heard, its responses and roles.

    Subjects are None where those that fMRIPrep has are taken.
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

    def settings(self) -> dict[str, Any]:
        """What decides how stories and responses look, as plain JSON: no folders, and not who is asked for."""
        said = asdict(self)
        for key in ("root", "subjects", "licence", "citation"):
            del said[key]
        said["not_words"] = sorted(self.not_words)
        if self.responses.fmriprep is not None:
            said["responses"]["fmriprep"] = Path(self.responses.fmriprep).name
        return _plain(said)  # type: ignore[no-any-return]


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest; ${oc.env:NAME} and other interpolations are resolved.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ManifestError
        If it is no YAML mapping, or a key is unknown, missing or of the wrong kind.
    """
    near = sorted(str(other) for other in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    require_file(path, f"It should be a manifest. {did_you_mean(str(path), near)}")
    keys = Keys(load_yaml(path), f"{path}")
    if "word_vectors" in keys.values:
        raise ManifestError(f"{path}: word_vectors is no key of a manifest any more: {_MOVED}.")
    keys.only({"each_story", *(one.name for one in fields(Manifest))})
    responses = _responses(keys)
    stories = _stories(keys, responses)
    return Manifest(
        name=keys.get("name", text),
        root=path.parent / keys.get("root", _folder, Path()),
        stories=stories,
        subjects=_subjects(keys, list(stories), optional=responses.fmriprep is not None),
        responses=responses,
        roles=_roles(keys, stories),
        not_words=keys.get("not_words", lambda value: frozenset(word.lower() for word in texts(value)), NOT_WORDS),
        licence=keys.get("licence", text, None),
        citation=keys.get("citation", text, None),
    )


def _stories(keys: Keys, responses: ResponseSpec) -> dict[str, StorySpec]:
    shared = keys.sub("each_story")
    shared.only(_names(StorySpec))
    value = keys.get("stories", lambda value: value)
    own = {name: {} for name in texts_at(keys, "stories")} if isinstance(value, list) else keys.sub("stories").values
    if not own:
        raise ManifestError(f"{keys.where}: stories is {value!r}; need at least one.")
    stories = {}
    for name, said in own.items():
        own_keys = Keys({} if said is None else said, f"{keys.where}: stories.{name}")
        own_keys.only(_names(StorySpec))
        stories[name] = _story(Keys({**shared.values, **own_keys.values}, own_keys.where), responses)
    return stories


def _story(keys: Keys, responses: ResponseSpec) -> StorySpec:
    story = StorySpec(
        audio=keys.get("audio", pattern("story")),
        words=_tier(keys, "words"),
        tr_s=keys.get("tr_s", seconds, None),
        phones=_tier(keys, "phones") if keys.values.get("phones") is not None else None,
        onset_s=keys.get("onset_s", number, None),
        tr_starts=keys.get("tr_starts", pattern("story"), None),
        volumes_discarded=keys.get("volumes_discarded", whole, 0),
        n_trs=keys.get("n_trs", whole, None),
        repeats="all" if keys.values.get("repeats") == "all" else keys.get("repeats", texts, ()),
        silence_after_s=keys.get("silence_after_s", number, 0.0),
    )
    if (story.onset_s is None) == (story.tr_starts is None):
        raise ManifestError(
            f"{keys.where}: give onset_s (second of the audio file at which row 0 starts) or tr_starts (a table with"
            " the start of each row), and not both."
        )
    _require_it_fits(keys, story, responses)
    return story


def _require_it_fits(keys: Keys, story: StorySpec, responses: ResponseSpec) -> None:
    """What a story may leave to the response files depends on what they are."""
    if story.tr_s is None and responses.file is not None and not responses.file.lower().endswith((".nii", ".nii.gz")):
        raise ManifestError(f"{keys.where}: 'tr_s' is missing; files such as {responses.file!r} do not say it.")
    if story.n_trs == 0:
        raise ManifestError(f"{keys.where}: n_trs is 0; need at least one row, or leave it out.")
    if responses.file is None:
        return
    if story.repeats == "all":
        raise ManifestError(f"{keys.where}: repeats is 'all'; name them: [first, second], for {{repeat}} in the files.")
    if len(story.repeats) > 1 and "repeat" not in placeholders(f"{responses.file}{responses.dataset or ''}"):
        raise ManifestError(f"{keys.where}: repeats has no place in responses.file ({responses.file}): put in {{repeat}}.")


def _tier(keys: Keys, key: str) -> TierSpec:
    value = keys.get(key, lambda value: value)
    if not isinstance(value, Mapping):
        return TierSpec(keys.get(key, pattern("story")))
    tier = keys.sub(key)
    tier.only(_names(TierSpec))
    where = tier.sub("where")
    return TierSpec(
        file=tier.get("file", pattern("story")),
        tier=tier.get("tier", pattern("story"), None),
        column=tier.get("column", text, None),
        where={name: _one_or_more(where, name) for name in where.values},
        clock=tier.get("clock", _clock, None),
    )


def _subjects(keys: Keys, stories: list[str], optional: bool) -> dict[str, tuple[str, ...]] | None:
    value = keys.get("subjects", lambda value: value, None if optional else ...)
    if value is None:
        return None
    if isinstance(value, list):
        return {name: tuple(stories) for name in texts_at(keys, "subjects")}
    heard = keys.sub("subjects")
    subjects = {}
    for name, said in heard.values.items():
        subjects[name] = tuple(stories) if said == "all" else heard.get(name, texts)
        for story in subjects[name]:
            if story not in stories:
                raise ManifestError(f"{heard.where}: {name} heard {story!r}: no such story. {did_you_mean(story, stories)}")
    if not subjects:
        raise ManifestError(f"{keys.where}: subjects is {value!r}; need at least one.")
    return subjects


def _responses(keys: Keys) -> ResponseSpec:
    keys.get("responses", lambda value: value)
    keys = keys.sub("responses")
    keys.only({*_names(ResponseSpec), "zscore"})
    preprocessed = keys.get("preprocessed", flag, False)
    spec = ResponseSpec(
        file=keys.get("file", pattern(*_RUN, "hemi"), None),
        fmriprep=keys.get("fmriprep", text, None),
        task=keys.get("task", pattern("story"), "{story}"),
        space=keys.get("space", text, None),
        dataset=keys.get("dataset", pattern(*_RUN), None),
        mask=keys.get("mask", pattern(*_RUN), None),
        columns=keys.get("columns", texts, None),
        regions=_groups(keys.sub("regions")) or None,
        region_files=_region_config(keys.sub("region_files")),
        preprocessed=preprocessed,
        high_pass_s=None if preprocessed or keys.values.get("high_pass_s", 0) is None
        else keys.get("high_pass_s", seconds, 128.0),
        low_pass_s=keys.get("low_pass_s", seconds, None),
        confounds=_confounds(keys),
    )  # fmt: skip
    _require_one_kind(keys, spec)
    return spec


def _require_one_kind(keys: Keys, spec: ResponseSpec) -> None:
    """Refuse what contradicts itself."""
    if (spec.file is None) == (spec.fmriprep is None):
        raise ManifestError(f"{keys.where}: give file (a path with {{subject}}) or fmriprep (a folder), and not both.")
    if spec.fmriprep is not None and spec.space is None:
        raise ManifestError(f"{keys.where}: 'space' is missing; name one of fMRIPrep's output spaces.")
    if not keys.get("zscore", flag, True):
        raise ManifestError(f"{keys.where}: zscore is false, but columns are always z-scored: losses and fits need it.")
    given = [key for key in ("high_pass_s", "low_pass_s", "confounds") if keys.values.get(key) is not None]
    if spec.preprocessed and given:
        raise ManifestError(f"{keys.where}: {given[0]} is given, but nothing is taken out of preprocessed data.")
    if spec.low_pass_s is not None and spec.high_pass_s is not None and spec.low_pass_s >= spec.high_pass_s:
        raise ManifestError(
            f"{keys.where}: low_pass_s ({spec.low_pass_s}) is not below high_pass_s ({spec.high_pass_s}): nothing remains."
        )
    if spec.confounds is not None and spec.file is not None and spec.confounds.file is None:
        raise ManifestError(f"{keys.where}: confounds needs {{file: a table, columns: [..]}}; fmriprep alone finds it.")


def _confounds(keys: Keys) -> Confounds | None:
    value = keys.values.get("confounds")
    if value is None:
        return None
    if isinstance(value, list):
        return Confounds(keys.get("confounds", texts))
    sub = keys.sub("confounds")
    sub.only(_names(Confounds))
    return Confounds(sub.get("columns", texts), sub.get("file", pattern(*_RUN), None))


def _region_config(keys: Keys) -> RegionConfig | None:
    if not keys.values:
        return None
    keys.only(_names(RegionConfig))
    kinds = {one.name: flag if isinstance(one.default, bool) else text for one in fields(RegionConfig)}
    said = {name: keys.get(name, kinds[name]) for name in keys.values if keys.values[name] is not None}
    try:
        return RegionConfig(**said)  # type: ignore[arg-type]
    except ValueError as error:
        raise ManifestError(f"{keys.where}: {error}") from error


def _roles(keys: Keys, stories: Mapping[str, StorySpec]) -> dict[str, tuple[str, ...]]:
    keys.get("roles", lambda value: value)
    keys = keys.sub("roles")
    keys.only(ROLES)
    roles = {role: keys.get(role, texts) for role in keys.values}
    for role, spans in roles.items():
        for span in spans:
            match = _SPAN.fullmatch(span.strip())
            if match is None or match[1] not in stories:
                known = did_you_mean(span.partition("[")[0], stories)
                raise ManifestError(f"{keys.where}: {role} is no story or stretch of one (name[0:100]): {span!r}. {known}")
    return roles


def _groups(keys: Keys) -> dict[str, tuple[str, ...]]:
    return {name: keys.get(name, texts) for name in keys.values}


def _one_or_more(keys: Keys, key: str) -> tuple[str, ...]:
    return keys.get(key, texts if isinstance(keys.values[key], list) else lambda value: (text(value),))


def texts_at(keys: Keys, key: str) -> tuple[str, ...]:
    """A list of texts that must be there."""
    return keys.get(key, texts)


def _clock(value: Any) -> Clock:
    if value == "audio":
        return "audio"
    if value == "scanner":
        return "scanner"
    raise ValueError("need audio or scanner")


def _folder(value: Any) -> Path:
    try:
        return Path(text(value)).expanduser()
    except RuntimeError as error:
        raise ValueError("that home folder is not known") from error


def _names(spec: type) -> list[str]:
    return [one.name for one in fields(spec)]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
