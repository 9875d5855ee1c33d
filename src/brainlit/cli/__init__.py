"""The command `brainlit`: a verb, then what belongs to it. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from brainlit import __version__
from brainlit.cli import lean
from brainlit.cli.config_names import config_files, expanded
from brainlit.cli.errors import UsageError, explained
from brainlit.cli.predict_sounds import asks_for_sounds, run_predict_sounds
from brainlit.cli.short_help import is_asked, short_help
from brainlit.hints import did_you_mean

HELP = """\
usage: brainlit VERB [options]

Fine-tune speech models on fMRI of people who listen to stories, and check what they learned.

begin:
  doctor     look at this machine and say what is missing:       brainlit doctor [--fix]
  init       copy the experiments that came with brainlit here:  brainlit init [FOLDER]
  data       download, prepare, check or describe recordings:    brainlit data info demo
  plan       memory, time and batch sizes before a fit:          brainlit plan -c demo -c wav2vec

train (-c takes files of your own and names of experiments; brain_tune, the base, comes by itself; options come last):
  fit        tune a speech model, probe it, write the report:    brainlit fit -c demo -c wav2vec --trainer.max_epochs 3
  validate   loss of a tuned model on the stories that choose:   brainlit validate runs/brain_tune/ID
  test       correlation on the stories that are only scored:    brainlit test runs/brain_tune/ID
  predict    its predictions for those, or for any sounds:       brainlit predict [SOUND... --run] runs/brain_tune/ID

ask what was learned:
  probe      what layers or features say about the brain:        brainlit probe runs/brain_tune/ID
  downstream what its models know about phones, words and
             meaning, with controls; or any model without a run: brainlit downstream runs/brain_tune/ID

read and share:
  report     write the report of a run again:                    brainlit report runs/brain_tune/ID
  export     write the tuned model as a Hugging Face folder:     brainlit export runs/brain_tune/ID
  maps       its scores per voxel, as files of other tools:      brainlit maps runs/brain_tune/ID
  compare    regimes beside each other, and whether what is
             claimed about brain-tuning holds over seeds:        brainlit compare runs/reproduce/*
  figure     one figure for a paper, as PDF, SVG or PNG:         brainlit figure alignment runs/brain_tune/ID -o r.pdf
  curve      alignment by hours of tuning data, of any runs:     brainlit curve runs/fractions/wav2vec-*
  dashboard  a workspace and a report in W&B of runs there:      brainlit dashboard runs/brain_tune/ID

run many:
  reproduce  every regime on the demo, several seeds, a report:  brainlit reproduce --quick
  sweep      one setting at several values:                      brainlit sweep --key model.head_lr --values 1e-3 2e-3
  fractions  runs on growing fractions of the data, and a curve: brainlit fractions --fractions 0.1 0.5 1
  submit     all combinations of a file of axes, by Slurm:       brainlit submit AXES.yaml [--local]
  status     where the runs of a folder are, as a table:         brainlit status runs/grid

brainlit VERB --help says more; --print_config shows what the merged config files say; --debug shows where an error
arose; --version; brainlit completion: for bash and zsh.
"""

PARENT_VARIABLE = "BRAINLIT_PARENT"
"""Process number of the command that started this one as one of its jobs; without it there is no use going on."""
WATCH_S, PATIENCE_S = 0.5, 10.0
TRAINING = ("fit", "validate", "test", "predict")
FITS = (*TRAINING, "plan")
"""Verbs whose options describe a whole run, to which names of experiments bring the base file."""
NAMING = (*FITS, "data", "probe", "reproduce", "sweep", "fractions")
"""Verbs that take config files."""
VERBS = {
    "init": "brainlit.cli.init:main",
    "data": "brainlit.cli.data:main",
    "probe": "brainlit.cli.probe:main",
    "downstream": "brainlit.cli.downstream:main",
    "report": "brainlit.cli.reports:run_report",
    "export": "brainlit.cli.reports:run_export",
    "maps": "brainlit.cli.maps:run_maps",
    "compare": "brainlit.cli.reports:run_compare",
    "figure": "brainlit.cli.figure:run_figure",
    "curve": "brainlit.cli.reports:run_curve",
    "dashboard": "brainlit.cli.dashboard:run_dashboard",
    "reproduce": "brainlit.cli.reproduce:run_reproduce",
    "sweep": "brainlit.cli.reproduce:run_sweep",
    "fractions": "brainlit.cli.reproduce:run_fractions",
    "submit": "brainlit.cli.submit:run_submit",
    "status": "brainlit.cli.status:run_status",
    "completion": "brainlit.cli.completion:run_completion",
    "plan": "brainlit.cli.plan:run_plan",
    "doctor": "brainlit.doctor:main",
}
"""Verb -> the function that takes its arguments; its module is imported when the verb is used."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status (0 done, 1 a check failed, 2 wrong use or wrong data, 130 interrupted).

    Parameters
    ----------
    argv : sequence of str, optional
        Without the program's name; sys.argv by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--debug" in arguments:
        arguments.remove("--debug")
        os.environ["BRAINLIT_DEBUG"] = "1"
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"brainlit {__version__}")
        return 0
    if argv is None:
        lean.expect(arguments)
    if parent := os.environ.pop(PARENT_VARIABLE, None):
        end_with_parent(int(parent))
    return explained(lambda: _run(arguments[0], arguments[1:]))


def _run(verb: str, arguments: Sequence[str]) -> int:
    """Put files in place of names of experiments, and call the verb; where a run is named, it brings its own base."""
    if verb in NAMING:
        names_run = bool(arguments) and not arguments[0].startswith("-")
        arguments = expanded(arguments, with_base=verb in FITS and not names_run)
        files = config_files(arguments)
        if files and any(argument.partition("=")[0] == "--print_config" for argument in arguments):
            print(f"# merged: {', '.join(files)}", flush=True)
    return _verb(verb)(arguments)


def end_with_parent(parent: int) -> None:
    """End this process and those that it started soon after its parent has ended, killed or not.

    A thread asks whose child this process is; systems tell only children of living parents. It interrupts as Ctrl-C
    does, after ten seconds more it kills.
    """
    import signal
    import threading
    import time

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(PATIENCE_S)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def _training(verb: str, arguments: Sequence[str]) -> int:
    """fit, validate, test or predict; their short help imports none of what they need."""
    if verb == "predict" and asks_for_sounds(arguments):
        return run_predict_sounds(arguments)
    if is_asked(arguments):
        print(short_help(verb), end="")
        return 0
    lean.import_lightning()
    from brainlit.cli.training import run_verb

    return run_verb(verb, arguments)


def _verb(name: str) -> Callable[[Sequence[str]], int]:
    if name in TRAINING:
        return lambda arguments: _training(name, arguments)
    if name not in VERBS:
        raise UsageError(f"there is no verb {name!r}. {did_you_mean(name, (*TRAINING, *VERBS))}")
    module, _, function = VERBS[name].partition(":")
    run: Callable[[Sequence[str]], int] = getattr(import_module(module), function)
    return run
