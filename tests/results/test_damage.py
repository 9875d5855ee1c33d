"""Nothing of a run that was changed after it was written is used: records, results, tables, exports."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from brainlit.downstream.result import load_npz, save_npz
from brainlit.encoding.result import ProbeResult
from brainlit.files import CONTENTS, write_contents
from brainlit.guard import UnreadableFileError
from brainlit.results.layer_curve import CurveRow, read_curve, write_curve
from brainlit.results.record import load_record, record_files
from brainlit.results.run_directory import RunDirectory
from brainlit.weight_files import folder_damage
from tests.flips import Outcome, flip_each


def plain(value: object) -> object:
    """Values that compare bit for bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return repr(value)


def judged(outcome: Outcome, path: Path) -> None:
    assert outcome.silent == []
    assert outcome.refused
    for error in outcome.refused:
        assert isinstance(error, UnreadableFileError), repr(error)
        assert str(path) in str(error)


@pytest.fixture
def record(run: RunDirectory, tmp_path: Path) -> Path:
    return Path(shutil.copy(record_files(run.probes)[0], tmp_path / "epoch-000.h5"))


def test_no_flipped_bit_of_a_record_is_used(record: Path) -> None:
    def read() -> object:
        found = load_record(record)
        rows = [(row.region, row.layer, row.metric, row.n_voxels, row.score.value, row.score.replicates) for row in
                found.table.rows]  # fmt: skip
        return plain(vars(found) | {"table": None}), [[plain(cell) for cell in row] for row in rows]

    judged(flip_each(record, read, n=60), record)


def test_no_flipped_bit_of_a_result_is_used(record: Path) -> None:
    judged(flip_each(record, lambda: plain(vars(ProbeResult.load(record))), n=40, seed=1), record)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", bytes(4096), b'{"r": 1}'])
def test_what_is_no_record_is_named(record: Path, content: bytes) -> None:
    record.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"epoch-000\.h5 is not the record of a probe: .* Probe again"):
        load_record(record)


def test_no_flipped_bit_of_a_task_is_used(tmp_path: Path) -> None:
    path = save_npz(
        tmp_path / "task.npz", {"task": "words"}, {"scores": np.arange(6.0), "labels": np.array(["a", "b"])}
    )
    judged(flip_each(path, lambda: [plain(part) for part in load_npz(path, "task result")], n=300), path)


def test_a_curve_that_was_changed_is_refused(tmp_path: Path) -> None:
    rows = [CurveRow(epoch=0, step=0, layer=1, region="AC", r=0.25, low=None, high=None, n_voxels=8)]
    path = write_curve(tmp_path / "layers.csv", rows)
    assert read_curve(path) == rows
    path.write_text(path.read_text().replace("0.25", "0.75"))
    with pytest.raises(UnreadableFileError, match=r"layers\.csv is not a curve of layers: it was damaged or changed"):
        read_curve(path)


def test_an_export_that_was_changed_is_named(tmp_path: Path) -> None:
    """safetensors has no checksum of its own."""
    (tmp_path / "config.json").write_text("{}")
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    write_contents(tmp_path, {})
    (tmp_path / "README.md").write_text("my words")
    assert folder_damage(tmp_path) is None
    for name in ("model.safetensors", "config.json"):
        outcome = flip_each(tmp_path / name, lambda: folder_damage(tmp_path), n=8)
        assert outcome.n_harmless == 0
    (tmp_path / "model.safetensors").unlink()
    assert "model.safetensors is missing; export" in str(folder_damage(tmp_path))
    (tmp_path / CONTENTS).write_text('{"files": {"../elsewhere": "0"}}')
    assert "names files that are none of the folder" in str(folder_damage(tmp_path))
