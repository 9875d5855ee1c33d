"""`brainlit predict SOUND... --run RUN`: the responses that a tuned model expects for sounds that nobody heard."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainlit.cli.errors import UsageError
from brainlit.cli.option_hints import OwnParser
from brainlit.hints import did_you_mean, few, nearest
from brainlit.paths import link

if TYPE_CHECKING:
    from brainlit.datamodules.story import StoryDataModule
    from brainlit.results.predictions import PredictedSound
    from brainlit.stories.readers.audio import Sound

SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64"),
    *(".sph", ".nist", ".voc", ".m4a", ".aac", ".wma", ".mp4", ".webm"),
)
"""Of file names that mean a sound, whether it can be read or not."""
DESCRIPTION = """\
Predict the responses to sounds that nobody heard in the scanner, with the tuned model of a run and for the people that
it was tuned on. Any format, rate and number of channels; mp3, flac and wav among them. Each sound is cut into the
windows that the run is evaluated with, and gets a folder of its own: predictions.h5 (all voxels), a table of regions
per subject, GIFTI series on fsaverage5 or a NIfTI series where the places of the voxels allow it, and a page in which
the map moves with the sound."""
EPILOG = """\
Options of the run's data and machine come with their dots, as for `brainlit predict RUN`: --data.batch_size N,
--trainer.accelerator NAME, --trainer.precision P."""
RUN_HINT = "runs/<experiment>/<id>"


def asks_for_sounds(arguments: Sequence[str]) -> bool:
    """Whether the arguments of predict are about sounds: they name a run by --run, or a file of sound.

    >>> [asks_for_sounds(said.split()) for said in ("a.mp3 --run runs/x/y", "runs/x/y", "story.WAV", "--run=r b")]
    [True, False, True, True]
    """
    for argument in arguments:
        if argument.partition("=")[0] == "--run":
            return True
        if not argument.startswith("-") and Path(argument).suffix.lower() in SUFFIXES:
            return True
    return False


def run_predict_sounds(arguments: Sequence[str]) -> int:
    """Read the sounds, predict, write a folder for each; print where they are and what the numbers mean."""
    own, options = _divided(arguments)
    given = _parser().parse_args(own)
    if given.run is None:
        raise UsageError(_without_run(given.sounds))
    _require_tr(given.tr)
    sounds = _read(given.sounds)
    from brainlit.cli.reports import chosen_checkpoint
    from brainlit.results.run_directory import RunDirectory

    run = RunDirectory.open(given.run)
    _require_responses(run.path)
    checkpoint = chosen_checkpoint(run, given.checkpoint)
    folders = {name: (given.output or run.path / "predictions") / name for name in sounds}
    for folder in folders.values():
        _require_free(folder, given.overwrite)
    predicted = _predict(run.path, checkpoint, sounds, given, options)
    for sound in predicted:
        _write(sound, folders[sound.name], sounds[sound.name], given.overwrite)
    for sentence in predicted[0].about:
        print(sentence)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = OwnParser(
        prog="brainlit predict",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="brainlit predict SOUND [SOUND ...] --run RUN [options]",
    )
    parser.add_argument("sounds", nargs="+", type=Path, metavar="SOUND", help="files of sound, of any format")
    parser.add_argument("--run", type=Path, help=f"folder of the run whose model predicts: {RUN_HINT}")
    parser.add_argument(
        "--checkpoint", default="best", help="best (the default; last where there is none), last, or a checkpoint file"
    )
    parser.add_argument("--subjects", type=_names, help="NAME,... of the run; all that it was tuned on by default")
    parser.add_argument("--tr", type=float, metavar="SECONDS", help="from row to row; the TR of the run by default")
    parser.add_argument("--output", type=Path, help="folder of the sounds' folders (default: RUN/predictions)")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier predictions for a sound of this name")
    parser.add_argument(
        "--trust", action="store_true", help="take the run's configuration as it is, with your own code"
    )
    return parser


def _names(said: str) -> list[str]:
    return [name.strip() for name in said.strip("[]").split(",") if name.strip()]


def _divided(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options of this command, and those with a dot, which belong to the run, each with its value."""
    own, options, words = list[str](), list[str](), iter(arguments)
    for word in words:
        option, equals, _ = word.partition("=")
        if not (option.startswith("--") and "." in option):
            own.append(word)
        else:
            options += [word] if equals else [word, *[value for value in [next(words, None)] if value is not None]]
    return own, options


def _without_run(sounds: Sequence[Path]) -> str:
    runs = [path for path in sounds if path.is_dir()]
    others = [str(path) for path in sounds if path not in runs]
    whose = str(runs[0]) if len(runs) == 1 else RUN_HINT
    return (
        f"whose model is to predict the responses to {few(others) or 'these sounds'}? Say which run:"
        f" brainlit predict {' '.join(others) or 'SOUND'} --run {whose}"
    )


# --- What is checked before anything is built ---


def _read(paths: Iterable[Path]) -> dict[str, Sound]:
    """The sounds by their names; a FileNotFoundError names the file that was probably meant."""
    from brainlit.stories.readers.audio import read_sound

    files: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            raise UsageError(f"{path} is a folder. Give the files of sound in it: {path}/*.wav")
        if not path.is_file():
            raise FileNotFoundError(f"there is no sound {path}. {_nearest_sound(path)}")
        if path.stem in files:
            raise UsageError(
                f"{files[path.stem]} and {path} are both called {path.stem}, and each sound gets a folder of its name."
                " Rename one, or predict them one after the other with different --output."
            )
        files[path.stem] = path
    return {name: read_sound(path) for name, path in files.items()}


def _nearest_sound(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"Nor is there a folder {folder}."
    names = sorted(other.name for other in folder.iterdir() if other.suffix.lower() in SUFFIXES)
    near = nearest(path.name, names)
    return f"{f'Did you mean {folder / near}? ' if near else ''}{folder}/ holds: {few(names) or 'no sound'}."


def _require_tr(asked: float | None) -> None:
    from brainlit.timebase import unlikely_tr

    if asked is not None and not asked > 0:
        raise UsageError(f"--tr is {asked:g}. Give seconds above 0.")
    if asked is not None and (question := unlikely_tr(asked)):
        raise UsageError(f"--tr is {asked:g}. {question[0].upper()}{question[1:]}.")


def _require_responses(run: Path) -> None:
    """Refuse runs that predict no responses, before a model is built."""
    from brainlit.cli.computed import OF_VOXELS
    from brainlit.cli.trust import run_config

    regime = str(run_config(run)["data"].get("regime", "brain"))
    if regime not in OF_VOXELS:
        raise UsageError(
            f"{run} is of the regime {regime}, whose model predicts no responses of voxels. Take a run of the"
            f" regime {' or '.join(OF_VOXELS)}."
        )


def _require_free(folder: Path, overwrite: bool) -> None:
    from brainlit.files import UNFINISHED
    from brainlit.results.predictions import PREDICTIONS_FILE

    if not folder.exists() or (folder / UNFINISHED).exists():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        ours = (folder / PREDICTIONS_FILE).is_file()
        if not (ours and overwrite):
            cure = "--overwrite replaces it." if ours else "Give another folder: --output FOLDER."
            raise FileExistsError(f"{folder} holds {'earlier predictions' if ours else 'something else'}. {cure}")


# --- Predict and write ---


def _predict(
    run: Path, checkpoint: Path, sounds: Mapping[str, Sound], given: Any, options: Sequence[str]
) -> list[PredictedSound]:
    from brainlit.cli.computed import collect_rows
    from brainlit.cli.training import tuned_model_of
    from brainlit.datamodules.sounds import SoundDataModule, rows_at
    from brainlit.results.predictions import PredictedListener, PredictedSound

    cli = tuned_model_of(run, checkpoint, options, given.trust)
    data = SoundDataModule(cli.datamodule, {name: sound.samples for name, sound in sounds.items()})
    data.prepare_data()
    data.setup("predict")
    subjects = _chosen_subjects(given.subjects, list(data.target_sizes))
    tr_s = data.tr_s if given.tr is None else given.tr
    batches: Any = cli.trainer.predict(cli.model, datamodule=data, ckpt_path=str(checkpoint))
    if int(sum(cli.trainer.num_predict_batches)) < len(data.predict_dataloader()):
        raise UsageError("a part of a sound is of no use: leave out --trainer.fast_dev_run and limit_predict_batches.")
    only = [{**batch, "predictions": {name: batch["predictions"][name] for name in subjects}} for batch in batches]
    rows = collect_rows(only, data.stories.story_names, data.stories.n_trs)
    store, files = data.of_run.store, {path.stem: path for path in given.sounds}
    found = []
    for name, sound in sounds.items():
        listeners = [
            PredictedListener(
                store.subject(subject),
                data.of_run.target_voxels[subject],
                rows_at(rows[subject, name], data.tr_s, tr_s, store.slice_reference),
            )
            for subject in subjects
        ]
        facts = {
            "sound": str(files[name]),
            "seconds": round(len(sound.samples) / data.stories.timebase(name).sample_rate_hz, 3),
            "run": str(run),
            "checkpoint": checkpoint.name,
            "regime": data.regime,
            "subjects": subjects,
            "tr_s": tr_s,
            "tr_of_run_s": data.tr_s,
        }
        found.append(PredictedSound(name, tr_s, listeners, about_sentences(data.of_run, subjects, tr_s), facts))
    return found


def _chosen_subjects(asked: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    for name in asked or ():
        if name not in known:
            raise UsageError(f"the run was tuned on no subject {name!r}. {did_you_mean(name, known)}")
    return list(dict.fromkeys(asked or known))


def about_sentences(data: StoryDataModule, subjects: Sequence[str], tr_s: float) -> list[str]:
    """What the numbers are; of simulated listeners and of a control first of all."""
    from brainlit.results.predictions import CONTROL_SAID, PREDICTED_SAID, history_said, units_said
    from brainlit.results.tables import SIMULATED

    store = data.store
    passed = store.response_filter
    simulated = all(bool(store.subject(name).truth) for name in subjects)
    return [
        *([SIMULATED] if simulated else []),
        *([CONTROL_SAID] if data.regime == "permuted" else []),
        PREDICTED_SAID,
        units_said(None if passed is None else passed.in_words),
        history_said(data.window.context_s, data.tr_s, tr_s),
    ]


def _write(predicted: PredictedSound, folder: Path, sound: Sound, overwrite: bool) -> None:
    from brainlit.files import UNFINISHED, folder_to_fill, remove
    from brainlit.results.listening import PAGE_FILE, write_listening
    from brainlit.results.predictions import PREDICTIONS_FILE, write_predicted

    _require_free(folder, overwrite)
    if overwrite and (folder / PREDICTIONS_FILE).is_file() and not (folder / UNFINISHED).exists():
        remove(folder)
    with folder_to_fill(folder):
        write_predicted(folder, predicted)
        write_listening(folder, predicted, sound.samples)
    print(f"{predicted.name}: {predicted.n_trs} rows of {predicted.tr_s:g} s: {link(folder / PAGE_FILE)}")
