"""What `brainlit probe` looks at: a tuned model from its checkpoint, an untuned one, or features from a file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from brainlit.cli.errors import UsageError

if TYPE_CHECKING:
    from brainlit.backbones import BackboneConfig
    from brainlit.cli.probe_options import ProbeCLI
    from brainlit.encoding.roles import Span
    from brainlit.results.run_directory import RunDirectory

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
    run : mapping
        For the page: regime, model and so on.
    facts : mapping
        For the records.
    module : BrainTuning, or None for features
    features : mapping of layer to array of shape (n_rows, n_features), or None for a model
    partition_layer : int or None
        Which of the features is compared with the other bands.
    epoch, step : int
        Trained, behind a checkpoint.
    """

    folder: Path
    source: str
    run: Mapping[str, Any]
    facts: Mapping[str, Any]
    module: Any = None
    features: Mapping[int, Any] | None = None
    partition_layer: int | None = None
    epoch: int = 0
    step: int = 0


def from_features(cli: ProbeCLI, datamodule: Any, spans: Sequence[Span]) -> Probed:
    """Features of a file, checked against the store."""
    from brainlit.cli.probe_features import read_features
    from brainlit.store import sha256_of

    path = Path(cli.config.features)
    n_trs_of = {story: datamodule.store.n_trs(story) for story in datamodule.story_names}
    read = read_features(path, spans, n_trs_of)
    features, compared = asked_layers(read, cli.settings.layers, cli.settings.partition_layer)
    widths = ", ".join(f"{layer}: {values.shape[1]}" for layer, values in features.items())
    words = {"id": path.name, "regime": "features", "model": f"features of {path.name} (columns by layer: {widths})"}
    facts = {"features": str(path), "weights": sha256_of(path)[:20]}
    folder = path.with_name(f"{path.stem}-probe")
    return Probed(folder, "features", words, facts, features=features, partition_layer=compared)


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


def from_model(cli: ProbeCLI, datamodule: Any, checkpoint: Path | None, run: RunDirectory | None) -> Probed:
    """The model of a checkpoint (of a run, where it has one), else the untuned one of the options; on its device."""
    import torch

    probed = _untuned(cli) if checkpoint is None else _tuned(datamodule, checkpoint, run)
    _require_short_windows(probed.module.backbone, datamodule)
    probed.module.to("cuda" if torch.cuda.is_available() else "cpu")
    return probed


def _untuned(cli: ProbeCLI) -> Probed:
    from brainlit.backbones import BackboneConfig
    from brainlit.callbacks.probe import weights_hash
    from brainlit.tuning import BrainTuning
    from brainlit.tuning.settings import rebuilt

    config = rebuilt(BackboneConfig, cli.resolved["model"]["backbone"])
    module = BrainTuning(backbone=config).eval()
    name = folder_name(config)
    words = {"id": name, "regime": "pretrained", "regime_words": "pretrained: not tuned", "model": _words_of(module)}
    return Probed(RUNS / name, "model", words, {"weights": weights_hash(module)}, module)


def folder_name(config: BackboneConfig) -> str:
    """Family and weights of a model without a run, as the name of its folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{config.family}-{config.weights}").strip("-.")


def _tuned(datamodule: Any, checkpoint: Path, run: RunDirectory | None) -> Probed:
    from brainlit.callbacks.probe import weights_hash
    from brainlit.results.run_directory import read_json
    from brainlit.results.summary import RUN_FILE
    from brainlit.tuning import load_tuned
    from brainlit.tuning.checkpoint import read_content

    content = read_content(checkpoint)
    warnings = refuse_tuned_rows(datamodule, content.get("StoryDataModule", {}))
    module = load_tuned(checkpoint)
    said = read_json(run.path / RUN_FILE) if run is not None and (run.path / RUN_FILE).is_file() else {}
    words: dict[str, Any] = {
        key: said[key] for key in ("regime", "regime_words", "control", "training", "tune") if key in said
    }
    words |= {"id": checkpoint.name, "model": _words_of(module)}
    if run is not None:
        words |= {"experiment": f"probe of {run.experiment}/{run.run_id}"}
    facts = {"checkpoint": str(checkpoint), "weights": weights_hash(module), "warnings": warnings}
    folder = (
        run.path / f"probe-{checkpoint.stem}" if run is not None else checkpoint.with_name(f"{checkpoint.stem}-probe")
    )
    epoch, step = int(content["epoch"]) + 1, int(content["global_step"])
    return Probed(folder, "checkpoint", words, facts, module, epoch=epoch if step else 0, step=step)


def refuse_tuned_rows(datamodule: Any, tuned_on: Mapping[str, Any]) -> list[str]:
    """Refuse to fit or score on rows that the model was tuned on; a warning about names alike in other data.

    Raises
    ------
    LeakError
    """
    from brainlit.callbacks.held_out import more_facts
    from brainlit.encoding.roles import LeakError, parse_span

    tuned = [str(text) for text in tuned_on.get("tune", [])]
    if tuned_on.get("store_fingerprint") != datamodule.store.fingerprint:
        return list(more_facts(datamodule, [text.partition("[")[0] for text in tuned])["warnings"])
    roles, n_trs_of = datamodule.roles, {name: datamodule.store.n_trs(name) for name in datamodule.story_names}
    for span in (parse_span(text, n_trs_of) for text in tuned):
        for role in ("fit", "score"):
            if {"tune", role} in [set(words.split(" and ")) for words in roles.allow]:
                continue
            for other in roles.spans(role):
                if span.story == other.story and span.gap_trs(other) < max(roles.purge_trs, 1):
                    raise LeakError(
                        f"the model was tuned on {span}, and {other} ({role}) is that or too near to it (purge_trs"
                        f" {roles.purge_trs}). Probe on other stories, or say so: --data.allow ['tune and {role}']."
                    )
    return []


def _require_short_windows(backbone: Any, datamodule: Any) -> None:
    from brainlit.callbacks.held_out import window_samples

    most, n_samples = backbone.max_samples, max(window_samples(datamodule))
    if most is not None and n_samples > most:
        rate_hz = backbone.sample_rate_hz
        raise UsageError(
            f"the windows are {n_samples / rate_hz:g} s long, context included, and the backbone hears at most"
            f" {most / rate_hz:g} s; shorten them: --data.window.n_trs, --data.window.context_s."
        )


def _words_of(module: Any) -> str:
    backbone = module.backbone
    about, n = backbone.describe(), sum(parameter.numel() for parameter in backbone.parameters())
    size = f"{backbone.n_layers} layers of {backbone.hidden_size}, {n / 1e6:.2f} M parameters"
    return f"{about.get('family')} ({about.get('weights')}), {size}"
