"""Reads a manifest and checks it key by key; what it says is in `manifest_schema`."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.hints import did_you_mean
from brainlit.stories.base import ROLES, Float32Array, FloatArray, SubjectLeftOut
from brainlit.stories.manifest.schema import (
    Clock,
    Confounds,
    Keys,
    Manifest,
    ManifestError,
    ResponseSpec,
    StorySpec,
    TierSpec,
    filled,
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
from brainlit.stories.readers.cleaning import CleaningError, clean_series, read_confounds
from brainlit.stories.readers.runs import Run, RunFinder
from brainlit.stories.readers.tables import Table, read_table, require_file
from brainlit.stories.readers.transcripts import NOT_WORDS
from brainlit.stories.regions.config import RegionConfig
from brainlit.timebase import TimeBase

_RUN = ("subject", "story", "repeat")
_SPAN = re.compile(r"([^\[\]]+)(\[\d*:\d*\])?")
_MOVED = "features are chosen in the experiment now: data.features.vectors: <file>"


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
    own = {name: {} for name in keys.get("stories", texts)} if isinstance(value, list) else keys.sub("stories").values
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
        raise ManifestError(
            f"{keys.where}: repeats has no place in responses.file ({responses.file}): put in {{repeat}}."
        )


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
        return {name: tuple(stories) for name in keys.get("subjects", texts)}
    heard = keys.sub("subjects")
    subjects = {}
    for name, said in heard.values.items():
        subjects[name] = tuple(stories) if said == "all" else heard.get(name, texts)
        for story in subjects[name]:
            if story not in stories:
                raise ManifestError(
                    f"{heard.where}: {name} heard {story!r}: no such story. {did_you_mean(story, stories)}"
                )
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
    only_for = {"dataset": "file", "task": "fmriprep"}
    misplaced = [key for key, other in only_for.items() if key in keys.values and getattr(spec, other) is None]
    if misplaced:
        raise ManifestError(f"{keys.where}: {misplaced[0]} goes with {only_for[misplaced[0]]}, which is not given.")
    if not keys.get("zscore", flag, True):
        raise ManifestError(f"{keys.where}: zscore is false, but columns are always z-scored: losses and fits need it.")
    given = [key for key in ("high_pass_s", "low_pass_s", "confounds") if keys.values.get(key) is not None]
    if spec.preprocessed and given:
        raise ManifestError(f"{keys.where}: {given[0]} is given, but nothing is taken out of preprocessed data.")
    if spec.low_pass_s is not None and spec.high_pass_s is not None and spec.low_pass_s >= spec.high_pass_s:
        raise ManifestError(
            f"{keys.where}: low_pass_s ({spec.low_pass_s}) is not below high_pass_s ({spec.high_pass_s}), so that"
            " nothing remains."
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
                raise ManifestError(
                    f"{keys.where}: {role} is no story or stretch of one (name[0:100]): {span!r}. {known}"
                )
    return roles


def _groups(keys: Keys) -> dict[str, tuple[str, ...]]:
    return {name: keys.get(name, texts) for name in keys.values}


def _one_or_more(keys: Keys, key: str) -> tuple[str, ...]:
    return keys.get(key, texts if isinstance(keys.values[key], list) else lambda value: (text(value),))


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


# --- clock
# When the rows of the responses to each story of a manifest happened, in seconds of its sound.


class Clocks:
    """The clock of every story.

    Parameters
    ----------
    finder : RunFinder
        Asked for the first run of a story, where the manifest leaves TR or number of rows to the files.
    where : Path
        The manifest's file, for messages.
    """

    def __init__(self, manifest: Manifest, finder: RunFinder, where: Path) -> None:
        self.manifest, self.finder, self.where = manifest, finder, where
        self._n_trs_of: dict[str, int] = {}

    def first_volume_s(self, story: str) -> float:
        """When row 0 of the response file starts, in seconds of the audio file."""
        spec = self.manifest.stories[story]
        return float(self._tr_starts(spec.tr_starts, story)[0]) if spec.tr_starts else float(spec.onset_s or 0.0)

    def _tr_starts(self, pattern: str, story: str) -> npt.NDArray[Any]:
        return read_table(self._path(pattern, story)).values[:, 0]

    def timebase(self, story: str) -> TimeBase:
        """When each row that is used happened.

        Raises
        ------
        ManifestError
            If the rows do not suffice, or the table of row starts is no clock.
        """
        spec, n_trs, tr_s = self.manifest.stories[story], self.n_trs(story), self.tr_s(story)
        first = spec.volumes_discarded
        try:
            if spec.tr_starts is None:
                return TimeBase.regular(n_trs, tr_s, float(spec.onset_s or 0.0) + first * tr_s)
            return TimeBase(self._tr_starts(spec.tr_starts, story)[first : first + n_trs], tr_s)
        except ValueError as error:
            file = f"{self.where}: stories.{story}" if spec.tr_starts is None else self._path(spec.tr_starts, story)
            raise ManifestError(f"{file}: {error}") from error

    def n_trs(self, story: str) -> int:
        """Rows that are used: as the manifest says, as the table of row starts has, or as the first run has."""
        if story not in self._n_trs_of:
            spec, run = self.manifest.stories[story], self.finder.first_run(story)
            n_rows = run.n_rows() if spec.tr_starts is None else len(self._tr_starts(spec.tr_starts, story))
            left = n_rows - spec.volumes_discarded
            if left < (spec.n_trs or 1):
                file = run.files[0] if spec.tr_starts is None else self._path(spec.tr_starts, story)
                raise ManifestError(
                    f"{self.where}: {file} has {n_rows} rows; with volumes_discarded {spec.volumes_discarded} there are"
                    f" not {spec.n_trs or 1} left for {story!r}. Check volumes_discarded and n_trs."
                )
            self._n_trs_of[story] = spec.n_trs or left
        return self._n_trs_of[story]

    def tr_s(self, story: str) -> float:
        """Repetition time as the manifest says it, or else the first run."""
        tr_s = self.manifest.stories[story].tr_s
        if tr_s is None:
            run = self.finder.first_run(story)
            tr_s = run.tr_s()
            if tr_s is None:
                raise ManifestError(f"{self.where}: stories.{story}: 'tr_s' is missing, and {run.files[0]} says none.")
        return tr_s

    def _path(self, pattern: str, story: str) -> Path:
        return self.manifest.root / filled(pattern, story=story)


# --- responses
# Responses to the stories of a manifest: read from their files, put on the clock, cleaned, one run at a time.


log = logging.getLogger(__name__)

_SAME_TR = 0.01


class ResponseReader:
    """Reads and cleans single runs.

    Parameters
    ----------
    where : Path
        The manifest's file, for messages.
    """

    def __init__(self, manifest: Manifest, finder: RunFinder, clocks: Clocks, where: Path) -> None:
        self.manifest, self.finder, self.clocks, self.where = manifest, finder, clocks, where
        self._n_columns_of: dict[str, tuple[int, Path]] = {}

    def first_usable(self, subject: str) -> tuple[Run, Table]:
        """The first run of a subject and its values, if any story has a usable column.

        Raises
        ------
        SubjectLeftOut
            If none has.
        """
        first: tuple[Run, Table] | None = None
        for story in self.finder.heard(subject):
            run = self.finder.runs(subject, story)[0]
            table = self._read(subject, run)
            first = first or (run, table)
            if np.isfinite(self._clean(story, run, table)).any():
                return first
        if first is None:
            raise SubjectLeftOut("no story was heard")
        raise SubjectLeftOut(f"every column is constant or holds NaN (see {first[0].files[0].name})")

    def _read(self, subject: str, run: Run) -> Table:
        table = run.read(self.finder.mask(subject))
        n_columns, file = self._n_columns_of.setdefault(subject, (table.values.shape[1], run.files[0]))
        if table.values.shape[1] != n_columns:
            raise ManifestError(
                f"{self.where}: {run.files[0]} has {table.values.shape[1]} columns, but {file} has {n_columns}. All"
                f" runs of {subject} need the same columns."
            )
        return table

    def cleaned(self, subject: str, story: str, run: Run) -> Float32Array:
        """Responses of one presentation, (n_trs, n_columns), as the manifest wants them cleaned; z-scored."""
        return self._clean(story, run, self._read(subject, run))

    def _clean(self, story: str, run: Run, table: Table) -> Float32Array:
        said, tr_s = self.manifest.responses, self.clocks.tr_s(story)
        self._require_same_tr(story, run, tr_s)
        rows = self._rows(story, run, table)
        try:
            confounds = None if run.confounds is None else self._confounds(run, len(table.values))[rows]
            return clean_series(table.values[rows], tr_s, said.high_pass_s, said.low_pass_s, confounds)
        except CleaningError as error:
            raise ManifestError(f"{run.files[0]}: {error}") from error

    def _rows(self, story: str, run: Run, table: Table) -> slice:
        """The rows that are used."""
        spec, n_trs, n_rows = self.manifest.stories[story], self.clocks.n_trs(story), len(table.values)
        first = spec.volumes_discarded
        if n_rows < first + n_trs or (spec.n_trs is None and n_rows != first + n_trs):
            turned = " Its columns would fit: is it transposed?" if table.values.shape[1] == first + n_trs else ""
            discarded = f" after {first} that are discarded" if first else ""
            raise ManifestError(
                f"{self.where}: {run.files[0]} has {n_rows} rows, but {story!r} has {n_trs} TRs{discarded}.{turned}"
                f" Rows are volumes; where runs differ in length, n_trs in stories.{story} cuts all to one."
            )
        return slice(first, first + n_trs)

    def _confounds(self, run: Run, n_rows: int) -> FloatArray:
        said = self.manifest.responses.confounds
        assert said is not None
        assert run.confounds is not None
        confounds = read_confounds(run.confounds, said.columns)
        if len(confounds) != n_rows:
            raise ManifestError(
                f"{run.confounds} has {len(confounds)} rows, but {run.files[0]} has {n_rows}. They must be one run."
            )
        return confounds

    def _require_same_tr(self, story: str, run: Run, tr_s: float) -> None:
        theirs = run.tr_s()
        if theirs is None or abs(theirs - tr_s) <= _SAME_TR * tr_s:
            return
        if run.sidecar is None:  # headers are often wrong
            log.warning("%s: its header says a TR of %g s; %s uses %g s.", run.files[0], theirs, story, tr_s)
            return
        raise ManifestError(
            f"{self.where}: {run.sidecar} says a repetition time of {theirs} s, but {story!r} has {tr_s} s. Correct"
            " tr_s, or leave it out."
        )


class Presentations(Sequence[Float32Array]):
    """Presentations of a story to a subject, each read and cleaned when asked for."""

    def __init__(self, reader: ResponseReader, subject: str, story: str, runs: Sequence[Run]) -> None:
        self._reader, self._subject, self._story, self._runs = reader, subject, story, runs

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        return self._reader.cleaned(self._subject, self._story, self._runs[index])
