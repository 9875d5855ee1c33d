"""What --help of fit, validate, test and predict says: one screen, without importing what reads their options.

A parser that knows all options takes seconds to make, for it imports whatever it describes. So the options that people
use are written down here, with the values that they have where nobody says otherwise; tests compare both with the
parser and with experiments/brain_tune.yaml. --help-all makes the parser and lists everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ALL = "--help-all"
SHORT = ("-h", "--help")
WIDTH = 38


@dataclass(frozen=True)
class Usual:
    """An option that people use.

    Parameters
    ----------
    name : str
        As it is typed.
    value : str
        What stands behind it, in capitals; or an example.
    words : str
        What it is.
    default : object
        Its value where neither an option nor a further file says otherwise; None is not written.
    """

    name: str
    value: str
    words: str
    default: object = None

    def line(self, with_default: bool) -> str:
        """One line of the list; of a run's options the defaults are the run's own."""
        default = f" [{self.default}]" if with_default and self.default is not None else ""
        return f"  {f'{self.name} {self.value}':{WIDTH}}{self.words}{default}"


COMPUTING = (
    Usual("--data.batch_size", "N", "windows at a time", 8),
    Usual("--trainer.precision", "P", "32-true, bf16-mixed or 16-mixed", None),
    Usual("--trainer.accelerator", "NAME", "cpu, gpu, auto", "auto"),
)
OPTIONS: Mapping[str, Sequence[Usual]] = {
    "fit": (
        Usual(
            "--model.backbone.weights", "WEIGHTS", "tiny, a size such as base, ORG/NAME of the hub, a folder", "tiny"
        ),
        Usual("--model.lora.rank", "N", "LoRA of this rank; 0 trains all weights above the front end", 0),
        Usual("--model.backbone_lr", "RATE", "peak learning rate of the speech model; by its size if not given", None),
        Usual("--model.head_lr", "RATE", "that of the head, likewise", None),
        Usual("--data.subjects", "[NAME,...]", "whom to tune on; all of the data set if not given", None),
        Usual("--data.regime", "NAME", "brain, permuted, stimulus, language_model, ...", "brain"),
        Usual("--data.window.n_trs", "N", "scanner rows per window", 16),
        Usual("--trainer.max_epochs", "N", "times through the tuning stories", 8),
        *COMPUTING,
        Usual("--trainer.devices", "N", "processors or GPUs", 1),
        Usual("--probe.layers", "[N,...]", "layers of the probe before and after, 0 to the last", "all"),
        Usual("--seed_everything", "N", "decides all that is random", 0),
        Usual("--run.experiment", "NAME", "the run is recorded in runs/NAME/ID", "brain_tune"),
        Usual("--run.id", "NAME", "ID; auto makes one from the time", "auto"),
        Usual("--run.wandb", "MODE", "auto, offline, online, off", "auto"),
    ),
    **dict.fromkeys(
        ("validate", "test", "predict"),
        (
            Usual("--ckpt_path", "FILE", "another checkpoint than the run's best (else last) one", None),
            Usual("--trust", "", "take the run's configuration as it is: it may name code of your own", None),
            *COMPUTING,
        ),
    ),
}
_DOES: Mapping[str, str] = {
    "validate": "Compute the loss of a tuned model on the stories that choose (checkpoints, voxels).",
    "test": "Compute the correlation of a tuned model with the responses, on the stories that are only scored.",
    "predict": "Write the predictions of a tuned model for the stories to score, as RUN/predictions.h5.",
}
_FIT = """\
usage: brainlit fit -c NAME_OR_FILE [-c ...] [--OPTION VALUE ...]

Tune a speech model to predict brain responses, probe its layers before and after, write the report. Names are those of
experiments, merged in the order base (brain_tune, by itself), data, model, regime, paper; your own files as they are
typed; then come the options. The same command goes on where an interrupted run was.

options that people use, with their defaults:
  {file:{width}}an experiment (demo, wav2vec, permuted, ...) or a YAML file
{options}

examples:
  brainlit fit -c demo -c wav2vec
  ... -c permuted --trainer.max_epochs 3                   a control, for fewer epochs
  ... --model.backbone.weights base --model.lora.rank 8    a published model, by LoRA
  ... --print_config                                       what all files and options come to, and end

more:
  brainlit fit --help-all                                  all options, with types and defaults
  brainlit fit --data.source.help brainlit.demo.DemoSource the settings of a data set; --trainer.callbacks.help likewise
  brainlit plan, with the same options                     memory and time before a fit
"""
_OTHERS = """\
usage: brainlit {verb} RUN [--OPTION VALUE ...]
       brainlit {verb} --ckpt_path FILE -c NAME_OR_FILE [-c ...] [--OPTION VALUE ...]

{does}
RUN is the folder of a run; model, data and settings are those that it was started with, unless options say otherwise.

options that people use:
{options}

examples:
  brainlit {verb} runs/brain_tune/ID
  brainlit {verb} runs/brain_tune/ID --ckpt_path runs/brain_tune/ID/checkpoints/last.ckpt

more:
  brainlit {verb} --help-all     all options, with types and defaults
{more}"""
_SOUNDS = """\
  brainlit predict SOUND... --run RUN           the responses to any sound; with --help, its options
"""


def is_asked(arguments: Sequence[str]) -> bool:
    """Whether a command asks for the short help.

    >>> [is_asked(said.split()) for said in ("-c a.yaml --help", "--help-all", "--data.source.help")]
    [True, False, False]
    """
    return any(argument in SHORT for argument in arguments)


def short_help(verb: str) -> str:
    """The text for fit, validate, test or predict."""
    is_fit = verb == "fit"
    options = "\n".join(option.line(with_default=is_fit) for option in OPTIONS[verb])
    if is_fit:
        return _FIT.format(options=options, width=WIDTH, file="-c NAME_OR_FILE")
    return _OTHERS.format(options=options, verb=verb, does=_DOES[verb], more=_SOUNDS if verb == "predict" else "")
