"""Tasks on the demo's speech, whose labels are exact: what offline runs show, and what they do not generalise to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from brainlit.demo.grammar import FILLERS, TEMPLATES
from brainlit.demo.lexicon import category_of
from brainlit.downstream.demo_speech import (
    UNSEEN_VOICES,
    SpokenSentence,
    SpokenWord,
    say_sentences,
    say_words,
    sentence_type,
    unseen_templates,
    unseen_words,
)
from brainlit.downstream.task import CHOOSE, TEST, TRAIN, Example, Task, make_task
from brainlit.hints import did_you_mean

UNSEEN_WORDS_PART, UNSEEN_VOICES_PART = "test_unseen_words", "test_unseen_voices"
UNSEEN_TEMPLATES_PART = "test_unseen_templates"
WORD_TASKS = ("demo/phones", "demo/word_identity", "demo/word_category")
SENTENCE_TASKS = ("demo/sentence_type", "demo/speaker")
DEMO_TASKS = (*WORD_TASKS, *SENTENCE_TASKS)

_FACTS = {
    "source": "the demo's grammar, spoken by espeak-ng; texts are none of the stories', the eight voices of training"
    " are theirs",
    "licence": "synthetic; no rights are claimed",
}
_UNSEEN_WORDS_NOTE = (
    "unseen words are unseen by the probe; a model that was tuned on the demo's stories has heard them there"
)


@dataclass(frozen=True)
class DemoSize:
    """How much is said.

    Parameters
    ----------
    train, choose, test, unseen_words, unseen_voices : int
        How often each word is said in a part. 72 of the 96 words are in train, choose, test and the part of unseen
        voices, the other 24 in the part of unseen words.
    sentences_train, sentences_choose, sentences_test, sentences_unseen : int
        Sentences of each of the four types in a part; `sentences_unseen` in each of the two parts of unseen templates
        and unseen voices.
    """

    train: int = 8
    choose: int = 3
    test: int = 8
    unseen_words: int = 12
    unseen_voices: int = 4
    sentences_train: int = 40
    sentences_choose: int = 15
    sentences_test: int = 20
    sentences_unseen: int = 15

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"demo size {name} is {value}; every part needs some clips: give at least 1.")


def demo_tasks(names: Sequence[str] = DEMO_TASKS, seed: int = 0, size: DemoSize | None = None) -> dict[str, Task]:
    """The offline tasks, in the order asked for; those on words share their clips, and so do those on sentences.

    demo/phones (which phones a word has), demo/word_identity and demo/word_category (of eight) hear words cut out of
    sentences; demo/sentence_type and demo/speaker hear sentences. The same seed gives the same sound.

    Raises
    ------
    ValueError
        If a task is unknown.
    EspeakMissingError
        If espeak-ng is not installed.
    """
    for name in names:
        if name not in DEMO_TASKS:
            raise ValueError(f"there is no task {name!r}. {did_you_mean(name, DEMO_TASKS)}")
    how = size or DemoSize()
    words = _words(seed, how) if set(names) & set(WORD_TASKS) else {}
    sentences = _sentences(seed, how) if set(names) & set(SENTENCE_TASKS) else {}
    return {name: _BUILDERS[name](words if name in WORD_TASKS else sentences) for name in names}


def _words(seed: int, size: DemoSize) -> dict[str, list[SpokenWord]]:
    new = sorted(unseen_words(seed))
    old = [word for word in category_of() if word not in new]
    return {
        TRAIN: say_words(seed, TRAIN, old, size.train),
        CHOOSE: say_words(seed, CHOOSE, old, size.choose),
        TEST: say_words(seed, TEST, old, size.test),
        UNSEEN_WORDS_PART: say_words(seed, UNSEEN_WORDS_PART, new, size.unseen_words),
        UNSEEN_VOICES_PART: say_words(seed, UNSEEN_VOICES_PART, old, size.unseen_voices, UNSEEN_VOICES),
    }


def _sentences(seed: int, size: DemoSize) -> dict[str, list[SpokenSentence]]:
    new = sorted(unseen_templates(seed))
    old = [template for template in (*TEMPLATES, *FILLERS) if template not in new]
    return {
        TRAIN: say_sentences(seed, TRAIN, old, size.sentences_train),
        CHOOSE: say_sentences(seed, CHOOSE, old, size.sentences_choose),
        TEST: say_sentences(seed, TEST, old, size.sentences_test),
        UNSEEN_TEMPLATES_PART: say_sentences(seed, UNSEEN_TEMPLATES_PART, new, size.sentences_unseen),
        UNSEEN_VOICES_PART: say_sentences(seed, UNSEEN_VOICES_PART, old, size.sentences_unseen, UNSEEN_VOICES),
    }


def _phones(words: Mapping[str, Sequence[SpokenWord]]) -> Task:
    examples: dict[str, list[Example]] = {
        part: [(word.clip, sorted(word.phones)) for word in spoken] for part, spoken in words.items()
    }
    facts = {**_FACTS, "note": _UNSEEN_WORDS_NOTE}
    return make_task("demo/phones", "multi", examples, facts=facts, drop_unknown=True, same_sound="drop")


def _word_identity(words: Mapping[str, Sequence[SpokenWord]]) -> Task:
    examples: dict[str, list[Example]] = {
        part: [(word.clip, word.clip.text) for word in spoken]
        for part, spoken in words.items()
        if part != UNSEEN_WORDS_PART
    }
    return make_task("demo/word_identity", "single", examples, metric="accuracy", facts=_FACTS, same_sound="drop")


def _word_category(words: Mapping[str, Sequence[SpokenWord]]) -> Task:
    examples: dict[str, list[Example]] = {
        part: [(word.clip, category_of()[word.clip.text]) for word in spoken] for part, spoken in words.items()
    }
    facts = {**_FACTS, "note": _UNSEEN_WORDS_NOTE}
    return make_task("demo/word_category", "single", examples, metric="accuracy", facts=facts, same_sound="drop")


def _sentence_type(sentences: Mapping[str, Sequence[SpokenSentence]]) -> Task:
    examples: dict[str, list[Example]] = {
        part: [(sentence.clip, sentence_type(sentence.template)) for sentence in spoken]
        for part, spoken in sentences.items()
    }
    note = "train and test share their templates; only the part of unseen templates asks for the type itself"
    facts = {**_FACTS, "note": note}
    return make_task("demo/sentence_type", "single", examples, metric="accuracy", facts=facts, same_sound="drop")


def _speaker(sentences: Mapping[str, Sequence[SpokenSentence]]) -> Task:
    examples: dict[str, list[Example]] = {
        part: [(sentence.clip, sentence.clip.speaker) for sentence in spoken]
        for part, spoken in sentences.items()
        if part != UNSEEN_VOICES_PART
    }
    return make_task("demo/speaker", "single", examples, metric="accuracy", facts=_FACTS, same_sound="drop")


_BUILDERS: dict[str, Callable[..., Task]] = {
    "demo/phones": _phones,
    "demo/word_identity": _word_identity,
    "demo/word_category": _word_category,
    "demo/sentence_type": _sentence_type,
    "demo/speaker": _speaker,
}
