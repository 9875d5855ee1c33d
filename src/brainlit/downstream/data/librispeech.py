"""LibriSpeech: read audio books in short pieces, with their words (Panayotov et al. 2015)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from brainlit.downstream.clip import Clip
from brainlit.downstream.data.files import inside, need_file, need_folder, numbered_lines, plain_text
from brainlit.downstream.task import RecognitionTask, make_recognition_task
from brainlit.hints import did_you_mean
from brainlit.stories import SourceError

WHERE = "openslr.org/12"
_SETS = (
    *("train-clean-100", "train-clean-360", "train-other-500"),
    *("dev-clean", "dev-other", "test-clean", "test-other"),
)
PARTS = {"train": "train-clean-100", "choose": "dev-clean", "test": "test-clean"}


def load_recognition(
    folder: Path, sets: Mapping[str, str] | None = None, utterances: Iterable[str] | None = None
) -> RecognitionTask:
    """What is read, in letters.

    Parameters
    ----------
    folder : Path
        Holds train-clean-100 and the others, itself or in 'LibriSpeech'.
    sets : mapping of part to str, optional
        Which set is which part; None is train-clean-100, dev-clean and test-clean. Further test parts may follow:
        {..., "test_other": "test-other"}.
    utterances : iterable of str, optional
        Only these of the training set, such as '103-1240-0000': a list of ten minutes or an hour. The other parts stay
        whole.

    Raises
    ------
    FileNotFoundError
        If a set, a chapter's words or a sound is missing.
    SourceError
        If a line of the words is damaged.
    ValueError
        If a set is unknown, is two parts, or an utterance is not in the training set.
    """
    chosen = dict(PARTS if sets is None else sets)
    for part, name in chosen.items():
        if name not in _SETS:
            raise ValueError(f"part {part!r} is to be the set {name!r}. {did_you_mean(name, _SETS)}")
    if not set(PARTS) <= set(chosen) or len(set(chosen.values())) < len(chosen):
        raise ValueError(f"sets are {chosen}; train, choose and test need a set each, and a set is one part.")
    root = inside(need_folder(folder, "LibriSpeech", WHERE), chosen["train"], "LibriSpeech")
    wanted = None if utterances is None else set(utterances)
    clips = {part: list(_read_set(root, name, wanted if part == "train" else None)) for part, name in chosen.items()}
    facts = {**_FACTS, "split": ", ".join(f"{part} is {name}" for part, name in chosen.items())}
    if wanted is not None:
        facts["left_out"] = f"all of {chosen['train']} but {len(clips['train'])} utterances"
    if wanted is not None and len(wanted) != len(clips["train"]):
        lost = sorted(wanted - {clip.name for clip in clips["train"]})
        raise ValueError(
            f"{len(lost)} of {len(wanted)} utterances are not in {chosen['train']}, the first is {lost[0]!r}; they are"
            " named 'SPEAKER-CHAPTER-NNNN'."
        )
    return make_recognition_task("librispeech/recognition", clips, facts)


def _read_set(root: Path, name: str, wanted: set[str] | None) -> Iterator[Clip]:
    """Clips of one set, by speaker, chapter and number."""
    home = need_folder(root / name, f"the set {name} of LibriSpeech", WHERE)
    chapters = sorted(path for path in home.glob("*/*") if path.is_dir())
    if not chapters:
        raise FileNotFoundError(f"{home} holds no SPEAKER/CHAPTER: the set {name} of LibriSpeech; get it from {WHERE}.")
    for chapter in chapters:
        speaker = chapter.parent.name
        words = chapter / f"{speaker}-{chapter.name}.trans.txt"
        for utterance, text in _read_words(words):
            if wanted is None or utterance in wanted:
                sound = need_file(chapter / f"{utterance}.flac", f"the sound of {utterance}", WHERE)
                yield Clip(utterance, sound, speaker=speaker, text=text)


def _read_words(path: Path) -> Iterator[tuple[str, str]]:
    """A line per utterance: its name, a space, its words in capitals."""
    for number, line in numbered_lines(path, "the words of a chapter", WHERE):
        utterance, _, text = line.partition(" ")
        if not utterance.startswith(path.name.removesuffix(".trans.txt") + "-") or not plain_text(text):
            raise SourceError(
                f"{path}, line {number}: {line!r} is not an utterance of this chapter and its words. Get it again from"
                f" {WHERE}."
            )
        yield utterance, plain_text(text)


_FACTS = {
    "source": "LibriSpeech, openslr.org/12",
    "licence": "CC BY 4.0",
    "citation": "Panayotov, Chen, Povey & Khudanpur (2015), LibriSpeech: an ASR corpus based on public domain audio"
    " books, ICASSP, 5206-5210, doi:10.1109/ICASSP.2015.7178964",
}
