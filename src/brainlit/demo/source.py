"""The demo as a data set, and its speech as a corpus for backbones: nothing to download, and the answer is known."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from brainlit.demo.haemodynamics import CUTOFF_S, Hrf
from brainlit.demo.listeners import KINDS, PARTS, Listener, Part, Stimulus, principal_components, stimulus_of
from brainlit.demo.speech import VOICES, speak
from brainlit.demo.text import Scenes, random_stream, scenes_of, unheard_words, write_story
from brainlit.demo.text import word_vectors as lexicon_vectors
from brainlit.features import low_level_spaces, word_vectors
from brainlit.hints import did_you_mean
from brainlit.stories import FeatureSpace, ResponseFilter, Responses, Story, StorySource, Subject
from brainlit.stories.base import Float32Array, FloatArray
from brainlit.timebase import SAMPLE_RATE_HZ, TimeBase

RECIPE = 4
"""Raised whenever a change makes the same settings give other numbers; part of the settings of a store."""

N_COMPONENT_STORIES = 10
"""The low-level components are those of the first ten stories (of all, where there are fewer)."""

_SAMPLES_HELD = 50_000_000
"""Sound kept for the next call: 52 minutes, 100 MB; at least the last story."""

RATE_WPM = (160, 195)
PITCH = (35, 65)
WORDS_PER_S_PER_WPM = 0.0193
"""Words per second that espeak-ng really speaks, per nominal word per minute, in stories of this grammar (measured)."""

MIN_TRS = 8
"""A story shorter than this many volumes cannot be detrended and z-scored sensibly."""


class DemoSource(StorySource):
    """Stories from a grammar, spoken by espeak-ng, heard by simulated listeners.

    Stories are named story_001, story_002, ...; the first n_tune are for tuning, the next n_choose for choosing, then
    n_fit for fitting encoding models and n_score for the score. A quarter of the content words is never said in stories
    for tuning, another quarter never in those for fitting (`unseen_words`); about a third of the scenes of the others
    are made of words that tuning never heard. Listeners are subject_01, subject_02, ...; all hear
    all stories. Everything depends on the settings only: not on the order of calls, nor on the process.

    Parameters
    ----------
    seed : int
        Decides texts, voices, voxels, weights, noise and which words are unseen. The meaning of the words is the same
        for all seeds.
    n_tune : int
        Stories for tuning.
    n_choose : int
        Stories for choosing checkpoints and voxels.
    n_fit : int
        Stories for fitting encoding models.
    n_score : int
        Stories that are only scored.
    story_minutes : float
        Length of a story, met within some 10 %.
    tr_s : float
        Repetition time; the first volume starts with the sound.
    n_subjects : int
        How many listeners there are.
    n_voxels : int or list of int
        Voxels per subject: one number for all, or one for each.
    auditory_share : float
        Share of voxels that follow low-level features.
    semantic_share : float
        Share of voxels that follow meaning.
    modulation_share : float
        Share of voxels that follow how sound is modulated, without meaning and not among the probe's low-level features
        (`brainlit.demo.planted`).
    attention_share : float
        Share of voxels that follow loudness times the listener's own attention, likewise.
    arousal_share : float
        Share of voxels that follow sound and a state of arousal over tens of seconds, likewise.
    brain_only_share : float
        Share of voxels that follow a meaning of words that no text has. Voxels of no share are null.
    snr : float
        Factor on the signal fraction of every voxel (uniform over 0.08..0.55 at 1; at most 0.95).
    n_repeats : int
        How often stories for choosing and scoring are presented; the others once.
    hrf : 'varied' or 'canonical'
        Haemodynamic responses that differ by voxel and listener, with peaks 4 to 7 s after an event
        (`brainlit.demo.haemodynamics`), or SPM's double gamma in all voxels. Nothing else changes with it.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    name = "demo"

    def __init__(
        self,
        *,
        seed: int = 0,
        n_tune: int = 14,
        n_choose: int = 1,
        n_fit: int = 12,
        n_score: int = 4,
        story_minutes: float = 3.5,
        tr_s: float = 2.0,
        n_subjects: int = 3,
        n_voxels: int | list[int] = 300,
        auditory_share: float = 0.22,
        semantic_share: float = 0.34,
        modulation_share: float = 0.05,
        attention_share: float = 0.05,
        arousal_share: float = 0.05,
        brain_only_share: float = 0.15,
        snr: float = 1.0,
        n_repeats: int = 5,
        hrf: Hrf = "varied",
    ) -> None:
        self._settings: dict[str, Any] = {
            "seed": seed,
            "n_tune": n_tune,
            "n_choose": n_choose,
            "n_fit": n_fit,
            "n_score": n_score,
            "story_minutes": story_minutes,
            "tr_s": tr_s,
            "n_subjects": n_subjects,
            "n_voxels": list(n_voxels) if isinstance(n_voxels, Sequence) else [n_voxels] * n_subjects,
            "auditory_share": auditory_share,
            "semantic_share": semantic_share,
            "modulation_share": modulation_share,
            "attention_share": attention_share,
            "arousal_share": arousal_share,
            "brain_only_share": brain_only_share,
            "snr": snr,
            "n_repeats": n_repeats,
            "hrf": hrf,
        }
        _check(self._settings)
        self._role_sizes = {"tune": n_tune, "choose": n_choose, "fit": n_fit, "score": n_score}
        shares = {kind: float(self._settings[f"{kind}_share"]) for kind in KINDS[1:]}
        self._listeners = {
            f"subject_{k:02d}": Listener(f"subject_{k:02d}", seed, n, shares, snr, hrf)
            for k, n in enumerate(self._settings["n_voxels"], start=1)
        }
        self._story_names = [f"story_{k:03d}" for k in range(1, sum(self._role_sizes.values()) + 1)]
        self._held: OrderedDict[str, Story] = OrderedDict()
        self._stimuli: dict[str, Stimulus] = {}
        self._components: FloatArray | None = None

    def settings(self) -> dict[str, Any]:
        """All settings and the version of the recipe."""
        return {"source": self.name, "recipe": RECIPE, **self._settings}

    def story_names(self) -> list[str]:
        """story_001 and so on."""
        return list(self._story_names)

    def subject_names(self) -> list[str]:
        """subject_01 and so on."""
        return list(self._listeners)

    def default_roles(self) -> dict[str, list[str]]:
        """The stories in order: first those for tuning, then choosing, fitting and scoring."""
        names = iter(self._story_names)
        return {role: [next(names) for _ in range(size)] for role, size in self._role_sizes.items()}

    def unseen_words(self) -> dict[str, tuple[str, ...]]:
        """Content words that occur in no story for tuning ('tune'), and in none for fitting ('fit'): 24 each, sorted.

        Stories for choosing and scoring have all words. See `brainlit.demo.text.unheard_words`.
        """
        return dict(unheard_words(self._settings["seed"]))

    def story(self, name: str) -> Story:
        """A story, spoken now or held from the last few calls."""
        self._known(name, self._story_names, "story")
        if name not in self._held:
            seed, role = self._settings["seed"], self._role_of(name)
            how = self._settings["story_minutes"], self._settings["tr_s"], scenes_of(role, seed)
            self._held[name] = tell_story(name, random_stream(seed, "story", name), *how)
            while len(self._held) > 1 and sum(len(story.audio) for story in self._held.values()) > _SAMPLES_HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(name)
        return self._held[name]

    def feature_spaces(self, story: Story) -> list[FeatureSpace]:
        """All low-level spaces, and the true vectors of the content words (function words have none)."""
        source = "the demo's own lexicon: the meaning that semantic voxels follow"
        return [*low_level_spaces(story), word_vectors(story, lexicon_vectors(), source)]

    def subject(self, name: str) -> Subject:
        """Voxels of a listener, with the planted answers in `truth`.

        truth['kind'] is the number in `brainlit.demo.listeners.KINDS`: 0 null, 1 auditory, 2 semantic, 3 modulation,
        4 attention, 5 arousal, 6 brain_only; truth['signal_fraction'] the share of signal in the variance of one
        presentation; truth['low_level_fraction'] and so on the share in the signal of each of PARTS. Where
        responses vary, truth['peak_s'] and truth['width_s'] are the seconds from an event to the peak of the voxel's
        response and its full width at half the height, and truth['undershoot'] the depth of what is subtracted as
        undershoot over the height of the peak (see `brainlit.demo.haemodynamics.VoxelResponses`).
        """
        return self._listener(name).subject

    def responses(self, subject: str, story: str) -> Responses:
        """Simulated now: signal plus the noise of each presentation, and the mean over presentations."""
        listener, stimulus = self._listener(subject), self._stimulus(story)
        signal = listener.signals(stimulus, self._low_level_components())
        n_repeats = self._n_presentations(story)
        if n_repeats == 1:
            return Responses(listener.presentation(signal, stimulus.timebase, story, 0))
        repeats = np.stack(
            [listener.presentation(signal, stimulus.timebase, story, repeat) for repeat in range(n_repeats)]
        )
        return Responses(repeats.mean(axis=0), repeats)

    def response_filter(self) -> ResponseFilter:
        """Signal and noise have no quadratic trend and no cosines of 128 s and more; presentations are z-scored."""
        return ResponseFilter(polynomial=2, high_pass_s=CUTOFF_S, source="the recipe of the demo")

    def before_sound(self) -> Literal["silence", "mean"]:
        """The mean: listeners have no response to the onset of the sound (`brainlit.demo.listeners`)."""
        return "mean"

    def slice_reference(self) -> float:
        """1: a row is the signal at the moment at which its volume ends."""
        return 1.0

    def noise_free(self, subject: str, story: str, part: Part | Literal["all"] = "all") -> Float32Array:
        """What a subject's voxels would show without noise: (n_trs, n_voxels), z-scored over the story.

        It is detrended like the data, so its correlation with a response is the voxel's ceiling. With it the true
        partition of variance can be found to any precision, by making as many stories as that takes.

        Parameters
        ----------
        part : 'all', 'low_level', 'semantic', 'modulation', 'attention', 'arousal' or 'brain_only'
            The whole signal, or one of the z-scored parts that it is mixed from; 0 in voxels without it.
        """
        if part not in ("all", *PARTS):
            raise ValueError(f"part is {part!r}. {did_you_mean(part, ('all', *PARTS))}")
        return self._listener(subject).signals(self._stimulus(story), self._low_level_components(), part)

    def _role_of(self, story: str) -> str:
        return next(role for role, stories in self.default_roles().items() if story in stories)

    def _n_presentations(self, story: str) -> int:
        return int(self._settings["n_repeats"]) if self._role_of(story) in ("choose", "score") else 1

    def _stimulus(self, story: str) -> Stimulus:
        if story not in self._stimuli:
            self._stimuli[story] = stimulus_of(self.story(story), self._settings["hrf"], self._settings["seed"])
        return self._stimuli[story]

    def _low_level_components(self) -> FloatArray:
        if self._components is None:
            first = self._story_names[:N_COMPONENT_STORIES]
            self._components = principal_components([self._stimulus(name) for name in first])
        return self._components

    def _listener(self, subject: str) -> Listener:
        self._known(subject, list(self._listeners), "subject")
        return self._listeners[subject]

    def _known(self, name: str, names: Sequence[str], what: str) -> None:
        if name not in names:
            raise ValueError(f"the demo has no {what} {name!r}. {did_you_mean(name, names)}")


def _check(settings: dict[str, Any]) -> None:
    """Refuse settings that make no experiment, naming value and cure."""
    for key in ("seed", "n_tune", "n_choose", "n_fit", "n_score"):
        if settings[key] < 0:
            raise ValueError(f"{key} is {settings[key]}; it cannot be negative.")
    if sum(settings[key] for key in ("n_tune", "n_choose", "n_fit", "n_score")) == 0:
        raise ValueError("n_tune, n_choose, n_fit and n_score are all 0; the demo needs at least one story.")
    for key in ("n_subjects", "n_repeats"):
        if settings[key] < 1:
            raise ValueError(f"{key} is {settings[key]}; it must be at least 1.")
    if len(settings["n_voxels"]) != settings["n_subjects"] or min(settings["n_voxels"]) < 1:
        raise ValueError(
            f"n_voxels is {settings['n_voxels']} for {settings['n_subjects']} subjects; give one positive number, or"
            " one for each subject."
        )
    if settings["hrf"] not in get_args(Hrf):
        raise ValueError(f"hrf is {settings['hrf']!r}. {did_you_mean(settings['hrf'], get_args(Hrf))}")
    shares = {f"{kind}_share": settings[f"{kind}_share"] for kind in KINDS[1:]}
    if min(shares.values()) < 0 or sum(shares.values()) > 1 + 1e-9:
        said = ", ".join(f"{name} {share:g}" for name, share in shares.items())
        raise ValueError(f"shares of voxels are {said}; need shares of at least 0 that sum to <= 1.")
    if not settings["snr"] >= 0:
        raise ValueError(f"snr is {settings['snr']}; it must be 0 or more.")
    if not settings["tr_s"] > 0 or settings["story_minutes"] * 60 < MIN_TRS * settings["tr_s"]:
        raise ValueError(
            f"story_minutes is {settings['story_minutes']} and tr_s {settings['tr_s']}; a story needs at least"
            f" {MIN_TRS} volumes."
        )


# --- Spoken stories ---


def tell_story(
    name: str, rng: np.random.Generator, minutes: float, tr_s: float, scenes: Sequence[Scenes] = ()
) -> Story:
    """Write a story and say it in a voice drawn at random.

    The scanner starts with the sound: volume 0 is acquired from 0 to tr_s seconds. Silence is appended until the
    last volume ends.

    Parameters
    ----------
    minutes : float
        Length aimed at; the voice decides the rest (within some 10 %).
    scenes : sequence of Scenes
        What words are said; all, by default.

    Raises
    ------
    ValueError
        If the story would have fewer than 8 volumes.
    """
    if minutes * 60 < MIN_TRS * tr_s:
        raise ValueError(
            f"a story of {minutes} minutes has fewer than {MIN_TRS} volumes of {tr_s} s; make it at least"
            f" {MIN_TRS * tr_s / 60:.2f} minutes."
        )
    voice = str(rng.choice(VOICES))
    rate_wpm = int(rng.integers(RATE_WPM[0], RATE_WPM[1] + 1))
    pitch, pitch_range = (int(value) for value in rng.integers(PITCH[0], PITCH[1] + 1, size=2))
    text = write_story(rng, n_words=round(minutes * 60 * WORDS_PER_S_PER_WPM * rate_wpm), scenes=scenes)
    speech = speak(text, voice, rate_wpm, pitch, pitch_range)
    n_trs = max(int(np.ceil(len(speech.audio) / SAMPLE_RATE_HZ / tr_s)), MIN_TRS)
    timebase = TimeBase.regular(n_trs, tr_s)
    audio = np.zeros(max(int(timebase.samples_at(timebase.end_s)), len(speech.audio)), dtype=np.int16)
    audio[: len(speech.audio)] = speech.audio
    return Story(name, audio, speech.words, speech.phones, timebase)


def speech_corpus(seed: int, minutes: float, story_minutes: float = 3.5) -> list[Story]:
    """Some minutes of speech with words and phones, and no listeners.

    Lexicon, grammar and voices are those of `DemoSource`; the texts are other ones, whatever the seeds, and have all
    words: who learns the sound of words from them has heard also those that tuning never hears.
    """
    if minutes <= 0:
        raise ValueError(f"minutes is {minutes}; a corpus needs some speech.")
    n_stories = max(1, round(minutes / story_minutes))
    return [
        tell_story(f"speech_{k:03d}", random_stream(seed, "speech corpus", k), minutes / n_stories, tr_s=2.0)
        for k in range(1, n_stories + 1)
    ]
