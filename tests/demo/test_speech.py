import hashlib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlit.demo.speech import (
    VOICES,
    EspeakMissingError,
    PhoneEvent,
    align_words,
    phone_intervals,
    resample_to_16k,
    speak,
)

TEXT = "The furry wolf sat in the corner of a house. It is one of the best, so we ate. Did you see?"


@pytest.fixture(scope="module")
def spoken():
    return speak(TEXT, "en-us+f1", 170, 45, 55)


def digest(speech):
    return hashlib.sha256(speech.audio.tobytes()).hexdigest()


def test_every_word_of_the_text_has_a_time(spoken):
    expected = TEXT.replace(".", "").replace(",", "").replace("?", "").split()
    assert list(spoken.words.labels) == expected
    assert (spoken.words.duration_s > 0.02).all()
    assert (spoken.words.start_s[1:] >= spoken.words.end_s[:-1] - 1e-9).all()
    assert spoken.words.end_s[-1] <= len(spoken.audio) / 16_000


def test_there_is_sound_inside_words_and_silence_elsewhere():
    speech = speak("Money. Rabbit. Windy. Loan. Melody.", "en-us+m3")
    times_s = np.arange(len(speech.audio)) / 16_000
    inside, near = np.zeros((2, len(times_s)), dtype=bool)
    for start_s, end_s in zip(speech.words.start_s, speech.words.end_s, strict=True):
        inside |= (times_s >= start_s) & (times_s < end_s)
        near |= (times_s >= start_s - 0.03) & (times_s < end_s + 0.12)
        word = speech.audio[(times_s >= start_s) & (times_s < end_s)].astype(float)
        assert np.sqrt((word**2).mean()) > 500
    power = speech.audio.astype(float) ** 2
    assert (~near).sum() > 0.1 * len(near)
    assert power[~near].mean() < 1e-4 * power[inside].mean()


def test_phones_are_inside_words_and_have_no_stress_or_pauses(spoken):
    rows = np.searchsorted(spoken.words.start_s, spoken.phones.middle_s, side="right") - 1
    assert (rows >= 0).all()
    assert (spoken.phones.end_s <= spoken.words.end_s[rows] + 1e-9).all()
    assert np.bincount(rows, minlength=len(spoken.words)).min() >= 1
    assert not any(label.startswith(("'", ",", "_")) for label in spoken.phones.labels)


def test_merged_words_share_their_sound_without_a_gap(spoken):
    labels = [label.lower() for label in spoken.words.labels]
    first = labels.index("of")
    assert labels[first + 1] == "a"
    assert spoken.words.end_s[first] == pytest.approx(spoken.words.start_s[first + 1])


def test_rate_and_voice_change_the_sound(spoken):
    slow, fast = speak(TEXT, rate_wpm=120), speak(TEXT, rate_wpm=220)
    assert len(slow.audio) > 1.3 * len(fast.audio)
    assert len({digest(speak("The wolf.", voice)) for voice in VOICES}) == len(VOICES)
    assert digest(speak("The wolf.", pitch=30)) != digest(speak("The wolf.", pitch=60))


def test_the_same_call_gives_the_same_samples_whatever_was_said_before(spoken):
    for voice in ("en-us+m7", "en-us+f2"):
        speak("Six sheep sang while she shut the shop.", voice)
    again = speak(TEXT, "en-us+f1", 170, 45, 55)
    assert digest(again) == digest(spoken)
    np.testing.assert_array_equal(again.words.start_s, spoken.words.start_s)


def test_another_process_gives_the_same_samples():
    """Breathy voices (f2) draw random numbers in the synthesiser and are the hardest case."""
    code = (
        "import hashlib; from brainlit.demo.speech import speak\n"
        f"for voice in ('en-us+f2', 'en-us'): print(hashlib.sha256(speak({TEXT!r}, voice).audio.tobytes()).hexdigest())"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == [digest(speak(TEXT, voice)) for voice in ("en-us+f2", "en-us")]


def test_threads_do_not_disturb_each_other():
    jobs = [
        (f"The {word} was late.", voice) for word, voice in zip(("wolf", "bank", "choir", "fog"), VOICES, strict=False)
    ]
    serial = [digest(speak(*job)) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda job: digest(speak(*job)), jobs)) == serial


def test_a_library_that_someone_else_holds_does_not_share_its_state(spoken):
    import _ctypes
    import ctypes

    import espeakng_loader

    held = ctypes.CDLL(espeakng_loader.get_library_path())
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(lambda *_: 0)
    try:
        assert held.espeak_Initialize(2, 0, str(espeakng_loader.get_data_path()).encode(), 0) == 22050
        held.espeak_SetSynthCallback(callback)
        held.espeak_SetVoiceByName(b"en-us+m7")
        said = b"Six sheep sang while she shut the shop.\0"
        assert held.espeak_Synth(said, ctypes.c_size_t(len(said)), 0, 1, 0, 1, None, None) == 0
        assert digest(speak(TEXT, "en-us+f1", 170, 45, 55)) == digest(spoken)
        held.espeak_Terminate()
    finally:
        _ctypes.dlclose(held._handle)


def test_a_missing_wheel_names_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(EspeakMissingError, match="pip install espeakng-loader"):
        speak("Hello.")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("Hello.", {"voice": "en-gb"}, "does not know the voice 'en-gb'"),
        ("Hello.", {"voice": "elvish"}, "does not know the voice 'elvish'"),
        ("Hello.", {"voice": "en-us+zzz"}, "does not know the voice 'en-us.zzz'"),
        ("... 42!", {}, "has no words to say"),
        ("Hello.", {"rate_wpm": 20}, "rate_wpm is 20; espeak-ng takes 80..450"),
        ("Hello.", {"pitch": 120}, "pitch is 120"),
        ("Hello.", {"pitch_range": -1}, "pitch_range is -1"),
    ],
)
def test_bad_arguments_are_refused(text, options, message):
    with pytest.raises(ValueError, match=message):
        speak(text, **options)


def test_speech_works_after_an_error():
    with pytest.raises(ValueError):
        speak("Hello.", "elvish")
    assert len(speak("Hello.").audio) > 1000


def test_resampling_keeps_times_exactly():
    samples = np.zeros(22_050, dtype=np.int16)
    samples[441 * 25] = 30_000
    resampled = resample_to_16k(samples)
    assert len(resampled) == 16_000
    assert resampled.argmax() == 320 * 25
    around = resampled[320 * 25 - 5 : 320 * 25 + 6]
    np.testing.assert_array_equal(around, around[::-1])
    time_s = np.arange(22_050) / 22_050
    tone = resample_to_16k((10_000 * np.sin(2 * np.pi * 440 * time_s)).astype(np.int16))
    expected = 10_000 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(tone - expected)[200:-200].max() < 20


def spans_of(text):
    return [match.span() for match in re.finditer(r"\w+", text)]


def events_of(*rows):
    return [PhoneEvent(label, position, start_s) for label, position, start_s in rows]


def test_a_word_lasts_from_its_first_phone_to_the_end_of_its_last():
    text = "a cat. so"
    events = events_of(
        ("@", 0, 0.0), ("k", 2, 0.1), ("'a", 2, 0.2), ("t", 2, 0.4), ("_:", 6, 0.5), ("s", 7, 0.8), ("oU", 7, 0.9)
    )
    words = align_words(text, spans_of(text), events, 1.2)
    assert words.labels == ("a", "cat", "so")
    np.testing.assert_allclose(words.start_s, [0.0, 0.1, 0.8])
    np.testing.assert_allclose(words.end_s, [0.1, 0.5, 1.2])
    phones = phone_intervals(events, 1.2)
    assert phones.labels == ("@", "k", "a", "t", "s", "oU")
    np.testing.assert_allclose(phones.end_s, [0.1, 0.2, 0.4, 0.5, 0.9, 1.2])


def test_merged_words_share_the_phones_by_letters_and_get_at_least_one_each():
    text = "in the garden"
    events = events_of(("I", 0, 0.0), ("n", 0, 0.1), ("D", 0, 0.2), ("@", 0, 0.25), ("g", 7, 0.4))
    words = align_words(text, spans_of(text), events, 0.9)
    np.testing.assert_allclose(words.start_s, [0.0, 0.2, 0.4])
    text = "of everything"
    words = align_words(text, spans_of(text), events_of(("v", 0, 0.0), ("E", 0, 0.1)), 0.9)
    np.testing.assert_allclose(words.start_s, [0.0, 0.1])


def test_fewer_phones_than_words_share_the_time():
    text = "of a"
    words = align_words(text, spans_of(text), events_of(("@", 0, 0.3)), 0.6)
    np.testing.assert_allclose(words.start_s, [0.3, 0.5])
    np.testing.assert_allclose(words.duration_s, [0.2, 0.1])


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(0, 2**31))
def test_every_word_has_a_duration_and_words_tile_the_sound(counts, seed):
    rng = np.random.default_rng(seed)
    counts[0] = max(counts[0], 1)
    words = ["x" * int(rng.integers(1, 9)) for _ in counts]
    text = " ".join(words)
    spans = spans_of(text)
    times_s = np.sort(rng.choice(10_000, sum(counts), replace=False)) / 1000
    positions = np.repeat([start for start, _ in spans], counts)
    events = [PhoneEvent("a", int(p), float(t)) for p, t in zip(positions, times_s, strict=True)]
    aligned = align_words(text, spans, events, 10.0)
    assert aligned.labels == tuple(words)
    assert (aligned.duration_s > 0).all()
    assert aligned.start_s[0] == times_s[0]
    np.testing.assert_allclose(aligned.end_s, [*aligned.start_s[1:], 10.0])


def test_events_without_phones_for_the_first_word_are_refused():
    with pytest.raises(RuntimeError, match="no phones for the first word"):
        align_words("a b", spans_of("a b"), events_of(("b", 2, 0.1)), 1.0)
