"""The downstream tasks that brainlit has: one table, which the command, its help and the documentation are made from.

A new task is an entry here, and a function that makes it: of the demo's speech in `demo_tasks`, of a published data set
in a module of `data`. Listing tasks imports nothing; `load_tasks` imports what the asked ones need.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from brainlit.hints import did_you_mean

if TYPE_CHECKING:
    from brainlit.downstream.task import RecognitionTask, Task

Needs = Literal["nothing", "stories", "folder"]

DEMO, WORDS = "demo", "words"


@dataclass(frozen=True)
class TaskEntry:
    """A task that can be asked for by name.

    Parameters
    ----------
    name : str
        DATA_SET/QUESTION. The one exception is 'words', which is no task of labelled clips: see `words`.
    loader : str
        MODULE:FUNCTION below brainlit.downstream. The function takes the folder of the data set, for the demo's tasks
        a `DemoSpeech`, and returns a Task or a RecognitionTask of this name.
    question : str
        What is asked about a clip, in a few words.
    recognition : bool
        The answer is a text, not a label.
    """

    name: str
    loader: str
    question: str
    recognition: bool = False

    @property
    def data_set(self) -> str:
        """The part of the name before the slash."""
        return self.name.partition("/")[0]

    @property
    def needs(self) -> Needs:
        """What must be given to make it: nothing (espeak-ng speaks), stories of a store, the folder of a data set."""
        return "nothing" if self.data_set == DEMO else "stories" if self.name == WORDS else "folder"

    def load(self, source: Any) -> Any:
        """What the loader makes of its source."""
        module, _, function = self.loader.partition(":")
        return getattr(importlib.import_module(f"brainlit.downstream.{module}"), function)(source)


TASKS = (
    TaskEntry("demo/phones", "demo_tasks:phones", "which phones a spoken word has"),
    TaskEntry("demo/word_identity", "demo_tasks:word_identity", "which of 72 words is said"),
    TaskEntry(
        "demo/word_category",
        "demo_tasks:word_category",
        "which of eight categories of meaning a word has, on seen and unseen words",
    ),
    TaskEntry("demo/sentence_type", "demo_tasks:sentence_type", "which of four kinds of sentence is said"),
    TaskEntry("demo/speaker", "demo_tasks:speaker", "which of eight voices speaks"),
    TaskEntry(WORDS, "words:story_words", "are words alike by meaning or by sound, layer by layer"),
    TaskEntry("timit/phones", "data.timit:load_phones", "which of 39 phone classes a sentence has"),
    TaskEntry("timit/sentence_type", "data.timit:load_sentence_type", "SA, SI or SX sentence"),
    TaskEntry("timit/sentence_type_without_sa", "data.timit:load_sentence_type_without_sa", "SI or SX sentence"),
    TaskEntry("speech_commands/word", "data.speech_commands:load", "which of 35 words is said"),
    TaskEntry("crema_d/emotion", "data.crema_d:load", "which of six emotions is acted"),
    TaskEntry("slurp/intent", "data.slurp:load", "what a speaker wants of an assistant"),
    TaskEntry("fluent_speech_commands/intent", "data.fluent:load", "which of 31 commands is given"),
    TaskEntry(
        "timit/recognition", "data.timit:load_recognition", "what is read, by CTC fine-tuning: WER and CER", True
    ),
    TaskEntry(
        "librispeech/recognition",
        "data.librispeech:load_recognition",
        "the same: train-clean-100, dev-clean, test-clean",
        True,
    ),
)
TASK_NAMES = tuple(entry.name for entry in TASKS)


def find_task(name: str) -> TaskEntry:
    """The entry of a task.

    Raises
    ------
    ValueError
        If there is none, with the nearest name.
    """
    if name not in TASK_NAMES:
        raise ValueError(f"there is no task {name!r}. {did_you_mean(name, TASK_NAMES)}")
    return TASKS[TASK_NAMES.index(name)]


def load_tasks(names: Sequence[str], folder: Path | None = None, *, seed: int = 0) -> dict[str, Task | RecognitionTask]:
    """Tasks of labelled clips by name; those of the demo share its speech, so that a clip is the same in all of them.

    Parameters
    ----------
    folder : Path, optional
        Of the data set that tasks other than the demo's are from.
    seed : int
        Of the demo's sentences and voices.

    Raises
    ------
    ValueError
        If a task is unknown, or needs something else than is given.
    EspeakMissingError
        If a task is the demo's, and espeak-ng is not installed.
    FileNotFoundError, SourceError
        If a file of the data set is missing or damaged.
    """
    entries = [find_task(name) for name in names]
    for entry in entries:
        if entry.needs == "stories":
            raise ValueError(f"the task {entry.name!r} has no labelled clips: see brainlit.downstream.words.")
        if entry.needs == "folder" and folder is None:
            raise ValueError(f"the task {entry.name!r} needs the folder of its data set; see data/downstream.md.")
    speech = None
    if any(entry.needs == "nothing" for entry in entries):
        from brainlit.downstream.demo_tasks import DemoSpeech

        speech = DemoSpeech(seed)
    return {entry.name: entry.load(speech if entry.needs == "nothing" else folder) for entry in entries}
