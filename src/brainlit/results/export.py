"""A tuned model as a folder that transformers loads without brainlit, with a card that says what it is."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainlit import __version__
from brainlit.files import only_writer, sha256_of, share, temporary_beside, to_disk, write_contents
from brainlit.guard import read_json
from brainlit.results.model_card import CardFacts, base_model, model_card
from brainlit.results.run_directory import PROVENANCE_FILE, STATUS_FILE, RunDirectory, read_json_if_there
from brainlit.results.summary import RUN_FILE, SUMMARY_FILE, build_summary
from brainlit.weight_files import without_bars

if TYPE_CHECKING:
    from brainlit.backbones import SpeechBackbone
    from brainlit.tuning import BrainTuning


log = logging.getLogger(__name__)

CONFIG_KEY = "brainlit"
"""Entry of config.json that says where the weights come from; transformers keeps it and does nothing with it."""


class ExportError(RuntimeError):
    """A model that cannot be exported, or not to this folder."""


def export_model(
    checkpoint: Path | str, output: Path | str, run: RunDirectory | Path | str | None = None, overwrite: bool = False
) -> Path:
    """Write a folder with config.json, model.safetensors, preprocessor_config.json and README.md; returns its path.

    contents.json has the SHA-256 of the others but README.md, and is compared when brainlit loads the folder.

    README.md is the model card. The whole published model is written, with LoRA merged into it; the voxel head is not
    part of it. Nothing but the checkpoint is needed: neither the weights that tuning started from, nor the data, nor a
    network.

    Parameters
    ----------
    checkpoint : path
        Of BrainTuning.
    output : path
        The folder; there whole or not at all. An earlier export of the same checkpoint is written again.
    run : RunDirectory or path, optional
        Where the card's numbers come from; by default the run whose folder checkpoints/ holds the checkpoint, if any.
    overwrite : bool
        Replace the export of another checkpoint, too; a folder that is no export is never touched.

    Raises
    ------
    FileNotFoundError
        If there is no such checkpoint.
    CheckpointError
        If it was not written by BrainTuning.
    ExportError
        If the folder holds something else, or cannot be written.
    """
    from brainlit.tuning import load_tuned

    checkpoint, output = Path(checkpoint), Path(output)
    if not checkpoint.is_file():
        raise FileNotFoundError(f"there is no checkpoint {checkpoint}. Look into the run's folder checkpoints/.")
    digest = sha256_of(checkpoint)
    _check_output(output, digest, overwrite)
    about = _what_it_says(checkpoint)
    module = load_tuned(checkpoint)
    if lacks := module.backbone.origin.get("lacks"):
        log.warning(
            "the weights that tuning started from had no %s; in the export it is random, and for recognition it has to"
            " be taken from the published model",
            " and ".join(lacks),
        )
    facts = _card_facts(module, _run_of(checkpoint, run), {**about, "sha256": digest})
    _make_parent(output)
    with only_writer(output), _whole_folder(output) as folder:
        _merge_lora(module.backbone)
        module.backbone.model.config.update({CONFIG_KEY: _provenance(facts)})
        with without_bars():
            module.backbone.model.save_pretrained(folder)
        feature_extractor(module.backbone).save_pretrained(folder)
        write_contents(folder, {})
        (folder / "README.md").write_text(model_card(facts), encoding="utf-8")
    return output


@dataclass(frozen=True)
class Upload:
    """A model of the Hugging Face hub that an export goes to.

    Parameters
    ----------
    repo : str
        'user/name'.
    public : bool
        Whether everybody may see it, where it is made now; one that is there stays as it is.
    api : huggingface_hub.HfApi
    """

    repo: str
    public: bool
    api: Any

    @classmethod
    def open(cls, repo: str, *, public: bool = False) -> Upload:
        """See that the name can be one and that the hub knows who asks, before anything is exported.

        Raises
        ------
        ExportError
            If not: the name, nobody is logged in, or the hub cannot be reached.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError
        from huggingface_hub.utils._validators import validate_repo_id

        try:
            validate_repo_id(repo)
        except HFValidationError as error:
            raise ExportError(f"--push {repo}: {error}") from error
        if "/" not in repo:
            raise ExportError(f"--push {repo} names no owner; give USER/NAME.")
        api = HfApi()
        try:
            api.whoami()
        except LocalTokenNotFoundError as error:
            raise ExportError(
                f"--push {repo}: nobody is logged in. Run `hf auth login`, or set HF_TOKEN to a token that may write."
            ) from error
        except _hub_errors() as error:
            raise ExportError(f"--push {repo}: the hub does not answer, or not to this token ({error}).") from error
        return cls(repo, public, api)

    def send(self, folder: Path) -> str:
        """Make the model if it is not there, upload all files in one commit, and return its address.

        Raises
        ------
        ExportError
            If the hub refuses; the folder stays.
        """
        try:
            self.api.create_repo(self.repo, private=not self.public, exist_ok=True)
            self.api.upload_folder(
                repo_id=self.repo, folder_path=str(folder), commit_message=f"Exported by brainlit {__version__}"
            )
        except _hub_errors() as error:
            raise ExportError(
                f"{folder} could not be uploaded to {self.repo}: {error}. It stays here whole; the same command tries"
                " again."
            ) from error
        return f"https://huggingface.co/{self.repo}"


def _hub_errors() -> tuple[type[BaseException], ...]:
    """What the hub's client raises when it is refused or finds no network.

    Its own error is one of the HTTP library below it, which differs between its versions, and an OSError.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (*HfHubHTTPError.__bases__, OSError, ValueError)


def feature_extractor(backbone: SpeechBackbone) -> Any:
    """The feature extractor of transformers that prepares sound as the backbone was given it.

    Families that hear the waveform get an extractor that does what was done here. The others keep the one that came
    with their weights, where that is at hand, and otherwise get one of the same settings.
    """
    import transformers as library

    from brainlit.backbones.registry import checkpoint_file

    transformers: Any = library
    settings = backbone.model.config
    if settings.model_type not in ("whisper", "speecht5", "seamless_m4t", "seamless_m4t_v2", "wav2vec2-bert"):
        return transformers.Wav2Vec2FeatureExtractor(
            sampling_rate=backbone.sample_rate_hz,
            do_normalize=bool(getattr(backbone, "normalises", True)),
            return_attention_mask=bool(getattr(backbone, "uses_attention_mask", True)),
        )
    published = checkpoint_file(backbone, "preprocessor_config.json")
    if published is not None:
        return transformers.AutoFeatureExtractor.from_pretrained(str(published.parent), local_files_only=True)
    if settings.model_type == "whisper":
        hop = backbone.sound.get("hop_length", 160)
        seconds = 2 * settings.max_source_positions * hop // backbone.sample_rate_hz
        options = {"feature_size": settings.num_mel_bins, "chunk_length": seconds, **backbone.sound}
        return transformers.WhisperFeatureExtractor(**options)
    if settings.model_type == "speecht5":
        return transformers.SpeechT5FeatureExtractor(sampling_rate=backbone.sample_rate_hz, **backbone.sound)
    n_mels = getattr(settings, "feature_projection_input_dim", 160) // backbone.sound.get("stride", 2)
    options = {"num_mel_bins": n_mels, "feature_size": n_mels, **backbone.sound}
    return transformers.SeamlessM4TFeatureExtractor(sampling_rate=backbone.sample_rate_hz, **options)


def _merge_lora(backbone: SpeechBackbone) -> None:
    """Put LoRA into the weights it changes; where peft was never imported there is none."""
    if "peft" not in sys.modules:
        return
    from peft.tuners.lora import LoraLayer

    if any(isinstance(part, LoraLayer) for part in backbone.modules()):
        from brainlit.backbones.lora import merge_lora

        merge_lora(backbone)


def _what_it_says(checkpoint: Path) -> dict[str, Any]:
    """Name, steps, settings of training and of the data of a checkpoint; the weights stay on disk."""
    from brainlit.tuning.checkpoint import read_content

    content = read_content(checkpoint)
    return {
        "name": checkpoint.name,
        "step": int(content["global_step"]),
        "epoch": int(content["epoch"]) + 1,
        "data": dict(content.get("StoryDataModule", {})),
    }


def _run_of(checkpoint: Path, run: RunDirectory | Path | str | None) -> RunDirectory | None:
    if run is not None:
        return run if isinstance(run, RunDirectory) else RunDirectory.open(run)
    for folder in (checkpoint.absolute().parent.parent, checkpoint.absolute().parent):
        if (folder / STATUS_FILE).is_file():
            return RunDirectory.open(folder)
    return None


def _card_facts(module: BrainTuning, run: RunDirectory | None, checkpoint: dict[str, Any]) -> CardFacts:
    return CardFacts(
        checkpoint=checkpoint,
        backbone=module.backbone.describe(),
        settings=dict(module.hparams),
        layer=module.layer,
        auto_class=str(getattr(module.backbone, "auto_class", "AutoModel")),
        run_id=f"{run.experiment}/{run.run_id}" if run else None,
        state=run.state if run else None,
        run=_read(run, RUN_FILE),
        provenance=_read(run, PROVENANCE_FILE),
        summary=_summary(run),
    )


def _read(run: RunDirectory | None, name: str) -> dict[str, Any]:
    return read_json_if_there(run.path / name) if run else {}


def _summary(run: RunDirectory | None) -> dict[str, Any]:
    """A finished run's own; that of an unfinished one as of now."""
    if run is None:
        return {}
    return (_read(run, SUMMARY_FILE) if run.state == "finished" else {}) or build_summary(run)


def _provenance(facts: CardFacts) -> dict[str, Any]:
    """What goes into config.json."""
    return {
        "version": __version__,
        "run": facts.run_id,
        "regime": facts.regime,
        "layer": facts.layer,
        "step": facts.checkpoint["step"],
        "base_model": base_model(facts.backbone),
        **{
            f"base_{key}": origin[key]
            for origin in [facts.backbone["origin"]]
            for key in ("revision", "commit", "subfolder", "adapter")
            if key in origin
        },
        "checkpoint_sha256": facts.checkpoint["sha256"],
    }


def _check_output(output: Path, digest: str, overwrite: bool) -> None:
    """Refuse, before anything is computed, a folder that holds something else."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    config = output / "config.json"
    cure = "Give another --output, or take the folder away."
    said = read_json(config, "the configuration of an export", cure).get(CONFIG_KEY) if config.is_file() else None
    if not isinstance(said, dict):
        raise ExportError(f"{output} holds something else than an export and is left alone. Give another --output.")
    if said.get("checkpoint_sha256") != digest and not overwrite:
        raise ExportError(
            f"{output} holds the export of another checkpoint (run {said.get('run')}, step {said.get('step')}). Give"
            " another --output, or --overwrite to replace it."
        )


def _make_parent(output: Path) -> None:
    """The folder above `output`, before anything is held or made in it."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"cannot write to {output.parent}: {error.strerror}. Give another --output.") from error


@contextmanager
def _whole_folder(output: Path) -> Iterator[Path]:
    """A temporary folder beside `output` that takes its place when the block ends well, and vanishes otherwise."""
    temporary, old = temporary_beside(output), temporary_beside(output, "old")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.iterdir():
            share(file)
            to_disk(file)
        if output.exists():
            output.rename(old)
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
