"""Files of every kind that brainlit writes or reads, and the reader of each: what `faults` damages and reads again."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import soundfile

from brainlit.downstream.result import load_npz, save_npz
from brainlit.encoding.result import ProbeResult
from brainlit.features.vectors import read_word_vectors
from brainlit.files import CONTENTS, contents_damage, write_contents, write_csv
from brainlit.guard import UnreadableFileError, read_csv, read_yaml
from brainlit.results.record import find_records, load_record, record_files
from brainlit.results.run_directory import read_json, write_json_atomic
from brainlit.store import StoryStore, build_store
from brainlit.stories.readers.audio import read_audio
from brainlit.stories.readers.cleaning import read_confounds
from brainlit.stories.readers.images import read_series, read_values
from brainlit.stories.readers.tables import read_table
from brainlit.stories.readers.textgrid import read_textgrid
from brainlit.stories.readers.transcripts import read_word_table
from brainlit.weight_files import folder_damage
from tests.results.fake_run import fake_run
from tests.toy import ToySource

SMALL = {"n_trs": 6}


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Parameters
    ----------
    file : str
        Below the folder of all.
    make : function
        Writes it (and what it needs) into the folder.
    read : function
        What is read of a copy of it, as plain values; raises where that is refused.
    checked : str
        What tells damage; empty where nothing can, because the format has no checksum and the file is not ours.
    """

    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    checked: str


def digest(value: object) -> str:
    """Equal where two values are equal bit for bit."""
    return hashlib.sha256(repr(_plain(value)).encode()).hexdigest()


def _plain(value: Any) -> object:
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return [_plain(one) for one in value.ravel()]
        return value.dtype.str, value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, dict):
        return [(key, _plain(part)) for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return _plain(vars(value)) if hasattr(value, "__dict__") else repr(value)


# --- What brainlit writes ---


def _store(folder: Path) -> None:
    if not (folder / "store").exists():
        build_store(ToySource(**SMALL), folder / "store", progress=False).close()


def _read_story(file: Path) -> object:
    store = StoryStore.open(file.parents[1])
    try:
        name = file.stem
        clock = store.timebase(name)
        words, phones, spaces = store.words(name), store.phones(name), store.feature_spaces(name)
        timed = [store.timed(name, space.name) for space in spaces]
        audio = store.audio(name, 0, store.n_samples(name))
        return [clock.tr_starts_s, clock.tr_s, clock.sample_rate_hz, words, phones, spaces, timed, audio]
    finally:
        store.close()


def _read_subject(file: Path) -> object:
    store = StoryStore.open(file.parents[1])
    try:
        name, stories = file.stem, store.story_names
        rows = [store.responses(name, story) for story in stories] + [store.repeats(name, story) for story in stories]
        return [store.subject(name), store.good_voxels(name), rows]
    finally:
        store.close()


def _read_index(file: Path) -> object:
    store = StoryStore.open(file.parent)
    store.close()
    return repr(store.index)


def _run(folder: Path) -> None:
    if not (folder / "fake").exists():
        fake_run(folder, subjects=("sub-1",), epochs=(0,))
        path = folder / "fake" / "one"
        shutil.copy(record_files(path / "probes")[0], folder / "record.h5")
        assert find_records(path / "probes")


def _checkpoint(folder: Path) -> None:
    import torch

    content = {"state_dict": {f"w{k}": torch.randn(8, 8) for k in range(4)}, "global_step": 7, "epoch": 1}
    torch.save(content, folder / "last.ckpt")


def _read_checkpoint(file: Path) -> object:
    from brainlit.tuning.checkpoint import whole_checkpoint

    with whole_checkpoint(file) as content:
        pass
    return {**content, "state_dict": {name: value.numpy() for name, value in content["state_dict"].items()}}


def _export(folder: Path) -> None:
    from safetensors.numpy import save_file

    export = folder / "export"
    export.mkdir(exist_ok=True)
    (export / "config.json").write_text(json.dumps({"model_type": "wav2vec2", "brainlit": {"step": 7}}))
    save_file({"w": np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)}, export / "model.safetensors")
    write_contents(export, {})


def _read_export(file: Path) -> object:
    from safetensors.numpy import load_file

    damage = folder_damage(file.parent)
    if damage is not None:
        raise UnreadableFileError(f"{file}: {damage}")
    return load_file(file.parent / "model.safetensors"), read_json(file.parent / "config.json")


def _cache(folder: Path) -> None:
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    np.save(cache / "000-0000.npy", np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32))
    write_contents(cache, {"settings": {"seed": 0}})


def _read_cache(file: Path) -> object:
    damage = contents_damage(file.parent)
    if damage is not None:
        raise UnreadableFileError(f"{file}: {damage}; it is made again.")
    return np.load(file.parent / "000-0000.npy", mmap_mode="r")


def _read_reference(file: Path) -> object:
    from brainlit.callbacks.drift import load_reference

    return load_reference(file, "x")


def _table(file: Path) -> object:
    return read_csv(file, "a table", "Fetch it again.", "step")


OURS = {
    "store: story": Kind("store/stories/toy4.h5", _store, _read_story, "HDF5 1.10, Fletcher-32, CRC-32 of sound"),
    "store: subject": Kind("store/subjects/sub-A.h5", _store, _read_subject, "HDF5 1.10, Fletcher-32"),
    "store: store.json": Kind("store/store.json", _store, _read_index, "checksum in the file"),
    "run: probe record": Kind("record.h5", _run, load_record, "HDF5 1.10, Fletcher-32"),
    "run: probe result": Kind("record.h5", _run, ProbeResult.load, "HDF5 1.10, Fletcher-32"),
    "run: status.json": Kind("fake/one/status.json", _run, read_json, "checksum in the file"),
    "run: run.json": Kind(
        "run.json",
        lambda folder: write_json_atomic(folder / "run.json", {"seconds": 1.5, "layers": [1, 2], "regime": "brain"}),
        read_json,
        "checksum in the file",
    ),
    "run: metrics.csv": Kind(
        "metrics.csv",
        lambda folder: write_csv(folder / "metrics.csv", ["step", "val/loss"], [{"step": 1, "val/loss": 0.125}] * 9),
        _table,
        "checksum in the file",
    ),
    "run: downstream task": Kind(
        "task.npz",
        lambda folder: save_npz(folder / "task.npz", {"task": "words"}, {"scores": np.arange(40.0)}),
        lambda file: load_npz(file, "a task's result"),
        "CRC-32 of zip",
    ),
    "run: drift reference": Kind(
        "drift.npz",
        lambda folder: np.savez(folder / "drift.npz", what=np.array("x"), **{"layer-0": np.arange(40.0)}),  # type: ignore[arg-type]
        _read_reference,
        "CRC-32 of zip",
    ),
    "checkpoint": Kind("last.ckpt", _checkpoint, _read_checkpoint, "CRC-32 of zip"),
    "export: weights": Kind("export/model.safetensors", _export, _read_export, "SHA-256 in contents.json"),
    "export: config.json": Kind("export/config.json", _export, _read_export, "SHA-256 in contents.json"),
    "cache: array": Kind("cache/000-0000.npy", _cache, _read_cache, "SHA-256 in contents.json"),
    "cache: contents.json": Kind(f"cache/{CONTENTS}", _cache, _read_cache, "checksum in the file"),
}

# --- What others write ---


def _sound(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        rng = np.random.default_rng(0)
        soundfile.write(folder / name, rng.normal(0, 0.1, 4_000), 16_000)

    return make


def _image(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        values = np.random.default_rng(0).integers(-99, 99, (4, 5, 6, 7)).astype(np.int16)
        if name.endswith(".gii"):
            rows = [nib.gifti.GiftiDataArray(row.astype(np.float32)) for row in values.reshape(-1, 7).T]  # type: ignore[no-untyped-call]
            nib.save(nib.GiftiImage(darrays=rows), folder / name)  # type: ignore[no-untyped-call,attr-defined]
        else:
            nib.save(nib.Nifti1Image(values, np.eye(4)), folder / name)  # type: ignore[no-untyped-call,attr-defined]

    return make


def _rows() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((30, 7))


def _hdf5(folder: Path, checked: bool) -> None:
    with h5py.File(folder / ("checked.h5" if checked else "plain.h5"), "w") as file:
        file.create_dataset("data", data=_rows(), fletcher32=checked, chunks=(10, 7) if checked else None)


def _text(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


_GRID = '"ooTextFile"\n"TextGrid"\n0\n2\n<exists>\n1\n"IntervalTier"\n"word"\n0\n2\n2\n0\n1\n"a"\n1\n2\n"tale"\n'
_WORDS = "word\tonset\toffset\na\t0.1\t0.4\ntale\t0.5\t0.9\n"


def _read_words(file: Path) -> object:
    return read_word_table(file, "word", "onset", "offset", "\t")


THEIRS = {
    "wav": Kind("a.wav", _sound("a.wav"), read_audio, ""),
    "flac": Kind("a.flac", _sound("a.flac"), read_audio, "CRC of frames"),
    "nii": Kind("a.nii", _image("a.nii"), read_values, ""),
    "nii.gz": Kind("a.nii.gz", _image("a.nii.gz"), read_values, "CRC-32 of gzip"),
    "gii": Kind(
        "a.func.gii",
        _image("a.func.gii"),
        lambda file: read_series([file]),
        "Adler-32 of numbers, not of the text around",
    ),
    "h5": Kind("plain.h5", lambda folder: _hdf5(folder, False), read_table, ""),
    "h5, Fletcher-32": Kind("checked.h5", lambda folder: _hdf5(folder, True), read_table, "Fletcher-32, not structure"),
    "npz": Kind("a.npz", lambda folder: np.savez(folder / "a.npz", data=_rows()), read_table, "CRC-32 of zip"),
    "npy": Kind("a.npy", lambda folder: np.save(folder / "a.npy", _rows()), read_table, ""),
    "csv": Kind("a.csv", lambda folder: np.savetxt(folder / "a.csv", _rows(), delimiter=","), read_table, ""),
    "confounds": Kind(
        "confounds.tsv",
        _text("confounds.tsv", "trans_x\ttrans_y\n" + "0.1\t0.2\n" * 9),
        lambda file: read_confounds(file, ["trans_x"]),
        "",
    ),
    "TextGrid": Kind("a.TextGrid", _text("a.TextGrid", _GRID), read_textgrid, ""),
    "words": Kind("words.tsv", _text("words.tsv", _WORDS), _read_words, ""),
    "config": Kind("c.yaml", _text("c.yaml", "data:\n  root: a\n"), lambda file: read_yaml(file, "a config", ""), ""),
    "word vectors": Kind("glove.txt", _text("glove.txt", "a 0.1 0.2\ntale 1 2\n"), read_word_vectors, ""),
}
KINDS = {**OURS, **THEIRS}


def other_formats(folder: Path) -> dict[str, bytes]:
    """Contents that stand in for any file: nothing, text, a web page, zeros, and files of other formats."""
    np.savez(folder / "other.npz", a=np.arange(3.0))
    return {
        "emptied": b"",
        "text": b"This is no file.\n" * 9,
        "web page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "zeros": bytes(4096),
        "an archive": (folder / "other.npz").read_bytes(),
        "a gzip": gzip.compress(b"words"),
        "json": b'{"r": [1, 2, {"deep": ' + b"[" * 5000 + b"]" * 5000 + b"}]}",
        "not UTF-8": "Mädchen\t1\n".encode("utf-16"),
    }
