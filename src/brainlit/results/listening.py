"""A page on which the map of the brain moves with a sound: the sound, what a model expects of it, and nothing else.

The page needs no network. A picture of four views is one list of vertices, run by run along its lines; a row of the
prediction is one byte per vertex, so that a browser paints it in a hundredth of a second.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import FloatArray, IntArray
from brainlit.files import write_bytes
from brainlit.results.brainmap import N_VERTICES, VIEWS, fsaverage5, seen_from, surface_values
from brainlit.results.pages import render_page
from brainlit.results.predictions import PredictedListener, PredictedSound
from brainlit.results.scores import ALL_VOXELS
from brainlit.results.style import DIVERGING, REGION_COLOURS, Figure, colour_map, draw_figure, region_looks
from brainlit.results.tables import SIMULATED, count_said
from brainlit.timebase import SAMPLE_RATE_HZ

PAGE_FILE, SOUND_FILE = "listen.html", "sound.mp3"
WIDTH, HEIGHT = 300, 210
"""Pixels of one view; the four stand beside each other."""
MOST_SOUND_BYTES = 1_500_000
"""A longer sound lies beside the page, which then plays only from its folder."""
MOST_MAP_BYTES = 1_200_000
_COARSER = (N_VERTICES, 2_562, 642, 162)
"""Vertices per hemisphere: those of fsaverage5, and of the coarser spheres that it begins with."""
_REACH_MM = 15.0
NOWHERE = 65_535
_MOST_REGIONS = 5
_SAMPLES_PER_EDGE = 10


def listening_page(sound: PredictedSound, samples: npt.NDArray[np.int16]) -> tuple[str, bytes | None]:
    """The page, and the sound as MP3 where it is too long to be in the page.

    Parameters
    ----------
    samples : int16 array of shape (n_samples,)
        The sound as the model heard it: mono, 16 kHz.
    """
    encoded = as_mp3(samples)
    is_inside = len(encoded) <= MOST_SOUND_BYTES
    simulated = SIMULATED in sound.about
    limit = colour_limit(sound.listeners)
    curves = [curve_of(sound, listener, simulated) for listener in sound.listeners]
    page = render_page(
        "listening.html.j2",
        f"What the model expects: {sound.name}",
        listeners=SIMULATED if simulated else "",
        about=[sentence for sentence in sound.about if sentence != SIMULATED],
        facts={**sound.facts, "subjects": ", ".join(one.subject.name for one in sound.listeners), "rows": sound.n_trs},
        address=f"data:audio/mpeg;base64,{_base64(encoded)}" if is_inside else SOUND_FILE,
        sound_said="The sound is in this page." if is_inside else f"The sound is {SOUND_FILE}, beside this page.",
        names=[listener.subject.name for listener in sound.listeners],
        curves=[figure for figure, _ in curves],
        limit=limit,
        colours_of_map=DIVERGING,
        views=[f"{side} {view}" for side, view in VIEWS],
        data=_data(sound, limit, [ends for _, ends in curves]),
    )
    return page, None if is_inside else encoded


def write_listening(folder: Path, sound: PredictedSound, samples: npt.NDArray[np.int16]) -> Path:
    """Write listen.html, and sound.mp3 where the sound is too long to be in it; returns the page."""
    page, beside = listening_page(sound, samples)
    if beside is not None:
        write_bytes(folder / SOUND_FILE, beside)
    return write_bytes(folder / PAGE_FILE, page.encode("utf-8"))


def as_mp3(samples: npt.NDArray[np.int16]) -> bytes:
    """About 0.3 MB per minute, in step with the samples."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE_HZ, format="MP3", subtype="MPEG_LAYER_III")
    return buffer.getvalue()


def colour_limit(listeners: Sequence[PredictedListener]) -> float:
    """Where colours end: the 99 % quantile of what is predicted, without its sign."""
    return max(float(np.quantile(np.abs(np.concatenate([one.rows.ravel() for one in listeners])), 0.99)), 1e-6)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


# --- Region time courses ---


def curve_of(sound: PredictedSound, listener: PredictedListener, simulated: bool) -> tuple[Figure, list[float]]:
    """Time courses of up to five regions, and where the axis begins and ends as shares of the picture's width."""
    means = listener.region_means()
    shown = shown_regions(list(means))
    drawn: list[Any] = []

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for region, (colour, _) in region_looks(shown).items():
            middle_s = sound.times_s + sound.tr_s / 2
            axes.plot(middle_s, means[region], color=colour, lw=1.6, label=region.replace("_", " "))
        axes.set_xlim(0, sound.n_trs * sound.tr_s)
        axes.set_xlabel("seconds of sound")
        axes.set_ylabel("mean predicted response (z)")
        axes.legend(loc="upper left", bbox_to_anchor=(0, 1.22), ncols=_MOST_REGIONS)
        drawn.append(axes)

    name = listener.subject.name
    counts = ", ".join(f"{region.replace('_', ' ')} {listener.regions[region].sum()}" for region in shown)
    caption = (
        f"Predicted response of subject {name} to {count_said(sound.n_trs, 'TR')} of sound, mean over the voxels of a"
        f" region (n: {counts}); a prediction, without an interval. All regions are in {name}_regions.csv."
    )
    ends = "; ".join(
        f"{one.replace('_', ' ')} from {means[one].min():+.2f} to {means[one].max():+.2f}" for one in shown
    )
    alt = f"Predicted time courses of subject {name}, in z: {ends}."
    figure = draw_figure(f"curve-{name}", draw, (10.4, 2.9), alt, caption, simulated=simulated)
    place = drawn[-1].get_position()
    return figure, [round(float(place.x0), 5), round(float(place.x1), 5)]


def shown_regions(names: Sequence[str]) -> list[str]:
    """Those with a colour of their own and then the first of the others, up to five; all voxels last.

    >>> shown_regions(["V1", "auditory", "A1", "A2", "A3", "A4", "all voxels"])
    ['auditory', 'V1', 'A1', 'A2', 'all voxels']
    """
    own = [name for name in names if name in REGION_COLOURS and name != ALL_VOXELS]
    others = [name for name in names if name not in REGION_COLOURS]
    return [*[*own, *others][: _MOST_REGIONS - 1], ALL_VOXELS]


# --- The map ---


def _data(sound: PredictedSound, limit: float, curve_ends: Sequence[Sequence[float]]) -> dict[str, Any]:
    """What the script of the page reads; arrays are little-endian and in base64."""
    mapped = [listener for listener in sound.listeners if listener.subject.vertices is not None]
    data: dict[str, Any] = {"tr_s": sound.tr_s, "n_rows": sound.n_trs, "curve_ends": [list(one) for one in curve_ends]}
    if len(mapped) < len(sound.listeners):
        return data
    lengths, vertices = runs_of(picture())
    folds = np.concatenate([fsaverage5(side).depth > 0 for side in ("left", "right")])
    per_subject = MOST_MAP_BYTES // len(mapped)
    return {
        **data,
        "width": WIDTH * len(VIEWS),
        "height": HEIGHT,
        "lengths": _array(lengths, "<u2"),
        "vertices": _array(vertices, "<u2"),
        "folds": _array(folds, "u1"),
        "colours": _array(np.rint(255 * colour_map(DIVERGING)(np.linspace(0, 1, 255))[:, :3]), "u1"),
        "maps": [_map_of(listener, limit, per_subject) for listener in mapped],
    }


def _array(values: npt.NDArray[Any], dtype: str) -> str:
    return _base64(np.ascontiguousarray(values, dtype=dtype).tobytes())


def _map_of(listener: PredictedListener, limit: float, most_bytes: int) -> dict[str, str]:
    columns, values = vertex_columns(listener, most_bytes)
    return {"columns": _array(columns, "<u2"), "values": _array(in_bytes(values, limit), "u1")}


def in_bytes(values: FloatArray, limit: float) -> npt.NDArray[np.uint8]:
    """-limit .. limit as 1 .. 255, so that 0 is 128; what lies beyond is the end."""
    return np.asarray(np.rint(np.clip(values / limit, -1, 1) * 127) + 128, dtype=np.uint8)


def vertex_columns(listener: PredictedListener, most_bytes: int) -> tuple[IntArray, FloatArray]:
    """Which column of the values each vertex shows, and the values of these columns.

    All vertices that show a voxel have a column, where that is not too much; else those near each other share one, that
    of the nearest vertex of a coarser sphere.

    Returns
    -------
    columns : int array of shape (20484,)
        NOWHERE for vertices that show none.
    values : array of shape (n_rows, n_columns)
    """
    places = np.asarray(listener.subject.vertices, dtype=np.int64)[listener.voxels]
    sides = ("left", "right")
    shown = [surface_values(side, places, np.asarray(listener.rows, dtype=np.float64)) for side in sides]
    known = [np.flatnonzero(np.isfinite(values[0])) for values in shown]
    for n_vertices in _COARSER:
        kept = [there[there < n_vertices] for there in known]
        if sum(map(len, kept)) * len(listener.rows) <= most_bytes:
            break
    columns, first = np.full((2, N_VERTICES), NOWHERE), 0
    for side, there, own, row in zip(sides, known, kept, columns, strict=True):
        if len(own):
            distance_mm, nearest = _nearest(side, there, own)
            row[there] = np.where(distance_mm <= _REACH_MM, first + nearest, NOWHERE)
        first += len(own)
    return columns.ravel(), np.concatenate([values[:, own] for values, own in zip(shown, kept, strict=True)], axis=1)


def _nearest(side: str, vertices: IntArray, among: IntArray) -> tuple[FloatArray, IntArray]:
    from scipy.spatial import cKDTree

    places_mm = fsaverage5(side).places_mm
    distance_mm, nearest = cKDTree(places_mm[among]).query(places_mm[vertices])
    return np.asarray(distance_mm), np.asarray(nearest)


@lru_cache(maxsize=1)
def picture() -> IntArray:
    """The vertex that each pixel of the four views shows, (HEIGHT, 4 x WIDTH); NOWHERE beside the brain.

    Faces are painted from far to near, each by points closer to each other than pixels are.
    """
    a, b = np.meshgrid(np.arange(_SAMPLES_PER_EDGE + 1), np.arange(_SAMPLES_PER_EDGE + 1))
    inside = a + b <= _SAMPLES_PER_EDGE
    weights = np.stack([a[inside], b[inside], _SAMPLES_PER_EDGE - a[inside] - b[inside]], axis=1) / _SAMPLES_PER_EDGE
    whose = weights.argmax(axis=1)
    views = []
    for side, view in VIEWS:
        faces, corners = seen_from(side, view)
        points = weights @ corners.reshape(-1, 3, 2)
        low, high = corners.min(axis=0), corners.max(axis=0)
        scale = min((WIDTH - 9) / (high[0] - low[0]), (HEIGHT - 9) / (high[1] - low[1]))
        x = (points[..., 0] - (low[0] + high[0]) / 2) * scale + WIDTH / 2
        y = HEIGHT / 2 - (points[..., 1] - (low[1] + high[1]) / 2) * scale
        shown = np.full((HEIGHT, WIDTH), NOWHERE)
        vertices = faces[:, whose] + N_VERTICES * (side == "right")
        shown[y.astype(np.int64).ravel(), x.astype(np.int64).ravel()] = vertices.ravel()  # of two the later one stays
        views.append(shown)
    return np.concatenate(views, axis=1)


def runs_of(shown: IntArray) -> tuple[IntArray, IntArray]:
    """Lengths of the stretches of pixels that show one vertex, line after line, and these vertices."""
    pixels = shown.ravel()
    starts = np.flatnonzero(np.diff(pixels, prepend=-1))
    return np.diff(starts, append=len(pixels)), pixels[starts]
