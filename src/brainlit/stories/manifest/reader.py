"""Reads a manifest and checks it key by key; what it says is in `schema`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np

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
    channel,
    flag,
    load_yaml,
    number,
    part,
    pattern,
    placeholders,
    repetition_time,
    seconds,
    text,
    texts,
    whole,
)
from brainlit.stories.readers.images import SERIES_SUFFIXES
from brainlit.stories.readers.tables import float_or_nan, require_file
from brainlit.stories.regions.config import RegionConfig
from brainlit.stories.response_filter import ResponseFilter

_TOLD = ("story", "part")
_RUN = ("subject", *_TOLD, "repeat")
_SPAN = re.compile(r"([^\[\]]+)(\[\d*:\d*\])?")
_OF_A_SUBJECT = ("onset_s", "tr_starts", "volumes_discarded", "silence_after_s", "words", "phones")
"""What may differ from subject to subject in one story."""
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
    keys.only({"each_story", *(one.name for one in fields(Manifest) if not one.metadata)})
    responses = _responses(keys)
    said, parts = _stories(keys, responses)
    listeners = _listeners(keys, list(said), parts, optional=responses.fmriprep is not None)
    stories, subjects, on_other_clocks = _by_clock(said, listeners, responses)
    return Manifest(
        name=keys.get("name", text),
        root=path.parent / keys.get("root", _folder, Path()),
        stories=stories,
        subjects=subjects,
        responses=responses,
        roles=_roles(keys, stories, parts),
        on_other_clocks=on_other_clocks,
        parts=parts,
        **_given(keys, not_words=lambda value: frozenset(map(str.lower, texts(value))), licence=text, citation=text),
    )


Parts = dict[str, tuple[str, str]]
"""Of each story that is one run of a story: that story, and the name of the run."""


def _stories(keys: Keys, responses: ResponseSpec) -> tuple[dict[str, Keys], Parts]:
    """The keys of every story, those that all share among them; each part of a story is a story of its own."""
    known = {*_names(StorySpec), "parts"}
    shared = keys.sub("each_story")
    shared.only(known)
    value = keys.get("stories", lambda value: value)
    own = {name: {} for name in keys.get("stories", texts)} if isinstance(value, list) else keys.sub("stories").values
    if not own:
        raise ManifestError(f"{keys.where}: stories is {value!r}; need at least one.")
    stories: dict[str, Keys] = {}
    parts: Parts = {}
    for name, said in own.items():
        own_keys = Keys({} if said is None else said, f"{keys.where}: stories.{name}")
        own_keys.only(known)
        story = Keys({**shared.values, **own_keys.values}, own_keys.where)
        for run, run_keys in _parts(story, responses).items():
            full = f"{name}.{run}" if run else name
            if full in stories or (run and full in own):
                raise ManifestError(f"{run_keys.where}: {full!r} is a story already. Give one of them another name.")
            stories[full] = run_keys
            parts |= {full: (name, run)} if run else {}
    return stories, parts


def _parts(story: Keys, responses: ResponseSpec) -> dict[str, Keys]:
    """The keys of each run of a story; of a story that was told in one, its own under an empty name.

    Where one audio file was played over several runs, each ends where the next one begins, unless it says otherwise.
    """
    shared = {key: value for key, value in story.values.items() if key != "parts"}
    if story.values.get("parts") is None:
        return {"": Keys(shared, story.where)}
    named = story.sub("parts")
    parts = {}
    for name in named.values:
        own = named.sub(name)
        own.only(_names(StorySpec))
        parts[name] = Keys({**shared, **own.values}, f"{story.where}.parts.{name}")
    if len(parts) < 2:
        raise ManifestError(f"{named.where} names {len(parts)}; a story in one run needs no parts.")
    if responses.file is not None and "part" not in placeholders(f"{responses.file}{responses.dataset or ''}"):
        raise ManifestError(f"{named.where} have no place in responses.file ({responses.file}): put in {{part}}.")
    of_sound: dict[str, list[Keys]] = {}
    for name, keys in parts.items():
        of_sound.setdefault(str(keys.values.get("audio")).replace("{part}", name), []).append(keys)
    for audio, several in of_sound.items():
        starts_s = [keys.get("sound_start_s", number, 0.0) for keys in several]
        if any(then <= before for before, then in pairwise(starts_s)):
            raise ManifestError(
                f"{named.where}: all play {audio!r}, from {', '.join(f'{start_s:g}' for start_s in starts_s)} s. Say"
                " where each begins in it, in their order: sound_start_s; or put {part} into audio."
            )
        for keys, end_s in zip(several, starts_s[1:], strict=False):
            keys.values.setdefault("sound_end_s", end_s)
    return parts


def _story(keys: Keys, responses: ResponseSpec) -> StorySpec:
    story = StorySpec(
        audio=keys.get("audio", pattern(*_TOLD)),
        words=_tier(keys, "words"),
        phones=_tier(keys, "phones") if keys.values.get("phones") is not None else None,
        repeats="all" if keys.values.get("repeats") == "all" else keys.get("repeats", texts, ()),
        **_given(keys, channel=channel, tr_s=repetition_time, onset_s=number, tr_starts=pattern(*_TOLD, "subject"),
                 volumes_discarded=whole, n_trs=whole, silence_after_s=number, sound_start_s=number,
                 sound_end_s=number),
    )  # fmt: skip
    if story.sound_start_s < 0 or (story.sound_end_s is not None and story.sound_end_s <= story.sound_start_s):
        raise ManifestError(
            f"{keys.where}: the sound goes from {story.sound_start_s:g} s to {story.sound_end_s} s of the audio file;"
            " need sound_start_s of 0 or more, before sound_end_s."
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
    if story.tr_s is None and responses.file is not None and not responses.file.lower().endswith(SERIES_SUFFIXES):
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
        return TierSpec(keys.get(key, pattern(*_TOLD, "subject")))
    tier = keys.sub(key)
    tier.only(_names(TierSpec))
    where = tier.sub("where")
    return TierSpec(
        file=tier.get("file", pattern(*_TOLD, "subject")),
        where={name: _one_or_more(where, name) for name in where.values},
        **_given(tier, tier=_tier_names, column=text, clock=_clock),
    )


Listeners = dict[str, dict[str, dict[str, Any]]]
"""Of each subject the stories heard, and what differs for the subject in each."""


def _listeners(keys: Keys, stories: list[str], parts: Parts, optional: bool) -> Listeners | None:
    value = keys.get("subjects", lambda value: value, None if optional else ...)
    if value is None:
        return None
    if isinstance(value, list):
        return {name: {story: {} for story in stories} for name in keys.get("subjects", texts)}
    heard = keys.sub("subjects")
    listeners = {}
    for name, said in heard.values.items():
        own = heard.sub(name) if isinstance(said, Mapping) else Keys({"stories": said}, heard.where)
        own.only({"stories", *_OF_A_SUBJECT})
        shared = {key: item for key, item in own.values.items() if key != "stories"}
        listeners[name] = {
            one: shared | more
            for story, more in _heard(heard, own, name, stories).items()
            for one in (_parts_of(story, parts) or [story])
        }
        for story in listeners[name]:
            if story not in stories:
                raise ManifestError(
                    f"{heard.where}: {name} heard {story!r}: no such story. {did_you_mean(story, stories)}"
                )
    if not listeners:
        raise ManifestError(f"{keys.where}: subjects is {value!r}; need at least one.")
    return listeners


def _heard(heard: Keys, own: Keys, name: str, stories: list[str]) -> dict[str, dict[str, Any]]:
    """The stories of one subject: 'all', a list, or a mapping to what differs in each."""
    value = own.values.get("stories", "all")
    if value == "all":
        return {story: {} for story in stories}
    if not isinstance(value, Mapping):
        return {story: {} for story in Keys({name: value}, heard.where).get(name, texts)}
    differs = own.sub("stories")
    for story in differs.values:
        differs.sub(story).only(_OF_A_SUBJECT)
    return {story: differs.sub(story).values for story in differs.values}


def _by_clock(
    said: Mapping[str, Keys], listeners: Listeners | None, responses: ResponseSpec
) -> tuple[dict[str, StorySpec], dict[str, tuple[str, ...]] | None, dict[str, str]]:
    """Stories, with one more for each subject whose clock (or transcript) of a story is another one than before.

    The first subject who heard a story gives it its name; who has the same clock hears the same story.
    """
    stories: dict[str, StorySpec] = {}
    others: dict[str, str] = {}
    names: dict[str, dict[str, str]] = {}
    for story, keys in said.items():
        found: dict[str, StorySpec] = {}
        for subject, heard in (listeners or {}).items():
            if story in heard:
                spec = _of_subject(_story(_differing(keys, heard[story], subject), responses), subject)
                name = next((name for name, known in found.items() if known == spec), None)
                name = name or (f"{story}.{subject}" if found else story)
                if name != story and name in said:
                    raise ManifestError(f"{keys.where}: {name!r} is a story already. Give one of them another name.")
                found[name] = spec
                names.setdefault(subject, {})[story] = name
        stories |= found or {story: _story(keys, responses)}
        others |= {name: story for name in found if name != story}
    for name, spec in stories.items():
        if "subject" in placeholders(f"{spec.tr_starts}{spec.words.file}{spec.phones and spec.phones.file}"):
            raise ManifestError(f"{said[name].where}: {{subject}} in a name needs the list of subjects: name them.")
    heard_by = None if listeners is None else {
        subject: tuple(names[subject][story] for story in heard) for subject, heard in listeners.items()
    }  # fmt: skip
    return stories, heard_by, others


def _differing(keys: Keys, differs: dict[str, Any], subject: str) -> Keys:
    if not differs:
        return keys
    clock = {"onset_s", "tr_starts"}
    replaced = {key: None for key in clock if clock & differs.keys()}
    return Keys({**keys.values, **replaced, **differs}, f"{keys.where}, for {subject}")


def _of_subject(spec: StorySpec, subject: str) -> StorySpec:
    """The names of the files of one subject."""

    def own(template: str) -> str:
        return template.replace("{subject}", subject)

    return replace(
        spec,
        tr_starts=None if spec.tr_starts is None else own(spec.tr_starts),
        words=replace(spec.words, file=own(spec.words.file)),
        phones=None if spec.phones is None else replace(spec.phones, file=own(spec.phones.file)),
    )


def _responses(keys: Keys) -> ResponseSpec:
    keys.get("responses", lambda value: value)
    keys = keys.sub("responses")
    keys.only({*_names(ResponseSpec), "zscore"})
    preprocessed = keys.get("preprocessed", flag, False)
    spec = ResponseSpec(
        regions=_groups(keys.sub("regions")) or None,
        region_files=_region_config(keys.sub("region_files")),
        preprocessed=preprocessed,
        high_pass_s=None if preprocessed or keys.values.get("high_pass_s", 0) is None
        else keys.get("high_pass_s", seconds, 128.0),
        confounds=_confounds(keys),
        **_given(keys, file=pattern(*_RUN, "hemi"), fmriprep=text, task=pattern(*_TOLD), space=text, desc=text,
                 transposed=flag, dataset=pattern(*_RUN), mask=pattern(*_RUN), columns=texts, low_pass_s=seconds,
                 response_filter=_response_filter, slice_reference=part),
    )  # fmt: skip
    _require_one_kind(keys, spec)
    return spec


def _require_one_kind(keys: Keys, spec: ResponseSpec) -> None:
    """Refuse what contradicts itself."""
    if (spec.file is None) == (spec.fmriprep is None):
        raise ManifestError(f"{keys.where}: give file (a path with {{subject}}) or fmriprep (a folder), and not both.")
    if spec.fmriprep is not None and spec.space is None:
        raise ManifestError(f"{keys.where}: 'space' is missing; name one of fMRIPrep's output spaces.")
    only_for = {"dataset": "file", "transposed": "file", "task": "fmriprep", "desc": "fmriprep"}
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


def _response_filter(value: Any) -> ResponseFilter:
    if not isinstance(value, Mapping):
        raise TypeError("need a mapping such as {polynomial: 2, high_pass_s: 128}")
    try:
        return ResponseFilter.from_json(
            {"source": "the manifest", **{str(key): _as_number(item) for key, item in value.items()}}
        )
    except ValueError as error:
        raise ValueError(str(error).rstrip(".")) from error


def _as_number(value: Any) -> Any:
    return value if not isinstance(value, str) or np.isnan(float_or_nan(value)) else float_or_nan(value)


def _region_config(keys: Keys) -> RegionConfig | None:
    if not keys.values:
        return None
    keys.only(_names(RegionConfig))
    kinds = {one.name: flag if isinstance(one.default, bool) else text for one in fields(RegionConfig)}
    try:
        return RegionConfig(**_given(keys, **kinds))
    except ValueError as error:
        raise ManifestError(f"{keys.where}: {error}") from error


def _roles(keys: Keys, stories: Mapping[str, StorySpec], parts: Parts) -> dict[str, tuple[str, ...]]:
    keys.get("roles", lambda value: value)
    keys = keys.sub("roles")
    keys.only(ROLES)
    roles = {role: keys.get(role, texts) for role in keys.values}
    for role, spans in roles.items():
        for span in spans:
            match = _SPAN.fullmatch(span.strip())
            told = [] if match is None else _parts_of(match[1], parts)
            if told and match is not None and match[2]:
                raise ManifestError(
                    f"{keys.where}: {role}: {span!r}: {match[1]!r} was told over several runs, each with rows of its"
                    f" own. Say which: {', '.join(f'{part}{match[2]}' for part in told)}."
                )
            if match is None or (match[1] not in stories and not told):
                known = did_you_mean(span.partition("[")[0], stories)
                raise ManifestError(
                    f"{keys.where}: {role} is no story or stretch of one (name[0:100]): {span!r}. {known}"
                )
    return {
        role: tuple(one for span in spans for one in (_parts_of(span.strip(), parts) or [span]))
        for role, spans in roles.items()
    }


def _parts_of(story: str, parts: Parts) -> list[str]:
    """The runs over which a story was told; none, if it was told in one."""
    return [part for part, (whole, _) in parts.items() if whole == story]


def _groups(keys: Keys) -> dict[str, tuple[str, ...]]:
    return {name: keys.get(name, texts) for name in keys.values}


def _one_or_more(keys: Keys, key: str) -> tuple[str, ...]:
    return keys.get(key, texts if isinstance(keys.values[key], list) else lambda value: (text(value),))


def _given(keys: Keys, **converters: Callable[[Any], Any]) -> dict[str, Any]:
    """The converted values of those keys that are given; the defaults of the others stand in `schema` alone."""
    return {key: keys.get(key, convert) for key, convert in converters.items() if keys.values.get(key) is not None}


def _clock(value: Any) -> Any:
    if value not in get_args(Clock):
        raise ValueError("need audio or scanner")
    return value


def _tier_names(value: Any) -> str | tuple[str, ...]:
    named = pattern(*_TOLD)
    return tuple(named(name) for name in texts(value)) if isinstance(value, list) else named(value)


def _folder(value: Any) -> Path:
    try:
        return Path(text(value)).expanduser()
    except RuntimeError as error:
        raise ValueError("that home folder is not known") from error


def _names(spec: type) -> list[str]:
    return [one.name for one in fields(spec)]
