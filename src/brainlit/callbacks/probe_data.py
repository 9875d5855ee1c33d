"""What a probe of one subject needs from the store: responses, stimulus bands, roles of the rows, noise ceiling."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.datamodules.voxels import ceilings
from brainlit.encoding.roles import Span
from brainlit.features import sub_band_columns
from brainlit.store import StoryStore

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]

STIMULUS_BANDS = ("low_level", "semantic")


@dataclass(frozen=True)
class ProbeData:
    """Rows of the spans that one subject heard, fit spans first.

    Parameters
    ----------
    rows : bool array of shape (n_rows_of_all_spans,)
        Which rows of the features this subject heard.
    stimulus : mapping of band or sub-band to float32 array (n_trs, n_features)
    responses : float32 array of shape (n_trs, n_voxels)
        NaN in columns that are not good in every story.
    groups : int array of shape (n_trs,)
        Number of the span of each row.
    fit, score : bool arrays of shape (n_trs,)
    ceiling : array of shape (n_voxels,) or None
    facts : mapping
        Spans, rows and repeats as plain JSON.
    """

    rows: BoolArray
    stimulus: Mapping[str, Float32Array]
    responses: Float32Array
    groups: npt.NDArray[np.int64]
    fit: BoolArray
    score: BoolArray
    ceiling: npt.NDArray[np.float64] | None
    facts: Mapping[str, Any]


def probe_data(
    store: StoryStore,
    subject: str,
    fit_spans: Sequence[Span],
    score_spans: Sequence[Span],
    skip_trs: int,
    *,
    sub_bands: bool = False,
) -> ProbeData:
    """Read what a probe of one subject needs.

    Voxels are those with data in every story; scored rows take no part in choosing them. The ceiling comes from the
    repeats of the scored stories and is for dividing only.

    Parameters
    ----------
    skip_trs : int
        First rows of each span, which the probe leaves out of the score; left out of the ceiling too.
    sub_bands : bool
        Give the low-level band in parts ('low_level/spectral', ...), as `ProbeConfig.sub_bands` needs it.

    Raises
    ------
    ValueError
        If the subject heard no story to fit on, or none to score on.
    """
    spans = [*fit_spans, *score_spans]
    parts = [store.responses(subject, span.story, span.start_tr, span.stop_tr) for span in spans]
    heard = [part is not None for part in parts]
    _check_heard(subject, heard, fit_spans, score_spans)
    lengths = np.array([span.stop_tr - span.start_tr for span in spans])
    is_fit = np.arange(len(spans)) < len(fit_spans)
    rows = np.repeat(heard, lengths)
    groups = np.repeat(np.arange(len(spans)), lengths)[rows]
    responses = np.concatenate([part for part in parts if part is not None])
    responses[:, ~store.good_voxels(subject)] = np.nan
    kept = [span for span, has in zip(spans, heard, strict=True) if has]
    ceiling, repeat_facts = score_ceiling(store, subject, [s for s in kept if s in set(score_spans)], skip_trs)
    return ProbeData(
        rows=rows,
        stimulus=_stimulus(store, kept, sub_bands),
        responses=responses,
        groups=groups,
        fit=is_fit[groups],
        score=~is_fit[groups],
        ceiling=ceiling,
        facts=_span_facts(kept, set(fit_spans)) | repeat_facts,
    )


def score_ceiling(
    store: StoryStore, subject: str, spans: Sequence[Span], skip_trs: int
) -> tuple[npt.NDArray[np.float64] | None, dict[str, Any]]:
    """Noise ceiling of the scored rows that were heard repeatedly, and what it rests on; None without repeats."""
    rows = [Span(s.story, s.start_tr + skip_trs, s.stop_tr) for s in spans if s.stop_tr > s.start_tr + skip_trs]
    repeated = [span for span in rows if store.n_repeats(subject, span.story) > 1]
    if not repeated:
        return None, {"n_repeats": 0}
    parts = list(ceilings(store, subject, repeated))
    facts = {
        "n_repeats": parts[0].n_repeats,
        "ceiling_stories": list(dict.fromkeys(span.story for span in repeated)),
        "n_without_ceiling": sum(part.n_negative for part in parts),
    }
    return np.concatenate([part.ceiling_r for part in parts]), facts


def fingerprint(*parts: Any) -> str:
    """Short hash of arrays (dtype, shape, bytes) and JSON values."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:20]


def _stimulus(store: StoryStore, spans: Sequence[Span], sub_bands: bool) -> dict[str, Float32Array]:
    bands: dict[str, Float32Array] = {}
    for kind in STIMULUS_BANDS:
        values = np.concatenate([store.band(s.story, kind)[s.start_tr : s.stop_tr] for s in spans])  # type: ignore[arg-type]
        if kind == "low_level" and sub_bands:
            parts = sub_band_columns(store.band_columns("low_level"))
            bands |= {f"low_level/{name}": values[:, columns] for name, columns in parts.items()}
        elif values.shape[1]:
            bands[kind] = values
    return bands


def _span_facts(spans: Sequence[Span], fit_spans: set[Span]) -> dict[str, Any]:
    fit, score = [s for s in spans if s in fit_spans], [s for s in spans if s not in fit_spans]
    return {
        "fit_spans": [str(span) for span in fit],
        "score_spans": [str(span) for span in score],
        "score_stories": list(dict.fromkeys(span.story for span in score)),
    }


def _check_heard(subject: str, heard: Sequence[bool], fit_spans: Sequence[Span], score_spans: Sequence[Span]) -> None:
    for role, spans, has in (
        ("fit", fit_spans, heard[: len(fit_spans)]),
        ("score", score_spans, heard[len(fit_spans) :]),
    ):
        if not any(has):
            listed = ", ".join(str(span) for span in spans) or "none"
            raise ValueError(
                f"subject {subject} heard none of the stories to {role} ({listed}), so it cannot be probed. Give it"
                f" stories in data.roles.{role}, or leave it out of data.subjects."
            )
