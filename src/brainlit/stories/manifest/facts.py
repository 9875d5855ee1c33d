"""What reports say of a data set that a manifest describes."""

from __future__ import annotations

from collections.abc import Mapping

from brainlit.stories.manifest.schema import ResponseSpec, StorySpec


def clock_in_words(stories: Mapping[str, StorySpec]) -> str:
    """When the rows of the responses happened.

    >>> from brainlit.stories.manifest.schema import TierSpec
    >>> words = TierSpec("a.TextGrid")
    >>> clock_in_words({"frog": StorySpec("a.wav", words, 2.0, onset_s=-8.0, volumes_discarded=4)})
    'frog: TR 2 s, row 0 of the file starts at -8 s of the sound, first 4 rows not used'
    """
    grouped: dict[str, list[str]] = {}
    for name, spec in stories.items():
        grouped.setdefault(_one_clock(spec), []).append(name)
    return "; ".join(f"{_few(names)}: {clock}" for clock, names in grouped.items())


def preprocessing_in_words(spec: ResponseSpec) -> str:
    """What was done to the responses here.

    >>> preprocessing_in_words(ResponseSpec("a.npy"))
    'periods of 128 s and more taken out; z-scored per story'
    """
    parts = ["preprocessed before" if spec.preprocessed else ""]
    if spec.fmriprep is not None:
        parts.append(f"fMRIPrep, space {spec.space}")
    if spec.high_pass_s is not None:
        parts.append(f"periods of {spec.high_pass_s:g} s and more taken out")
    if spec.low_pass_s is not None:
        parts.append(f"periods below {spec.low_pass_s:g} s taken out")
    if spec.confounds is not None:
        parts.append(f"confounds regressed out: {', '.join(spec.confounds.columns)}")
    return "; ".join(part for part in [*parts, "z-scored per story"] if part)


def _one_clock(spec: StorySpec) -> str:
    tr_s = "TR of the file" if spec.tr_s is None else f"TR {spec.tr_s:g} s"
    start = "starts of the rows from a table" if spec.tr_starts else (
        f"row 0 of the file starts at {spec.onset_s:g} s of the sound"
    )  # fmt: skip
    used = f", first {spec.volumes_discarded} rows not used" if spec.volumes_discarded else ""
    return f"{tr_s}, {start}{used}"


def _few(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
