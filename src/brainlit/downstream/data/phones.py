"""The 61 symbols of TIMIT's phonetic transcription and the 39 classes into which they are folded."""

from __future__ import annotations

_FOLDED = {
    **{"ao": "aa", "ax": "ah", "ax-h": "ah", "axr": "er", "hv": "hh", "ix": "ih", "ux": "uw", "zh": "sh"},
    **{"el": "l", "em": "m", "en": "n", "nx": "n", "eng": "ng"},
    **dict.fromkeys(("bcl", "dcl", "gcl", "pcl", "tcl", "kcl", "epi", "pau", "h#"), "sil"),
}
_AS_THEY_ARE = """
    aa ae ah aw ay b ch d dh dx eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z
"""
DROPPED = "q"
"""The glottal stop, which is no phoneme of English: left out, as Lee & Hon do."""

CLASS_OF: dict[str, str | None] = {**{name: name for name in _AS_THEY_ARE.split()}, **_FOLDED, DROPPED: None}
"""Class of each of the 61 symbols, None for the glottal stop.

Lee & Hon (1989), Speaker-independent phone recognition using hidden Markov models, IEEE Transactions on Acoustics,
Speech and Signal Processing 37, 1641-1648: 61 symbols are folded into 48 for training and these into 39 for scoring.
Both steps at once here; closures, pauses and the silence around an utterance become one class, "sil".
"""

CLASSES = tuple(sorted({name for name in CLASS_OF.values() if name is not None}))
"""The 39 classes in alphabetical order."""
