"""What `brainlit probe` looks at: a tuned model from its checkpoint, an untuned one, or features from a file.

Features that somebody else computed come from an HDF5 or npz file, and are checked against the store at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from brainlit.cli.errors import UsageError
from brainlit.cli.probe_options import ProbeCLI
from brainlit.encoding.arrays import Float32Array
from brainlit.guard import UnreadableFileError, file_guard, npz_headers
from brainlit.hints import did_you_mean, few
from brainlit.results.run_directory import RunDirectory
from brainlit.splits import Span

if TYPE_CHECKING:
    from brainlit.backbones import BackboneConfig
    from brainlit.datamodules import StoryDataModule
    from brainlit.probing.word_rows import HeardWords
    from brainlit.tuning import BrainTuning

RUNS = Path("runs") / "probe"
"""Where probes of models without a run go."""


@dataclass(frozen=True)
class Probed:
    """What is probed, in words for the page and with facts for the records.

    Parameters
    ----------
    folder : Path
        Where to write where no option says so.
    source : 'checkpoint', 'model' or 'features'
    run, facts : mapping
        For the page (regime, model and so on), and for the records.
    module : BrainTuning, or None for features
    features : mapping of layer to array of shape (n_rows, n_features), or None for a model
    partition_layer : int or None
        Which of the features is compared with the other bands.
    epoch, step : int
        Trained, behind a checkpoint.
    heard : HeardWords or None
        The words of the stories that the model was tuned on, or, where it was not tuned, of those that the data have
        for it; None where they are not known.
    """

    folder: Path
    source: str
    run: Mapping[str, Any]
    facts: Mapping[str, Any]
    module: BrainTuning | None = None
    features: Mapping[int, Float32Array] | None = None
    partition_layer: int | None = None
    epoch: int = 0
    step: int = 0
    heard: HeardWords | None = None


def from_features(cli: ProbeCLI, datamodule: StoryDataModule, spans: Sequence[Span]) -> Probed:
    """Features of a file, checked against the store."""
    from brainlit.files import sha256_of

    path = Path(cli.config.features)
    n_trs_of = {story: datamodule.store.n_trs(story) for story in datamodule.story_names}
    read = read_features(path, spans, n_trs_of)
    features, compared = asked_layers(read, cli.settings.layers, cli.settings.partition_layer)
    widths = ", ".join(f"{layer}: {values.shape[1]}" for layer, values in features.items())
    words = {"id": path.name, "regime": "features", "model": f"features of {path.name} (columns by layer: {widths})"}
    facts = {"features": str(path), "weights": sha256_of(path)[:20]}
    folder = path.with_name(f"{path.stem}-probe")
    heard = words_tuned_on(datamodule, datamodule.not_tuned_on)
    return Probed(folder, "features", words, facts, features=features, partition_layer=compared, heard=heard)


def asked_layers(
    features: Mapping[int, Any], asked: Literal["all"] | Sequence[int], partition_layer: int
) -> tuple[dict[int, Any], int]:
    """The layers of the curve, and which one is compared; negative numbers count the file's layers from the end."""
    there = sorted(features)

    def number(layer: int) -> int:
        if layer not in features and not -len(there) <= layer < 0:
            raise UsageError(f"layer {layer} does not exist: the file has the layers {', '.join(map(str, there))}.")
        return there[layer] if layer < 0 else layer

    compared = number(partition_layer)
    curve = {compared, *(number(layer) for layer in (there if asked == "all" else asked))}
    return {layer: features[layer] for layer in sorted(curve)}, compared


def from_model(cli: ProbeCLI, datamodule: StoryDataModule, checkpoint: Path | None, run: RunDirectory | None) -> Probed:
    """The model of a checkpoint (of a run, where it has one), else the untuned one of the options; on its device."""
    import torch

    from brainlit.callbacks.held_out import too_long_words

    probed = _untuned(cli, datamodule) if checkpoint is None else _tuned(datamodule, checkpoint, run)
    assert probed.module is not None
    if words := too_long_words(datamodule, probed.module.backbone):
        raise UsageError(f"the windows are {words}; shorten them: --data.window.n_trs, --data.window.context_s.")
    probed.module.to("cuda" if torch.cuda.is_available() else "cpu")
    return probed


def _untuned(cli: ProbeCLI, datamodule: StoryDataModule) -> Probed:
    from brainlit.backbones import BackboneConfig
    from brainlit.callbacks.report import model_words
    from brainlit.probing.inputs import weights_hash
    from brainlit.tuning import BrainTuning
    from brainlit.tuning.settings import rebuilt

    config = rebuilt(BackboneConfig, cli.resolved["model"]["backbone"])
    module = BrainTuning(backbone=config).eval()
    name = folder_name(config)
    words = {"id": name, "regime": "pretrained", "regime_words": "pretrained: not tuned"}
    words["model"] = model_words(module.backbone)
    heard = words_tuned_on(datamodule, datamodule.not_tuned_on)
    return Probed(RUNS / name, "model", words, {"weights": weights_hash(module)}, module, heard=heard)


def folder_name(config: BackboneConfig) -> str:
    """Family and weights of a model without a run, as the name of its folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{config.family}-{config.named}").strip("-.")


def _tuned(datamodule: StoryDataModule, checkpoint: Path, run: RunDirectory | None) -> Probed:
    from brainlit.callbacks.report import model_words
    from brainlit.probing.inputs import weights_hash
    from brainlit.probing.word_rows import tuning_words
    from brainlit.results.record import tuned_facts
    from brainlit.results.run_directory import read_json
    from brainlit.results.summary import RUN_FILE
    from brainlit.tuning import load_tuned
    from brainlit.tuning.checkpoint import read_content

    content = read_content(checkpoint)
    tuned_on = content.get("StoryDataModule", {})
    warnings = refuse_tuned_rows(datamodule, tuned_on)
    spans = tuned_spans(datamodule, tuned_on)
    module = load_tuned(checkpoint)
    said = read_json(run.path / RUN_FILE) if run is not None and (run.path / RUN_FILE).is_file() else {}
    kept = ("regime", "regime_words", "control", "training", "tune")
    words: dict[str, Any] = {key: said[key] for key in kept if key in said}
    words |= {"id": checkpoint.name, "model": model_words(module.backbone)}
    folder = checkpoint.with_name(f"{checkpoint.stem}-probe")
    if run is not None:
        words |= {"experiment": f"probe of {run.experiment}/{run.run_id}"}
        folder = run.path / f"probe-{checkpoint.stem}"
    facts = {"checkpoint": str(checkpoint), "weights": weights_hash(module), "warnings": warnings}
    facts |= tuned_facts(datamodule.roles.spans("fit"), spans)
    epoch, step = int(content["epoch"]) + 1, int(content["global_step"])
    heard = tuning_words(datamodule, spans)
    return Probed(folder, "checkpoint", words, facts, module, epoch=epoch if step else 0, step=step, heard=heard)


def words_tuned_on(datamodule: StoryDataModule, spans: Sequence[str]) -> HeardWords | None:
    """The words of spans as they are written; None where there are none, or a story is not in the store."""
    from brainlit.probing.word_rows import tuning_words

    if not {span.partition("[")[0].strip() for span in spans} <= set(datamodule.story_names):
        return None
    return tuning_words(datamodule, _parsed(datamodule, spans))


def tuned_spans(datamodule: StoryDataModule, tuned_on: Mapping[str, Any]) -> list[Span]:
    """What a model was tuned on, as spans of these data; of other data nothing is known here."""
    if tuned_on.get("store_fingerprint") != datamodule.store.fingerprint:
        return []
    return _parsed(datamodule, tuned_on.get("tune", []))


def _parsed(datamodule: StoryDataModule, spans: Iterable[Any]) -> list[Span]:
    """Spans of stories of these data, as they are written."""
    from brainlit.splits import parse_span

    n_trs_of = {name: datamodule.store.n_trs(name) for name in datamodule.story_names}
    return [parse_span(str(text), n_trs_of) for text in spans]


def refuse_tuned_rows(datamodule: StoryDataModule, tuned_on: Mapping[str, Any]) -> list[str]:
    """Refuse to fit or score on rows that the model was tuned on; a warning about names alike in other data.

    Raises
    ------
    LeakError
    """
    from brainlit.callbacks.held_out import more_facts
    from brainlit.splits import LeakError

    tuned = [str(text) for text in tuned_on.get("tune", [])]
    if tuned_on.get("store_fingerprint") != datamodule.store.fingerprint:
        return list(more_facts(datamodule, [text.partition("[")[0] for text in tuned])["warnings"])
    roles = datamodule.roles
    for span in tuned_spans(datamodule, tuned_on):
        for role in ("fit", "score"):
            if roles.allows("tune", role):
                continue
            for other in roles.spans(role):
                if span.story == other.story and span.gap_trs(other) < max(roles.purge_trs, 1):
                    raise LeakError(
                        f"the model was tuned on {span}, and {other} ({role}) is that or too near to it (purge_trs"
                        f" {roles.purge_trs}). Probe on other stories, or say so: --data.allow ['tune and {role}']."
                    )
    return []


# --- Files of features ---


Read = Callable[[str], Any]
Header = tuple[tuple[int, ...], Any]
"""Shape and dtype, known before anything is read."""

HDF5, NPZ = (".h5", ".hdf5"), (".npz",)
_LAYER = re.compile(r"layer-(\d+)/(.+)")
_NAMING = "Name each array as its story, or, for several layers in the file, layer-<k>/<story>: layer-9/sloth."


class FeatureFileError(UnreadableFileError):
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
    if path.is_dir():
        there = sorted(one.name for one in path.iterdir())
        raise FeatureFileError(f"{path} is a folder ({few(there, 5) or 'empty'}); features are one file. {_NAMING}")
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
        with file_guard(path, "a file of features", "Write it again."):
            headers = {name: (file[name].shape or (), file[name].dtype) for name in names}
            return _gathered(path, headers, lambda name: file[name][()], spans, n_trs_of)


def _read_npz(path: Path, spans: Sequence[Span], n_trs_of: Mapping[str, int]) -> dict[int, Float32Array]:
    what, cure = "an npz file of plain arrays", "Write it with np.savez."
    headers = npz_headers(path, what, cure)
    with file_guard(path, what, cure), np.load(path, allow_pickle=False) as arrays:
        return _gathered(path, headers, lambda name: arrays[name], spans, n_trs_of)


def _gathered(
    path: Path, headers: Mapping[str, Header], read: Read, spans: Sequence[Span], n_trs_of: Mapping[str, int]
) -> dict[int, Float32Array]:
    layers = _by_layer(path, list(headers))
    stories = list(dict.fromkeys(span.story for span in spans))
    features = {}
    for layer, named in sorted(layers.items()):
        where = f"layer {layer} of {path}" if len(layers) > 1 else str(path)
        values = {story: _checked(where, story, named, headers, read, n_trs_of[story]) for story in stories}
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
        raise FeatureFileError(f"{path} holds {other!r} beside {few(list(layered)) or 'nothing'}. {_NAMING}")
    if not layered:
        return {0: {name: name for name in names}}
    layers: dict[int, dict[str, str]] = {}
    for name, match in layered.items():
        layers.setdefault(int(match[1]), {})[match[2]] = name
    return layers


def _checked(
    where: str, story: str, named: Mapping[str, str], headers: Mapping[str, Header], read: Read, n_trs: int
) -> Float32Array:
    if story not in named:
        raise FeatureFileError(f"{where} has no features of {story!r}. {did_you_mean(story, named)} {_NAMING}")
    shape, dtype = headers[named[story]]
    if dtype.kind not in "fiub":
        raise FeatureFileError(f"{where}: the features of {story!r} are {dtype}; write real numbers.")
    if len(shape) != 2 or shape[0] != n_trs:
        raise FeatureFileError(
            f"{where}: the features of {story!r} have shape {shape}, and the store has {n_trs} TRs of it; need"
            f" ({n_trs}, n_features), a row per TR."
        )
    values = np.asarray(read(named[story]))
    if not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        raise FeatureFileError(
            f"{where}: the features of {story!r} are not finite in {len(rows)} of {n_trs} rows, the first being row"
            f" {rows[0]}; write 0 where there is nothing."
        )
    return values.astype(np.float32)
