"""Speech data sets with labels, each read from the folder in which its authors publish it (data/downstream.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from brainlit.downstream.data import crema_d, fluent, librispeech, slurp, speech_commands, timit
from brainlit.downstream.task import RecognitionTask, Task

TASKS: Mapping[str, Callable[[Path], Task]] = {
    "timit_phones": timit.load_phones,
    "timit_sentence_type": timit.load_sentence_type,
    "timit_sentence_type_without_sa": partial(timit.load_sentence_type, with_sa=False),
    "speech_commands": speech_commands.load,
    "crema_d": crema_d.load,
    "slurp": slurp.load,
    "fluent_speech_commands": fluent.load,
}
"""What loads each task from the folder of its data set; the loaders have options of their own."""

RECOGNITION: Mapping[str, Callable[[Path], RecognitionTask]] = {
    "timit": timit.load_recognition,
    "librispeech": librispeech.load_recognition,
}
"""What loads each recognition task."""

__all__ = ["RECOGNITION", "TASKS", "crema_d", "fluent", "librispeech", "slurp", "speech_commands", "timit"]
