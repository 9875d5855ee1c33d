"""From a store's features at their own rate to the rows of a temporal choice, filtered as the responses were.

All of it is done for whole stories, whatever part of them is probed: words, phones and frames of sound before a span
count, and a filter that cleaned the responses to a whole story takes the same waves out of its features. A feature
that is known per TR only is held over its TR.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from brainlit.encoding.arrays import Array, Float32Array, FloatArray, delay_within, demean_within
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.temporal import (
    HaemodynamicBasis,
    HaemodynamicResponse,
    Temporal,
    TemporalBand,
    TemporalPart,
    haemodynamic_rows,
    parts_of,
)
from brainlit.splits import Span
from brainlit.store import StoryStore
from brainlit.stories.base import TimedValues

Parts = Mapping[TemporalPart, Float32Array]
STEP_S = 0.1
"""Distance of the events that stand for what precedes a story."""


@dataclass(frozen=True)
class TemporalForm:
    """How the features of one band become rows.

    Parameters
    ----------
    temporal : Temporal
    matched_filter : bool
        Whether features pass what the responses of the store passed, where that is known.
    delays_trs : tuple of int
        Of the part fir.
    response : HaemodynamicResponse
    bin_s : float
        Frames of the backbone are averaged in bins of about so many seconds.
    keeps_scale : bool
        Whether columns keep their variances.
    """

    temporal: Temporal = "fir"
    matched_filter: bool = False
    delays_trs: tuple[int, ...] = (1, 2, 3, 4)
    response: HaemodynamicResponse = field(default_factory=HaemodynamicResponse)
    bin_s: float = 0.1
    keeps_scale: bool = False

    @classmethod
    def of(cls, config: ProbeConfig, band: str) -> TemporalForm:
        """The form that the settings of a probe ask for."""
        given = (config.temporal_of(band), config.matched_filter, config.delays_trs, config.response, config.bin_s)
        return cls(*given, config.keeps_scale(band))

    @property
    def parts(self) -> tuple[TemporalPart, ...]:
        """The parts of the band."""
        return parts_of(self.temporal)

    def is_plain(self, store: StoryStore) -> bool:
        """Whether the ridge gets means per TR as they are, and delays them itself."""
        filtered = self.matched_filter and store.response_filter is not None
        return self.parts == ("fir",) and not (filtered or self.keeps_scale)

    def rows(self, timed: TimedValues, per_tr: Array, store: StoryStore, story: str) -> Parts:
        """Every part of one whole story: convolved, or delayed, and then filtered; (n_trs, n_columns) each.

        Parameters
        ----------
        timed : TimedValues
        per_tr : array of shape (n_trs, n_features)
        """
        found: dict[TemporalPart, FloatArray | Float32Array] = {}
        if "fir" in self.parts:
            whole = np.zeros(len(per_tr), dtype=np.int64)
            found["fir"] = delay_within(demean_within(per_tr, whole).astype(np.float32), whole, self.delays_trs)
        if "hrf" in self.parts:
            basis: HaemodynamicBasis = "hrf_derivatives" if "derivatives" in self.parts else "hrf"
            widths_s = None if timed.duration_s is None else np.full(len(timed.values), timed.duration_s)
            given = (timed.values, timed.times_s, read_times_s(store, story), basis, self.response)
            found |= haemodynamic_rows(*given, durations_s=widths_s)  # type: ignore[arg-type]
        passed = store.response_filter if self.matched_filter else None
        if passed is not None:
            found = {part: passed.apply(values, store.tr_s) for part, values in found.items()}
        return {part: np.asarray(found[part], dtype=np.float32) for part in self.parts}


def read_times_s(store: StoryStore, story: str) -> FloatArray:
    """When each row of a story was acquired, in seconds of sound: the moment that slice timing refers to."""
    clock = store.timebase(story)
    return np.asarray(clock.tr_starts_s + store.slice_reference * (clock.tr_ends_s - clock.tr_starts_s))


def stimulus_rows(store: StoryStore, spans: Sequence[Span], spaces: Sequence[str], form: TemporalForm) -> TemporalBand:
    """Feature spaces of the store side by side, with the rows of the spans one after the other."""
    whole = {story: _story_rows(store, story, spaces, form) for story in dict.fromkeys(span.story for span in spans)}
    return cut_spans(whole, spans, form)


def held_rows(values: Float32Array, store: StoryStore, spans: Sequence[Span], form: TemporalForm) -> TemporalBand:
    """Features that are known per TR only, (n_rows_of_all_spans, n_features), each value held over its TR.

    Rows of a story that belong to no span count as the mean.
    """
    whole, starts = {}, np.cumsum([0, *(span.n_trs for span in spans)])
    for story in dict.fromkeys(span.story for span in spans):
        rows = np.zeros((store.n_trs(story), values.shape[1]), dtype=np.float32)
        own = [(span, int(start)) for span, start in zip(spans, starts[:-1], strict=True) if span.story == story]
        mean = np.concatenate([values[start : start + span.n_trs] for span, start in own]).mean(axis=0)
        for span, start in own:
            rows[span.start_tr : span.stop_tr] = values[start : start + span.n_trs] - mean
        whole[story] = form.rows(_held(rows, store, story), rows, store, story)
    return cut_spans(whole, spans, form)


def cut_spans(whole: Mapping[str, Parts], spans: Sequence[Span], form: TemporalForm) -> TemporalBand:
    """The rows of the spans out of those of whole stories."""
    cut = [{part: rows[span.start_tr : span.stop_tr] for part, rows in whole[span.story].items()} for span in spans]
    rows = {part: np.concatenate([own[part] for own in cut]) for part in form.parts}
    return TemporalBand(rows, is_delayed=True, keeps_scale=form.keeps_scale)


def with_what_precedes(timed: TimedValues, before_sound: str, response_s: float) -> TimedValues:
    """Features of a story together with what its responses count as having preceded it: silence, or the story's mean.

    With a mean, what goes on in time (sound) is centred, and events are preceded by their mean rate.
    """
    if before_sound == "silence":
        return timed
    if timed.duration_s is not None:
        return TimedValues(timed.values - timed.values.mean(axis=0), timed.times_s, timed.duration_s)
    if len(timed.times_s) < 2 or timed.times_s[-1] == timed.times_s[0]:
        return timed
    rate = timed.values.sum(axis=0) / (timed.times_s[-1] - timed.times_s[0])
    before_s = timed.times_s[0] - STEP_S * np.arange(int(np.ceil(response_s / STEP_S)), 0, -1)
    values = np.concatenate([np.tile(rate * STEP_S, (len(before_s), 1)), timed.values]).astype(np.float32)
    return TimedValues(values, np.concatenate([before_s, timed.times_s]))


def _story_rows(store: StoryStore, story: str, spaces: Sequence[str], form: TemporalForm) -> Parts:
    per_tr = {space.name: space.values for space in store.feature_spaces(story)}
    each = []
    for name in spaces:
        timed = store.timed(story, name)
        if timed is None:
            timed = _held(per_tr[name] - per_tr[name].mean(axis=0), store, story)
        else:
            timed = with_what_precedes(timed, store.before_sound, form.response.length_s)
        each.append(form.rows(timed, per_tr[name], store, story))
    return {part: np.concatenate([rows[part] for rows in each], axis=1) for part in form.parts}


def _held(per_tr: Array, store: StoryStore, story: str) -> TimedValues:
    """Values per TR as frames as long as the nominal TR, at the middle of each row."""
    clock = store.timebase(story)
    middles_s = (clock.tr_starts_s + clock.tr_ends_s) / 2
    return TimedValues(np.asarray(per_tr, dtype=np.float32), middles_s, clock.tr_s)
