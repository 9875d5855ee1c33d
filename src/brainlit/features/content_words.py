"""Which words carry content: word forms without case and punctuation, and the function words of English.

Function words (articles, pronouns, prepositions, auxiliaries, conjunctions, a few particles) are in every story and
are left out wherever words are counted as known or new. The list is the closed classes of English; in other languages
short words are left out (`content_mask`), and longer function words count as content.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_CLOSED_CLASSES = """
a about above across after again against ago ah all almost along already also although always am among an and another
any anybody anyone anything anyway are around as at away back be because been before behind being below beneath beside
besides between beyond both but by can cannot could did do does doing done down during each either else enough ever
every everybody everyone everything except few for from had has have having he hello her here hers herself hey him
himself his how however huh i if in inside instead into is it its itself just least less let like lot lots many maybe
me might mine more most much must my myself near neither never no nobody none nor not nothing now of off oh ok okay on
once one ones only onto or other others ought our ours ourselves out outside over own perhaps quite rather really same
shall she should since so some somebody someone something sometimes somewhere still such than that the their theirs
them themselves then there therefore these they thing things this those though through throughout till to together too
toward towards um under underneath unless until up upon us very was we well were what whatever when whenever where
wherever whether which while who whoever whom whose why will with within without would yeah yes yet you your yours
yourself yourselves
"""
FUNCTION_WORDS = frozenset(_CLOSED_CLASSES.split())
LONGER_THAN = 3
"""Letters; without word vectors, shorter words do not count as content."""
_NO_WORD = "<[{("
_ENDINGS = frozenset(("s", "m", "d", "t", "re", "ve", "ll"))
_SHORTENED = {"ca": "can", "wo": "will", "sha": "shall", "ai": "am"}
"""What is left of can't, won't, shan't and ain't without n't."""


def word_form(label: str) -> str:
    """A word without case, without punctuation at its ends, with straight apostrophes; '' for what is no word.

    >>> [word_form(label) for label in ("Dogs,", "it\N{RIGHT SINGLE QUOTATION MARK}s", "[laughter]", "--")]
    ['dogs', "it's", '', '']
    """
    text = label.strip().casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    if text[:1] in _NO_WORD:
        return ""
    inside = [k for k, letter in enumerate(text) if letter.isalnum()]
    return text[inside[0] : inside[-1] + 1] if inside else ""


def is_function_word(form: str) -> bool:
    """Whether a form, or the first part of a contraction, is on the list.

    >>> [is_function_word(form) for form in ("the", "don't", "they're", "can't", "dog", "dog's")]
    [True, True, True, True, False, False]
    """
    first, apostrophe, ending = form.partition("'")
    if apostrophe and ending in _ENDINGS:
        without = first.removesuffix("n") if ending == "t" else first
        return _SHORTENED.get(without, without) in FUNCTION_WORDS
    return form in FUNCTION_WORDS


def content_mask(labels: Sequence[str], has_vector: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.bool_]:
    """Which words carry content: those that have a word vector and are no function words.

    Without word vectors, words longer than three letters, and those of scripts without upper case whatever their
    length.

    Parameters
    ----------
    labels : sequence of str, length n_words
    has_vector : bool array of shape (n_words,), optional

    Returns
    -------
    bool array of shape (n_words,)
    """
    forms = [word_form(label) for label in labels]
    known = [_is_long(form) for form in forms] if has_vector is None else has_vector.tolist()
    content = [
        bool(form) and is_known and not is_function_word(form) for form, is_known in zip(forms, known, strict=True)
    ]
    return np.array(content, dtype=np.bool_)


def _is_long(form: str) -> bool:
    return len(form) > LONGER_THAN or form.upper() == form.lower()
