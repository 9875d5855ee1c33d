"""Features that somebody else computed, from an HDF5 or npz file, checked against the store at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from brainlit.encoding.roles import Span
from brainlit.hints import did_you_mean

Float32Array = npt.NDArray[np.float32]
Read = Callable[[str], Any]

HDF5, NPZ = (".h5", ".hdf5"), (".npz",)
_LAYER = re.compile(r"layer-(\d+)/(.+)")


class FeatureFileError(ValueError):
    """A file of features that does not fit the data."""


def read_features(path: Path, spans: Sequence[Span], n_trs_of: Mapping[str, int]) -> dict[int, Float32Array]:
    """The rows of the spans, in their order, of each layer in the file.

    Parameters
    ----------
    path : Path
        .h5, .hdf5 or .npz with one array (n_trs, n_features) per story, named as the story; or several layers,
        `layer-<k>/<story>`. Stories that no span needs may be there or not.
    spans : sequence of Span
        What is fitted and scored.
    n_trs_of : mapping of story to its number of rows in the store

    Returns
    -------
    dict of layer to float32 array of shape (n_rows_of_all_spans, n_features)
        Layer 0 where the file has no layers.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FeatureFileError
        If it cannot be read, a story is missing, or an array has other rows than the store, is not numeric or finite.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of features {path}.")
    if path.suffix in HDF5:
        return _read_hdf5(path, spans, n_trs_of)
    if path.suffix in NPZ:
        return _read_npz(path, spans, n_trs_of)
    raise FeatureFileError(f"{path} ends in {path.suffix!r}; features are read from .h5, .hdf5 or .npz.")


def _read_hdf5(path: Path, spans: Sequence[Span], n_trs_of: Mapping[str, int]) -> dict[int, Float32Array]:
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FeatureFileError(f"{path} is no HDF5 file that can be read ({error}). Write it again.") from error
    with file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        return _gathered(path, names, lambda name: file[name][()], spans, n_trs_of)


def _read_npz(path: Path, spans: Sequence[Span], n_trs_of: Mapping[str, int]) -> dict[int, Float32Array]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _gathered(path, list(arrays.files), lambda name: arrays[name], spans, n_trs_of)
    except FeatureFileError:
        raise
    except (BadZipFile, EOFError, ValueError) as error:
        raise FeatureFileError(f"{path} is no npz file of plain arrays ({error}). Write it with np.savez.") from error


def _gathered(
    path: Path, names: Sequence[str], read: Read, spans: Sequence[Span], n_trs_of: Mapping[str, int]
) -> dict[int, Float32Array]:
    layers = _by_layer(path, names)
    stories = list(dict.fromkeys(span.story for span in spans))
    features = {}
    for layer, named in sorted(layers.items()):
        where = f"layer {layer} of {path}" if len(layers) > 1 else str(path)
        values = {story: _checked(where, story, named, read, n_trs_of[story]) for story in stories}
        widths = {story: array.shape[1] for story, array in values.items()}
        if len(set(widths.values())) > 1:
            said = ", ".join(f"{story} {width}" for story, width in widths.items())
            raise FeatureFileError(f"{where} has other numbers of features by story ({said}); give all the same ones.")
        features[layer] = np.concatenate([values[span.story][span.start_tr : span.stop_tr] for span in spans])
    return features


def _by_layer(path: Path, names: Sequence[str]) -> dict[int, dict[str, str]]:
    """Layer to story to name in the file."""
    matches = {name: _LAYER.fullmatch(name) for name in names}
    layered = {name: match for name, match in matches.items() if match is not None}
    if not names or (layered and len(layered) < len(names)):
        other = next((name for name in names if name not in layered), "nothing")
        raise FeatureFileError(
            f"{path} holds {other!r}; name all arrays <story>, or, with several layers, all layer-<k>/<story>."
        )
    if not layered:
        return {0: {name: name for name in names}}
    layers: dict[int, dict[str, str]] = {}
    for name, match in layered.items():
        layers.setdefault(int(match[1]), {})[match[2]] = name
    return layers


def _checked(where: str, story: str, named: Mapping[str, str], read: Read, n_trs: int) -> Float32Array:
    if story not in named:
        raise FeatureFileError(f"{where} has no features of {story!r}. {did_you_mean(story, named)}")
    values = np.asarray(read(named[story]))
    if values.dtype.kind not in "fiub":
        raise FeatureFileError(f"{where}: the features of {story!r} are {values.dtype}; write real numbers.")
    if values.ndim != 2 or len(values) != n_trs:
        raise FeatureFileError(
            f"{where}: the features of {story!r} have shape {values.shape}, and the store has {n_trs} TRs of it; need"
            f" ({n_trs}, n_features), a row per TR."
        )
    if not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        raise FeatureFileError(
            f"{where}: the features of {story!r} are not finite in {len(rows)} of {n_trs} rows, the first being row"
            f" {rows[0]}; write 0 where there is nothing."
        )
    return values.astype(np.float32)
