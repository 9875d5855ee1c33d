"""From a store's features at their own rate to the rows of a temporal choice, and the filter that goes with them.

Words, phones and frames of sound are convolved over their whole story, whatever part of it is probed: what precedes
the first row counts. A feature that is known per TR only is held over its TR.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import Array, Float32Array, FloatArray
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.temporal import (
    HaemodynamicBasis,
    HaemodynamicResponse,
    RowFilter,
    Temporal,
    TemporalBand,
    TemporalPart,
    haemodynamic_rows,
    parts_of,
)
from brainlit.splits import Span
from brainlit.store import StoryStore


@dataclass(frozen=True)
class TemporalForm:
    """How the features of one band become rows.

    Parameters
    ----------
    temporal : Temporal
    response : HaemodynamicResponse
    bin_s : float
        Frames of the backbone are averaged in bins of about so many seconds.
    """

    temporal: Temporal = "fir"
    response: HaemodynamicResponse = field(default_factory=HaemodynamicResponse)
    bin_s: float = 0.1

    @classmethod
    def of(cls, config: ProbeConfig, band: str) -> TemporalForm:
        """The form that the settings of a probe ask for."""
        return cls(config.temporal_of(band), config.response, config.bin_s)

    @property
    def parts(self) -> tuple[TemporalPart, ...]:
        """The parts of the band."""
        return parts_of(self.temporal)

    @property
    def convolves(self) -> bool:
        """Whether anything but means per TR is asked for."""
        return self.parts != ("fir",)

    def rows(
        self,
        values: Array,
        times_s: npt.ArrayLike,
        read_s: FloatArray,
        durations_s: npt.ArrayLike | None = None,
        per_tr: Float32Array | None = None,
    ) -> dict[TemporalPart, Float32Array]:
        """Every part, of values at their own times, (n_times, n_features); `per_tr` is the part fir."""
        basis: HaemodynamicBasis = "hrf_derivatives" if "derivatives" in self.parts else "hrf"
        convolved = haemodynamic_rows(values, times_s, read_s, basis, self.response, durations_s=durations_s)
        rows: dict[TemporalPart, Float32Array] = {"hrf": convolved["hrf"]}
        if "derivatives" in self.parts:
            rows["derivatives"] = convolved["derivatives"]
        if "fir" in self.parts and per_tr is not None:
            rows["fir"] = per_tr
        return {part: rows[part] for part in self.parts}


def read_times_s(store: StoryStore, story: str) -> FloatArray:
    """When each row of a story was acquired, in seconds of sound: the moment that slice timing refers to."""
    clock = store.timebase(story)
    return np.asarray(clock.tr_starts_s + store.slice_reference * (clock.tr_ends_s - clock.tr_starts_s))


def stimulus_rows(store: StoryStore, spans: Sequence[Span], spaces: Sequence[str], form: TemporalForm) -> TemporalBand:
    """Feature spaces of the store side by side, with the rows of the spans one after the other."""
    found: list[dict[TemporalPart, Float32Array]] = []
    for span in spans:
        read_s, per_tr = read_times_s(store, span.story), {s.name: s.values for s in store.feature_spaces(span.story)}
        each = [_space_rows(store, span.story, name, per_tr[name], read_s, form) for name in spaces]
        whole = {part: np.concatenate([rows[part] for rows in each], axis=1) for part in form.parts}
        found.append({part: rows[span.start_tr : span.stop_tr] for part, rows in whole.items()})
    return TemporalBand({part: np.concatenate([rows[part] for rows in found]) for part in form.parts})


def held_rows(values: Float32Array, store: StoryStore, spans: Sequence[Span], form: TemporalForm) -> TemporalBand:
    """Features that are known per TR only, (n_rows_of_all_spans, n_features), each value held over its TR."""
    found, start = [], 0
    for span in spans:
        own = values[start : start + span.n_trs]
        edges_s = store.timebase(span.story).tr_edges_s(span.start_tr, span.n_trs)
        read_s = read_times_s(store, span.story)[span.start_tr : span.stop_tr]
        middles_s = (edges_s[1:] + edges_s[:-1]) / 2
        found.append(form.rows(own - own.mean(axis=0), middles_s, read_s, np.diff(edges_s), own))
        start += span.n_trs
    return TemporalBand({part: np.concatenate([rows[part] for rows in found]) for part in form.parts})


def row_filters(store: StoryStore, spans: Sequence[Span]) -> dict[int, RowFilter]:
    """What the responses passed, for the features of each span, by its number; empty where it is not known."""
    passed = store.response_filter
    if passed is None:
        return {}

    def of(span: Span) -> RowFilter:
        n_trs = store.n_trs(span.story)

        def apply(rows: FloatArray) -> FloatArray:
            return passed.apply(rows, store.tr_s, first_tr=span.start_tr, n_trs=n_trs)

        return apply

    return {number: of(span) for number, span in enumerate(spans)}


def _space_rows(
    store: StoryStore, story: str, name: str, per_tr: Float32Array, read_s: FloatArray, form: TemporalForm
) -> Mapping[TemporalPart, Float32Array]:
    timed = store.timed(story, name)
    if timed is None:
        whole = Span(story, 0, store.n_trs(story))
        return held_rows(per_tr, store, [whole], form).parts
    if timed.duration_s is None:
        return form.rows(timed.values, timed.times_s, read_s, None, per_tr)
    # What goes on in time (sound) counts as its mean before it begins, or its onset would dwarf all else.
    centred = timed.values - timed.values.mean(axis=0)
    return form.rows(centred, timed.times_s, read_s, np.full(len(centred), timed.duration_s), per_tr)
