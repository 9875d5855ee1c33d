"""Reads a manifest and checks it key by key; what it says is in `schema`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from brainlit.hints import did_you_mean
from brainlit.stories.base import ROLES
from brainlit.stories.manifest.schema import (
    Clock,
    Confounds,
    Keys,
    Manifest,
    ManifestError,
    ResponseSpec,
    StorySpec,
    TierSpec,
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
from brainlit.stories.readers.tables import require_file
from brainlit.stories.readers.transcripts import NOT_WORDS
from brainlit.stories.regions.config import RegionConfig

_RUN = ("subject", "story", "repeat")
_SPAN = re.compile(r"([^\[\]]+)(\[\d*:\d*\])?")
_MOVED = "features are chosen in the experiment now: data.features.vectors: <file>"


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest; ${oc.env:NAME} and other interpolations are resolved.

    Raises
    ------
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
