import hashlib
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from brainlit.demo import DemoSource, speech_corpus
from brainlit.demo.source import tell_story
from brainlit.demo.text import category_of, random_stream, word_vectors
from brainlit.encoding import haemodynamic_rows
from brainlit.features.phones import classify_phones, is_pause
from brainlit.stories import ROLES

NUMBERS = """
import hashlib
from brainlit.demo import DemoSource
source = DemoSource(**{settings})
story = source.story("story_004")
responses = source.responses("subject_02", "story_004")
for array in (story.audio, story.words.start_s, responses.values, source.subject("subject_02").vertices):
    print(hashlib.sha256(array.tobytes()).hexdigest())
"""


def test_constructing_reads_and_speaks_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    source = DemoSource(n_voxels=95_556)
    assert len(source.story_names()) == 31
    assert source.subject_names() == ["subject_01", "subject_02", "subject_03"]


def test_settings_are_json_and_tell_sources_apart(source, settings):
    assert json.loads(json.dumps(source.settings())) == source.settings()
    assert DemoSource(**settings).settings() == source.settings()
    assert DemoSource(**settings | {"snr": 0.9}).settings() != source.settings()
    assert DemoSource(**settings | {"hrf": "canonical"}).settings() != source.settings()
    assert DemoSource(**settings | {"n_voxels": [50, 50]}).settings() == source.settings()


def test_it_can_be_sent_to_a_worker_process(source):
    there = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(there.story("story_002").audio, source.story("story_002").audio)


def test_roles_share_out_all_stories_once():
    source = DemoSource()
    roles = source.default_roles()
    assert {role: len(names) for role, names in roles.items()} == {"tune": 14, "choose": 1, "fit": 12, "score": 4}
    assert sorted(name for names in roles.values() for name in names) == sorted(source.story_names())
    assert set(roles) == set(ROLES)


def test_responses_have_one_row_per_volume_and_repeats_where_promised(source):
    roles = source.default_roles()
    for role, names in roles.items():
        n_trs = source.story(names[0]).timebase.n_trs
        responses = source.responses("subject_01", names[0])
        assert responses.values.shape == (n_trs, 50)
        assert responses.values.dtype == np.float32
        if role in ("choose", "score"):
            assert responses.repeats.shape == (3, n_trs, 50)
            np.testing.assert_allclose(responses.repeats.std(axis=1), 1, atol=1e-3)
            mean = responses.repeats.mean(axis=0)
            np.testing.assert_allclose(responses.values, mean, atol=1e-4)
        else:
            assert responses.repeats is None
            np.testing.assert_allclose(responses.values.std(axis=0), 1, atol=1e-3)


def test_a_single_presentation_has_no_repeats(settings):
    source = DemoSource(**settings | {"n_repeats": 1})
    assert source.responses("subject_01", "story_005").repeats is None


def test_noise_free_signals_are_what_the_voxels_follow(source):
    truth = source.subject("subject_01").truth
    story = source.default_roles()["score"][0]
    signal, responses = source.noise_free("subject_01", story), source.responses("subject_01", story)
    hears = truth["kind"] > 0
    ceiling = (signal * responses.values).mean(axis=0) / responses.values.std(axis=0)
    assert ceiling[hears].mean() == pytest.approx(np.sqrt(expected_fraction(truth, 3))[hears].mean(), abs=0.08)
    assert not ceiling[~hears].any()
    with pytest.raises(ValueError, match="part is 'visual'"):
        source.noise_free("subject_01", story, "visual")


def expected_fraction(truth, n_repeats):
    fraction = truth["signal_fraction"]
    return fraction / (fraction + (1 - fraction) / n_repeats)


def test_kinds_and_regions_agree(source):
    for name in source.subject_names():
        subject = source.subject(name)
        kind = subject.truth["kind"]
        assert np.bincount(kind).tolist() == [8, 11, 17, 2, 2, 2, 8]
        assert (subject.regions["semantic"] == (kind == 2)).all()
        assert (kind[subject.regions["auditory_cortex"]] == 1).all()
        assert (kind[subject.regions["angular_gyrus"]] == 2).all()
        assert (kind[subject.regions["visual_cortex"]] == 0).all()
        assert all(mask.any() for mask in subject.regions.values())
        assert ((subject.coordinates_mm[:, 0] < 0) == subject.regions["left_hemisphere"]).mean() > 0.95
        assert subject.vertices.min() >= 0
        assert subject.vertices.max() < 20_484


def test_words_are_unseen_where_the_source_says_so(source):
    unseen, roles = source.unseen_words(), source.default_roles()
    for role, words in unseen.items():
        assert len(words) == 24
        said = {word.lower() for story in roles[role] for word in source.story(story).words.labels}
        assert not said & set(words)
    assert DemoSource(seed=1).unseen_words() != unseen


def test_much_of_what_is_scored_is_made_of_words_that_tuning_never_heard():
    source = DemoSource(n_tune=0, n_choose=0, n_fit=0, n_score=6)
    new = set(source.unseen_words()["tune"])
    said = [word.lower() for story in source.story_names() for word in source.story(story).words.labels]
    content = np.array([word in new for word in said if word in category_of()])
    # a stretch: 15 content words on end, some 14 s of speech
    stretches = np.convolve(content, np.ones(15), mode="valid") / 15
    assert 0.35 < content.mean() < 0.65
    assert (stretches == 1).mean() > 0.08


def test_without_a_share_there_are_no_such_voxels(settings):
    source = DemoSource(**settings | {"brain_only_share": 0.0})
    truth = source.subject("subject_01").truth
    assert np.bincount(truth["kind"], minlength=7)[6] == 0
    assert not {"brain_only", "temporal_pole", "fusiform"} & set(source.subject("subject_01").regions)
    assert not truth["brain_only_fraction"].any()
    assert source.noise_free("subject_01", "story_001").shape[1] == 50


def test_every_kind_has_a_dozen_voxels_by_default():
    subject = DemoSource(seed=3).subject("subject_02")
    assert subject.n_voxels == 300
    assert min(np.bincount(subject.truth["kind"], minlength=7)) >= 12


def test_feature_spaces_cover_the_content_words(source):
    story = source.story("story_001")
    spaces = source.feature_spaces(story)
    assert [space.name for space in spaces if space.kind == "semantic"] == ["word_vectors"]
    assert len([space for space in spaces if space.kind == "low_level"]) == 6
    content = np.mean([word.lower() in category_of() for word in story.words.labels])
    assert spaces[-1].coverage == pytest.approx(content)
    assert all(len(space.values) == story.timebase.n_trs for space in spaces)


def test_meaning_moves_semantic_voxels_and_not_auditory_ones():
    """Word vectors, delayed, predict the signal of semantic voxels in another story, and little of auditory ones."""
    source = DemoSource(n_tune=1, n_choose=0, n_fit=0, n_score=1, story_minutes=6.0, n_subjects=1, n_voxels=60)
    lagged, signal = [], []
    for name in source.story_names():
        vectors = source.feature_spaces(source.story(name))[-1].values
        lagged.append(np.hstack([np.roll(vectors, lag, axis=0) for lag in (2, 3)])[5:])
        signal.append(source.noise_free("subject_01", name)[5:])
    gram = lagged[0].T @ lagged[0] + 300 * np.eye(lagged[0].shape[1])
    predicted = lagged[1] @ np.linalg.solve(gram, lagged[0].T @ signal[0])
    kind = source.subject("subject_01").truth["kind"]
    r = [np.corrcoef(predicted[:, v], signal[1][:, v])[0, 1] if kind[v] else 0.0 for v in range(60)]
    r_auditory, r_semantic = (np.mean(np.asarray(r)[kind == number]) for number in (1, 2))
    assert r_semantic > 0.4
    assert r_auditory < r_semantic - 0.2


def test_the_order_of_calls_does_not_matter(source, settings):
    for name in source.story_names():
        source.responses("subject_01", name)
    fresh = DemoSource(**settings).responses("subject_02", "story_005")
    np.testing.assert_array_equal(fresh.repeats, source.responses("subject_02", "story_005").repeats)


def test_another_process_finds_the_same_numbers(source, settings):
    code = NUMBERS.format(settings=settings)
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    story, responses = source.story("story_004"), source.responses("subject_02", "story_004")
    arrays = (story.audio, story.words.start_s, responses.values, source.subject("subject_02").vertices)
    assert output.split() == [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]


def test_another_seed_is_another_experiment(source, settings):
    other = DemoSource(**settings | {"seed": 1})
    assert other.story("story_001").words.labels != source.story("story_001").words.labels
    assert not np.array_equal(other.subject("subject_01").vertices, source.subject("subject_01").vertices)


@pytest.mark.parametrize("tr_s", [1.5, 2.0045])
def test_other_repetition_times(settings, tr_s):
    source = DemoSource(**settings | {"tr_s": tr_s, "n_tune": 1, "n_fit": 0, "n_choose": 0, "n_score": 0})
    story = source.story("story_001")
    assert story.timebase.tr_s == tr_s
    assert len(source.responses("subject_01", "story_001").values) == story.timebase.n_trs


def test_subjects_may_have_different_numbers_of_voxels(settings):
    source = DemoSource(**settings | {"n_voxels": [7, 30]})
    assert [source.subject(name).n_voxels for name in source.subject_names()] == [7, 30]
    assert source.responses("subject_01", "story_001").values.shape[1] == 7


def test_only_some_sound_is_held(settings, monkeypatch):
    monkeypatch.setattr("brainlit.demo.source._SAMPLES_HELD", 1_500_000)
    source = DemoSource(**settings)
    for name in source.story_names():
        source.story(name)
    assert 1 <= len(source._held) <= 2
    assert source.story("story_005") is source.story("story_005")


def test_unknown_names_are_refused_with_the_nearest(source):
    with pytest.raises(ValueError, match=r"no story 'story_01'\. Did you mean 'story_0"):
        source.story("story_01")
    with pytest.raises(ValueError, match="no story 'x'"):
        source.responses("subject_01", "x")
    with pytest.raises(
        ValueError, match=r"no subject 'subject_1'\. Did you mean 'subject_01'\? Known: subject_01, subject_02"
    ):
        source.subject("subject_1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_tune": -1}, "n_tune is -1"),
        ({"seed": -3}, "seed is -3"),
        ({"n_tune": 0, "n_choose": 0, "n_fit": 0, "n_score": 0}, "at least one story"),
        ({"n_subjects": 0}, "n_subjects is 0"),
        ({"n_repeats": 0}, "n_repeats is 0"),
        ({"n_voxels": [10]}, r"n_voxels is \[10\] for 2 subjects"),
        ({"n_voxels": 0}, "n_voxels"),
        ({"semantic_share": 0.8}, "sum to <= 1"),
        ({"auditory_share": -0.1}, "auditory_share -0.1.*shares of at least 0"),
        ({"brain_only_share": 0.5}, r"brain_only_share 0\.5; need shares of at least 0 that sum to <= 1"),
        ({"snr": -1.0}, "snr is -1"),
        ({"snr": float("nan")}, "snr is nan"),
        ({"tr_s": 0.0}, "tr_s 0.0"),
        ({"story_minutes": 0.1}, "at least 8 volumes"),
        ({"hrf": "varid"}, "hrf is 'varid'.*varied"),
    ],
)
def test_impossible_settings_are_refused(settings, change, message):
    with pytest.raises(ValueError, match=message):
        DemoSource(**settings | change)


@pytest.mark.parametrize(("tr_s", "minutes"), [(2.0, 0.5), (2.0045, 3.5), (0.7, 1.2)])
def test_responses_have_passed_the_filter_that_is_stated(settings, tr_s, minutes):
    source = DemoSource(**settings | {"tr_s": tr_s, "story_minutes": minutes})
    stated = source.response_filter()
    assert stated.standardised
    for rows in (source.noise_free("subject_01", "story_001"), source.responses("subject_01", "story_001").values):
        np.testing.assert_allclose(stated.apply(rows, tr_s), rows, atol=1e-5)
    n_trs = len(source.noise_free("subject_01", "story_001"))
    slow = np.cos(np.pi * np.outer(np.arange(n_trs) + 0.5, np.arange(40)) / n_trs)
    left = stated.apply(slow, tr_s).std(axis=0) > 1e-3
    assert np.flatnonzero(left)[0] == int(2 * n_trs * tr_s / 128) + 1, "cosines of 128 s and more, and no faster ones"


def test_a_row_is_the_end_of_its_volume(settings):
    """The moment that is stated is the one at which own-rate features, read there, explain the signal best."""
    source = DemoSource(**settings | {"story_minutes": 3.5, "hrf": "canonical", "snr": 2.0})
    assert source.slice_reference() == 1.0
    clock, words = source.story("story_001").timebase, source.story("story_001").words
    signal = source.noise_free("subject_01", "story_001", "semantic")
    vectors = np.stack([word_vectors().get(word.lower(), np.zeros(24)) for word in words.labels])
    voxels, missed = signal.std(axis=0) > 0, {}
    for reference in (0.0, 0.5, 1.0, 1.5):
        read_s = clock.tr_starts_s + reference * clock.tr_s
        rows = haemodynamic_rows(vectors, words.middle_s, read_s)["hrf"]
        rows = source.response_filter().apply(rows, clock.tr_s)[16:]  # in the first 32 s the baseline counts
        heard = signal[16:, voxels]
        missed[reference] = np.square(heard - rows @ np.linalg.lstsq(rows, heard, rcond=None)[0]).mean()
    assert min(missed, key=missed.get) == 1.0
    assert missed[1.0] < 0.2 * min(missed[0.5], missed[1.5])


@pytest.mark.parametrize("tr_s", [1.5, 2.0, 2.0045])
def test_the_sound_fills_the_volumes_exactly(tr_s):
    story = tell_story("s", np.random.default_rng(0), 0.5, tr_s)
    assert story.timebase.tr_starts_s[0] == 0
    assert len(story.audio) == story.timebase.samples_at(story.timebase.end_s)
    assert story.words.end_s[-1] <= story.timebase.end_s
    assert (story.timebase.trs_at(story.words.middle_s) >= 0).all()
    assert story.audio.dtype == np.int16
    assert story.timebase.tr_s == tr_s


@pytest.mark.parametrize("minutes", [0.5, 2.0])
def test_stories_are_about_as_long_as_asked(minutes):
    lengths_s = [tell_story("s", random_stream(k, "length"), minutes, 2.0).timebase.end_s for k in range(3)]
    assert abs(np.mean(lengths_s) / 60 - minutes) < 0.15 * minutes + 0.03


def test_a_story_too_short_for_its_clock_is_refused():
    with pytest.raises(ValueError, match=r"make it at least 0.27 minutes"):
        tell_story("s", np.random.default_rng(0), 0.2, 2.0)


def test_the_corpus_has_words_phones_and_content():
    corpus = speech_corpus(seed=0, minutes=1.5, story_minutes=0.5)
    assert [story.name for story in corpus] == ["speech_001", "speech_002", "speech_003"]
    assert sum(story.timebase.end_s for story in corpus) == pytest.approx(90, abs=20)
    words = [word.lower() for story in corpus for word in story.words.labels]
    assert sum(word in category_of() for word in words) > 0.15 * len(words)
    assert all(story.phones is not None for story in corpus)


def test_every_phone_of_the_voices_has_a_class():
    labels = [label for story in speech_corpus(seed=3, minutes=1.0, story_minutes=0.5) for label in story.phones.labels]
    assert not any(is_pause(label) for label in labels)
    assert (classify_phones(labels).sum(axis=1) == 1).all()


def test_seeds_give_other_texts_and_the_demo_tells_other_stories(source):
    one, again, other = (speech_corpus(seed, 0.5)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.audio, again.audio)
    assert one.words.labels != other.words.labels
    assert one.words.labels != source.story("story_001").words.labels


def test_no_minutes_are_refused():
    with pytest.raises(ValueError, match="minutes is 0"):
        speech_corpus(0, 0)
