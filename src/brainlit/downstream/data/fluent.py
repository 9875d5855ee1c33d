"""Fluent Speech Commands: 248 phrases for a smart home, with 31 intents (Lugosch et al. 2019, arXiv 1904.03670).

Not evidence of meaning: a decision tree on the bag of words of the transcript reaches 100 % (Choi et al. 2024, arXiv
2406.08619), so a probe that hears the words has the intents. Report it with its transcript-only control.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from brainlit.downstream.clip import Clip
from brainlit.downstream.data.files import heard_before, inside, need_file, need_folder, plain_text, table_rows
from brainlit.downstream.task import Task, make_task
from brainlit.stories import SourceError

WHERE = "fluent.ai (Fluent Speech Commands)"
_TABLES = {"train": "train_data.csv", "choose": "valid_data.csv", "test": "test_data.csv"}
_COLUMNS = ("path", "speakerId", "transcription", "action", "object", "location")


def load(folder: Path) -> Task:
    """What is to be done: action, object and location, such as 'activate, lights, kitchen'.

    Parameters
    ----------
    folder : Path
        Holds data/train_data.csv, valid_data.csv (which chooses), test_data.csv, and wavs; itself or in
        'fluent_speech_commands_dataset'.

    Raises
    ------
    FileNotFoundError
        If a table or a sound is missing.
    SourceError
        If a table lacks a column, or a cell is empty.
    """
    root = inside(need_folder(folder, "Fluent Speech Commands", WHERE), "data", "fluent_speech_commands_dataset")
    examples = {part: list(_read_table(root, root / "data" / name, part)) for part, name in _TABLES.items()}
    texts = {part: [clip.text for clip, _ in pairs] for part, pairs in examples.items()}
    name, facts = "fluent_speech_commands/intent", {**_FACTS, "words heard in train": heard_before(texts)}
    return make_task(name, "single", examples, metric="accuracy", facts=facts, speaker_disjoint=True, same_sound="drop")


def _read_table(root: Path, path: Path, part: str) -> Iterator[tuple[Clip, str]]:
    """Clips and intents of one table; its first column, which has no name, counts the rows."""
    for line, cells in table_rows(path, _COLUMNS, f"the commands of the part {part!r}", WHERE):
        if not all(cells):
            empty = _COLUMNS[cells.index("")]
            raise SourceError(f"{path}, line {line}: the column {empty!r} is empty. Get the file again from {WHERE}.")
        name, speaker, text, *intent = cells
        sound = need_file(root / name, f"the sound of line {line} of {path.name}", WHERE)
        yield Clip(name, sound, speaker=speaker, text=plain_text(text)), ", ".join(intent)


_FACTS = {
    "source": "Fluent Speech Commands: 30,043 recordings of 97 speakers, 248 phrases, 31 intents",
    "licence": "Fluent Speech Commands Public License (the PDF in the archive)",
    "citation": "Lugosch, Ravanelli, Ignoto, Tomar & Bengio (2019), Speech model pre-training for end-to-end spoken"
    " language understanding, Interspeech, arXiv 1904.03670",
    "split": "the authors' train, valid (chooses) and test; a speaker is in one part, a phrase is in all",
    "transcript": "a bag of words of the transcript reaches 100 % (Choi et al. 2024, arXiv 2406.08619): not evidence of"
    " meaning",
}
