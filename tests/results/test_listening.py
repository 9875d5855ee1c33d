"""The page that moves with a sound: what its script reads is what was predicted, and it needs nothing from outside."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from brainlit.results import listening
from brainlit.results.brainmap import N_VERTICES, VIEWS, fsaverage5, surface_values
from brainlit.results.listening import NOWHERE, in_bytes, listening_page, picture, runs_of, vertex_columns
from brainlit.results.predictions import PredictedListener, PredictedSound
from brainlit.results.tables import SIMULATED
from brainlit.stories.base import Subject

RNG = np.random.default_rng(0)
VERTICES = RNG.permutation(2 * N_VERTICES)[:40]
SAMPLES = (3000 * RNG.standard_normal(16_000 * 8)).astype(np.int16)


def _listener(name: str = "p<1>", vertices: np.ndarray | None = VERTICES, n_trs: int = 4) -> PredictedListener:
    masks = {"ear": np.arange(40) < 20}
    rows = RNG.standard_normal((n_trs, 39)).astype(np.float32)
    return PredictedListener(Subject(name, 40, masks, vertices), np.arange(1, 40), rows)


def _sound(*listeners: PredictedListener) -> PredictedSound:
    return PredictedSound("bell & book", 2.0, listeners, [SIMULATED, "What it is."], {"sound": "bell.wav"})


def _data(page: str) -> Any:
    match = re.search(r"^const data = (.*);$", page, re.MULTILINE)
    assert match
    return json.loads(match[1])


def _array(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=dtype)


def test_a_pixel_shows_the_vertex_that_lies_there() -> None:
    views = np.split(picture(), len(VIEWS), axis=1)
    for (side, view), shown in zip(VIEWS, views, strict=True):
        seen = shown != NOWHERE
        assert 0.5 < seen.mean() < 0.9
        vertices = shown[seen] - N_VERTICES * (side == "right")
        assert 0 <= vertices.min() <= vertices.max() < N_VERTICES
        # Front and up, seen from the left or from the right: places and pixels go together in a straight line.
        y, x = np.nonzero(seen)
        places = fsaverage5(side).shape_mm[vertices]
        toward = 1.0 if (side == "left") == (view == "lateral") else -1.0
        assert np.corrcoef(x, -toward * places[:, 1])[0, 1] > 0.999
        assert np.corrcoef(y, -places[:, 2])[0, 1] > 0.999
        outer = places[:, 0] * (-1 if side == "left" else 1)
        assert (np.median(outer) > np.median(fsaverage5(side).shape_mm[:, 0]) * (-1 if side == "left" else 1)) == (
            view == "lateral"
        )


def test_runs_make_the_picture_again() -> None:
    lengths, vertices = runs_of(picture())
    assert np.array_equal(np.repeat(vertices, lengths), picture().ravel())
    assert lengths.max() < 2**16
    assert len(lengths) < picture().size / 4
    lengths, vertices = runs_of(np.array([[5, 5], [5, 7]]))
    assert (lengths.tolist(), vertices.tolist()) == ([3, 1], [5, 7])


def test_bytes_have_zero_in_the_middle() -> None:
    assert in_bytes(np.array([-9.0, -2.0, 0.0, 1.0, 2.0, 9.0]), 2.0).tolist() == [1, 1, 128, 192, 255, 255]


def test_every_vertex_near_a_voxel_shows_it() -> None:
    listener = _listener()
    columns, values = vertex_columns(listener, 10**9)
    places = VERTICES[1:]
    both = np.concatenate([surface_values(side, places, listener.rows) for side in ("left", "right")], axis=1)
    known = np.isfinite(both[0])
    assert np.array_equal(columns != NOWHERE, known)
    np.testing.assert_array_equal(values[:, columns[known]], both[:, known])


def test_a_long_sound_has_a_coarser_map() -> None:
    everywhere = np.arange(2 * N_VERTICES)
    rows = np.stack([everywhere, 2 * everywhere]).astype(np.float32)
    listener = PredictedListener(Subject("p1", len(everywhere), vertices=everywhere), everywhere, rows)
    columns, values = vertex_columns(listener, 12_000)
    assert values.shape == (2, 2 * 2_562)
    assert (columns != NOWHERE).all()
    for first in (0, N_VERTICES):
        assert np.array_equal(values[0, columns[first : first + 2_562]], first + np.arange(2_562)), (
            "kept are themselves"
        )
    places = np.concatenate([fsaverage5(side).places_mm for side in ("left", "right")])
    shown = values[0, columns].astype(int)
    assert np.linalg.norm(places - places[shown], axis=1).max() <= 15
    assert (shown < N_VERTICES).tolist() == (everywhere < N_VERTICES).tolist()


def test_the_page_holds_the_sound_and_what_was_predicted(tmp_path: Path) -> None:
    listeners = _listener(), _listener("p2")
    page, beside = listening_page(_sound(*listeners), SAMPLES)
    assert beside is None
    assert page.index('class="badge control listeners">' + SIMULATED) < page.index("What it is.")
    assert "bell &amp; book" in page
    assert "p&lt;1&gt;" in page
    assert "<1>" not in page
    match = re.search(r'src="data:audio/mpeg;base64,([^"]+)"', page)
    assert match
    (tmp_path / "sound.mp3").write_bytes(base64.b64decode(match[1]))
    heard, rate_hz = soundfile.read(tmp_path / "sound.mp3")
    assert rate_hz == 16_000
    assert abs(len(heard) - len(SAMPLES)) <= 1_152, "a frame of MPEG"
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == [], "nothing from outside"
    assert "url(" not in page.split("<script>")[0].replace("url(#", "")
    assert "mean over the voxels of a region (n: ear 19, all voxels 39)" in page
    ear = listeners[1].rows[:, :19].mean(axis=1)
    assert (
        f"Predicted time courses of subject p2, in z: ear from {ear.min():+.2f} to {ear.max():+.2f}; all voxels" in page
    )
    data = _data(page)
    assert (data["tr_s"], data["n_rows"], len(data["maps"])) == (2.0, 4, 2)
    assert (_array(data["lengths"], "<u2").sum(), len(_array(data["folds"], "u1"))) == (
        data["width"] * data["height"],
        2 * N_VERTICES,
    )
    limit = listening.colour_limit(listeners)
    for listener, drawn in zip(listeners, data["maps"], strict=True):
        columns, values = _array(drawn["columns"], "<u2"), _array(drawn["values"], "u1").reshape(4, -1)
        assert np.array_equal(values[:, columns[VERTICES[1:]]], in_bytes(listener.rows, limit))
    assert all(0 < left < right <= 1 for left, right in data["curve_ends"])
    assert len(_array(data["colours"], "u1")) == 3 * 255


def test_a_long_sound_lies_beside_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "MOST_SOUND_BYTES", 1_000)
    monkeypatch.setattr(listening, "curve_of", lambda *_: (Undrawn, [0.1, 0.9]))
    path = listening.write_listening(tmp_path, _sound(_listener()), SAMPLES)
    page = path.read_text(encoding="utf-8")
    assert 'src="sound.mp3"' in page
    assert "The sound is sound.mp3, beside this page." in page
    assert soundfile.info(tmp_path / "sound.mp3").samplerate == 16_000


def test_without_places_there_are_curves_and_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "curve_of", lambda *_: (Undrawn, [0.1, 0.9]))
    page, _ = listening_page(_sound(_listener(vertices=None)), SAMPLES)
    assert "<canvas" not in page
    assert "maps" not in _data(page)
    assert Undrawn.alt in page


class Undrawn:
    """A figure that nobody has drawn."""

    address, alt, caption = "data:image/svg+xml;base64,", "what it shows", "what it is of"
