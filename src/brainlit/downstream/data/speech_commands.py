"""Speech Commands v0.02: one of 35 words, said by thousands of people (Warden 2018, arXiv 1804.03209)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from brainlit.downstream.clip import Clip
from brainlit.downstream.data.files import need_files, need_folder, numbered_lines, require_option
from brainlit.downstream.task import Task, make_task
from brainlit.stories import SourceError

WHERE = "speech_commands_v0.02.tar.gz (download.tensorflow.org/data)"
_WORDS = """
    backward bed bird cat dog down eight five follow forward four go happy house learn left marvin nine no off on one
    right seven sheila six stop three tree two up visual wow yes zero
"""
WORDS = tuple(_WORDS.split())
_LISTS = {"choose": "validation_list.txt", "test": "testing_list.txt"}
_NOISE = "_background_noise_"
_SPEAKER_ENDS = "_nohash_"


def load(folder: Path, words: Sequence[str] | None = None) -> Task:
    """Which word is said.

    Parameters
    ----------
    folder : Path
        Holds a folder per word, validation_list.txt (which chooses) and testing_list.txt; what is in neither trains.
    words : sequence of str, optional
        Only these; None takes all 35.

    Raises
    ------
    FileNotFoundError
        If a list, a word's folder or a listed recording is missing.
    SourceError
        If a recording's name does not say who speaks.
    ValueError
        If a word is none of the 35.
    """
    for word in words or ():
        require_option("words", word, WORDS)
    need_folder(folder, "the words of Speech Commands", WHERE)
    chosen = WORDS if words is None else tuple(sorted(set(words)))
    part_of = {
        name: part
        for part, listing in _LISTS.items()
        for _, name in numbered_lines(folder / listing, f"the recordings of which the part {part!r} is made", WHERE)
    }
    examples: dict[str, list[tuple[Clip, str]]] = {"train": [], "choose": [], "test": []}
    for word in chosen:
        for clip in _clips(folder, word):
            examples[part_of.pop(clip.name, "train")].append((clip, word))
    missing = sorted(name for name in part_of if name.partition("/")[0] in chosen)
    if missing:
        raise FileNotFoundError(
            f"{folder / missing[0]} does not exist ({len(missing)} missing): a recording that {_LISTS['choose']} or"
            f" {_LISTS['test']} names; get it from {WHERE}, or check the folder."
        )
    name, facts = "speech_commands/word", {**_FACTS, "left_out": _left_out(folder, chosen)}
    return make_task(name, "single", examples, metric="accuracy", facts=facts, speaker_disjoint=True, same_sound="drop")


def _clips(folder: Path, word: str) -> Iterator[Clip]:
    """All recordings of a word, by name; the name begins with a hash of the speaker."""
    what = f"the recordings of {word!r} (version 0.01 has 30 words, 0.02 has 35)"
    for path in need_files(folder / word, "*.wav", what, WHERE):
        speaker, mark, _ = path.name.partition(_SPEAKER_ENDS)
        if not mark:
            raise SourceError(
                f"{path}: the name is not 'SPEAKER{_SPEAKER_ENDS}N.wav'. Take the file out of the folder."
            )
        yield Clip(f"{word}/{path.name}", path, speaker=speaker, text=word)


def _left_out(folder: Path, chosen: Sequence[str]) -> str:
    others = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in (*chosen, _NOISE))
    noise = f"{len(list((folder / _NOISE).glob('*.wav')))} recordings of noise ({_NOISE})"
    return f"{noise}; {len(others)} other folders: {', '.join(others)}" if others else noise


_FACTS = {
    "source": "Speech Commands v0.02: 105,829 recordings of 35 words, most of one second",
    "licence": "CC BY 4.0",
    "citation": "Warden (2018), Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition, arXiv 1804.03209",
    "split": "validation_list.txt chooses, testing_list.txt tests, the others train; a speaker is in one part",
    "transcript": "the text of a clip is its label, so the transcript-only control is 1 by design",
}
