"""What `brainlit downstream` understands: its tasks, its options, and what is refused before anything is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brainlit.cli.errors import UsageError
from brainlit.hints import did_you_mean

if TYPE_CHECKING:
    from brainlit.downstream.run_models import Asking

WORDS = "words"
DEMO = {
    "demo/phones": "which phones a spoken word has",
    "demo/word_identity": "which of 72 words is said",
    "demo/word_category": "which of eight categories of meaning a word has, on seen and unseen words",
    "demo/sentence_type": "which of four kinds of sentence is said",
    "demo/speaker": "which of eight voices speaks",
}
DATA = {
    "timit/phones": ("timit_phones", "which of 39 phone classes a sentence has"),
    "timit/sentence_type": ("timit_sentence_type", "SA, SI or SX sentence"),
    "timit/sentence_type_without_sa": ("timit_sentence_type_without_sa", "SI or SX sentence"),
    "speech_commands": ("speech_commands", "which of 35 words is said"),
    "crema_d": ("crema_d", "which of six emotions is acted"),
    "slurp": ("slurp", "what a speaker wants of an assistant"),
    "fluent_speech_commands": ("fluent_speech_commands", "which of 31 commands is given"),
}
"""Task -> its name in `downstream.data.TASKS`, and what is asked."""
RECOGNITION = {
    "timit/recognition": ("timit", "what is read, by CTC fine-tuning: WER and CER"),
    "librispeech/recognition": ("librispeech", "the same: train-clean-100, dev-clean, test-clean"),
}
"""Task -> its name in `downstream.data.RECOGNITION`, and what is asked."""
ALL = (*DEMO, WORDS, *DATA, *RECOGNITION)

DESCRIPTION = """\
Ask speech models what they know besides the brain: probes of every frozen layer on tasks with their controls, and
whether words are alike by meaning or by sound. Of a run, the tuned model (its last checkpoint) and the one it began
from. Answers are kept in RUN/downstream/MODEL/, and what is there is not asked again.
"""
EXAMPLES = """\
examples:
  brainlit downstream runs/brain_tune/ID
  brainlit downstream runs/brain_tune/ID --task demo/word_category --task words --probes linear mlp
  brainlit downstream --model wav2vec --weights base --task timit/phones --data /path/to/TIMIT
"""


def options_parser() -> argparse.ArgumentParser:
    """All options, and the tasks below them."""
    parser = argparse.ArgumentParser(
        prog="brainlit downstream",
        usage="brainlit downstream RUN [RUN ...] [options]\n"
        "       brainlit downstream --model FAMILY [--weights WEIGHTS] [options]",
        description=DESCRIPTION,
        epilog=f"{_task_list()}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("runs", nargs="*", type=Path, metavar="RUN", help="folders of runs")
    add("--models", nargs="+", choices=("tuned", "untuned"), help="which models of a run (default: both)")
    add("--checkpoint", action="append", default=[], metavar="FILE", help="a further checkpoint of a run; repeatable")
    add("--model", metavar="FAMILY", help="wav2vec, whisper, ...: a model without a run")
    add("--weights", metavar="WEIGHTS", help="with --model: tiny (default), a size such as base, a hub id, a folder")
    add("--store", type=Path, metavar="DIR", help="with --model: the store whose stories to score give the words")
    add("--task", action="append", metavar="NAME", help="repeatable (default: all demo tasks, and words)")
    add("--data", type=Path, metavar="DIR", help="folder of the data set that the tasks named are from")
    add("--probes", nargs="+", default=["linear"], metavar="PROBE", help="linear, mlp (default: linear, the faster)")
    add("--untrained", action="store_true", help="also ask the same architecture with random weights, as a control")
    add("--again", action="store_true", help="ask again what was answered before")
    add("--epochs", type=int, default=20, metavar="N", help="of CTC fine-tuning (default: 20)")
    add("--batch_s", type=float, default=60.0, metavar="S", help="seconds of sound in a batch (default: 60)")
    add("--device", help="cpu, cuda, ... (default: cuda where there is one)")
    add("--seed", type=int, default=0, help="of the demo's sentences, draws of words, random controls (default: 0)")
    add("--output", type=Path, metavar="DIR", help="write below this folder instead of the run's; for one run or model")
    return parser


def _task_list() -> str:
    groups = {
        "offline, on speech that espeak-ng makes (pip install 'brainlit[demo]')": DEMO,
        "offline, on the run's stories to score; other data than the demo's need nltk with wordnet and cmudict": {
            WORDS: "are words alike by meaning or by sound, layer by layer"
        },
        "with --data, the folder of the published data set (data/downstream.md)": {
            name: words for name, (_, words) in (DATA | RECOGNITION).items()
        },
    }
    lines = ["tasks:"]
    for need, tasks in groups.items():
        lines += [f"  {need}", *(f"    {name:32}{words}" for name, words in tasks.items())]
    return "\n".join(lines)


def checked_tasks(given: argparse.Namespace) -> list[str]:
    """The tasks, each once; refuses what cannot be meant.

    Raises
    ------
    UsageError
        If nothing or too much is named, a task is unknown, or the data of a task are.
    """
    if bool(given.runs) == (given.model is not None):
        raise UsageError("name the folders of runs, or --model FAMILY: one of the two.")
    of_run = {"--models": given.models, "--checkpoint": given.checkpoint}
    of_model = {"--weights": given.weights, "--store": given.store}
    for option, value in (of_model if given.runs else of_run).items():
        if value:
            raise UsageError(f"{option} is for {'--model, not for runs' if given.runs else 'runs, not for --model'}.")
    if given.output is not None and len(given.runs) > 1:
        raise UsageError(f"--output is for one run, and {len(given.runs)} are named.")
    names = list(dict.fromkeys(given.task or [*DEMO, *([WORDS] if given.runs or given.store else [])]))
    for name in names:
        if name not in ALL:
            raise UsageError(f"there is no task {name!r}. {did_you_mean(name, ALL)}")
    if WORDS in names and not given.runs and given.store is None:
        raise UsageError("the task words needs stories: give --store DIR, or a run, which has its own.")
    _check_data(given.data, [name for name in names if name in DATA or name in RECOGNITION])
    return names


def _check_data(folder: Path | None, names: Sequence[str]) -> None:
    sets = sorted({name.partition("/")[0] for name in names})
    if len(sets) > 1:
        raise UsageError(f"the tasks are from {' and '.join(sets)}, and --data is one folder: ask one after the other.")
    if sets and folder is None:
        raise UsageError(
            f"{names[0]} needs --data, the folder of the data set; data/downstream.md says where it is from."
        )
    if folder is not None and not sets:
        raise UsageError("--data is given, and no task that needs it: name some with --task, such as timit/phones.")
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"--data {folder} is no folder.")


def asking(given: argparse.Namespace) -> Asking:
    """How models are asked: device, probes, fine-tuning."""
    import torch

    from brainlit.downstream.ctc import CtcConfig
    from brainlit.downstream.probes import ProbeConfig
    from brainlit.downstream.run_models import Asking

    if not given.batch_s > 0:
        raise UsageError(f"--batch_s is {given.batch_s}; a batch needs some sound.")
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    ctc = CtcConfig(epochs=given.epochs, batch_s=given.batch_s)
    return Asking(ProbeConfig(probes=tuple(given.probes)), ctc, given.seed, device, given.batch_s)
