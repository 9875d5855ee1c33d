import json
from dataclasses import replace

import numpy as np
import pytest

from brainlit.features import STANDARD, FeatureConfig, FeatureExtractor, LanguageModelConfig
from brainlit.features.extractor import FeatureError
from brainlit.stories import FeatureSpace
from brainlit.stories.readers.textgrid import read_textgrid
from tests.features.tone import spoken, tone_story

TIERS = {"frog": spoken("M AA sp M IY", 0.5), "bear": spoken("T UW M IY", 0.5), "owl": spoken("M IY", 0.5)}


class Phones:
    """Phones of the stories, and how often each was asked for."""

    def __init__(self, without=()):
        self.without, self.asked = without, []

    def __call__(self, name):
        self.asked.append(name)
        return None if name in self.without else TIERS[name]


def extractor(phones=None, **settings):
    return FeatureExtractor(FeatureConfig(**settings), list(TIERS), phones or Phones())


def story(name="frog", with_phones=True):
    return replace(tone_story(0, 1), name=name, phones=TIERS[name] if with_phones else None)


def own_space(name="meaning", kind="semantic"):
    return FeatureSpace(name, kind, ("a",), "the source's own", np.zeros((6, 1)))


def names(spaces):
    return [space.name for space in spaces]


def write_vectors(folder):
    path = folder / "small.txt"
    path.write_text("a 1 2\nTREE 3 4\n")
    return str(path)


def test_nothing_said_gives_the_standard_spaces():
    phones = Phones()
    features = extractor(phones)
    assert names(features.spaces(story())) == list(STANDARD)
    assert names(features.spaces(story("bear"))) == list(STANDARD)
    assert features.left_out() == {}
    assert phones.asked == ["frog", "bear", "owl"]


def test_low_level_then_own_then_semantic(tmp_path):
    features = extractor(low_level=["pauses", "mfcc", "diphones"], vectors=write_vectors(tmp_path))
    spaces = features.spaces(story(), [own_space()])
    assert names(spaces) == ["pauses", "mfcc", "diphones", "meaning", "word_vectors"]
    assert spaces[-1].coverage == pytest.approx(2 / 3)
    assert spaces[-1].source == "vectors of the words in small.txt, sum per TR"


def test_a_source_with_low_level_spaces_of_its_own_gets_no_others():
    phones = Phones(without=("owl",))
    features = extractor(phones)
    assert names(features.spaces(story(), [own_space("cochlea", "low_level")])) == ["cochlea"]
    assert features.left_out() == {}
    assert phones.asked == []
    named = extractor(low_level=["envelope"])
    assert names(named.spaces(story(), [own_space("cochlea", "low_level")])) == ["envelope", "cochlea"]


def test_no_low_level_space_at_all():
    assert extractor(low_level=[]).spaces(story()) == []


@pytest.mark.parametrize("low_level", [None, ["envelope", "phones", "articulation"]])
def test_spaces_that_need_phones_are_left_out_everywhere_with_the_reason(low_level):
    phones = Phones(without=("frog", "owl"))
    features = extractor(phones, low_level=low_level)
    expected = list(STANDARD[:4]) if low_level is None else ["envelope"]
    left_out = "phone_rate, phone_classes" if low_level is None else "phones, articulation"
    assert features.left_out() == {left_out: "need phone times; no phones in: frog, owl"}
    for name in TIERS:
        assert names(features.spaces(story(name, name == "bear"))) == expected
    assert phones.asked == list(TIERS)


def test_three_stories_are_named_and_the_others_counted():
    many = [f"story{k}" for k in range(5)]
    features = FeatureExtractor(FeatureConfig(low_level=["phones"]), many, lambda name: None)
    assert features.left_out() == {"phones": "need phone times; no phones in: story0, story1, story2 and 2 more"}


def test_phones_are_not_asked_for_without_need():
    phones = Phones()
    features = extractor(phones, low_level=["envelope", "word_rate"])
    features.spaces(story())
    assert (features.left_out(), phones.asked) == ({}, [])


def test_columns_of_phones_come_from_all_stories_and_are_counted_once():
    phones = Phones()
    features = extractor(phones, low_level=["diphones", "triphones"], max_diphones=2)
    first, second = (features.spaces(story(name)) for name in ("frog", "owl"))
    assert first[0].columns == second[0].columns == ("M-IY", "M-AA")
    assert first[1].columns == ("T-UW-M", "UW-M-IY")
    assert first[0].source == second[0].source
    assert "2 most frequent of 4 diphones" in first[0].source
    assert phones.asked == list(TIERS)


def test_per_tr_reaches_every_space(tmp_path):
    mean, lanczos = (extractor(vectors=write_vectors(tmp_path), per_tr=per_tr) for per_tr in ("mean", "lanczos"))
    for one, other in zip(mean.spaces(story()), lanczos.spaces(story()), strict=True):
        assert not np.allclose(one.values, other.values), one.name
        assert "Lanczos" in other.source


def test_a_name_that_both_give_is_refused(tmp_path):
    with pytest.raises(FeatureError, match=r"'envelope', and data\.features asks"):
        extractor(low_level=["envelope"]).spaces(story(), [own_space("envelope")])
    with pytest.raises(FeatureError, match="'word_vectors'"):
        extractor(vectors=write_vectors(tmp_path)).spaces(story(), [own_space("word_vectors")])


def test_settings_are_plain_hold_no_folder_and_read_nothing():
    phones = Phones()
    model = LanguageModelConfig("/data/models/gpt2", layer=6)
    features = extractor(phones, low_level=["diphones"], vectors="/nowhere/english1000sm.hf5", language_model=model)
    assert json.loads(json.dumps(features.settings())) == {
        "recipe": 1,
        "low_level": ["diphones"],
        "per_tr": "mean",
        "max_diphones": 200,
        "vectors": "english1000sm.hf5",
        "language_model": {"weights": "gpt2", "layer": 6, "context_words": 20},
    }
    assert [str(path) for path in features.files()] == ["/nowhere/english1000sm.hf5"]
    assert phones.asked == []
    assert extractor().files() == []
    assert extractor().settings()["language_model"] is None


def test_settings_differ_where_numbers_do():
    chosen = [{}, {"low_level": ["phones"]}, {"per_tr": "lanczos"}, {"vectors": "a.txt"}]
    chosen += [{"low_level": ["diphones"], "max_diphones": n} for n in (1, 2)]
    chosen += [{"language_model": LanguageModelConfig("gpt2", context_words=n)} for n in (1, 2)]
    settings = [json.dumps(extractor(**one).settings()) for one in chosen]
    assert len(set(settings)) == len(settings)
    assert extractor(max_diphones=7).settings() == extractor().settings()


def test_a_missing_file_of_vectors_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        extractor(low_level=[], vectors="nowhere.txt").spaces(story())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low_level": ["logmel"]}, "no low-level space 'logmel'. Did you mean 'log_mel'"),
        ({"low_level": ["mfcc", "mfcc"]}, "'mfcc' is named twice"),
        ({"vectors": ""}, "vectors is empty"),
        ({"per_tr": "median"}, "'median'; it is one of mean, lanczos"),
        ({"max_triphones": 0}, "max_triphones is 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FeatureConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"), [({"weights": ""}, "is empty"), ({"weights": "g", "context_words": -1}, "is -1")]
)
def test_impossible_language_models_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LanguageModelConfig(**settings)


def test_a_real_transcript_has_the_words_and_pauses_that_are_known_of_it(alice):
    (tier,) = read_textgrid(alice / "alice.TextGrid")
    is_word = [label.strip().lower() not in ("", "sp") for label in tier.intervals.labels]
    words = replace(
        tier.intervals,
        labels=tuple(np.asarray(tier.intervals.labels)[is_word].tolist()),
        start_s=tier.intervals.start_s[is_word],
        duration_s=tier.intervals.duration_s[is_word],
    )
    clock = replace(tone_story(0, 1).timebase, tr_starts_s=20.0 + 2.0 * np.arange(362), tr_s=2.0)
    alice_story = replace(tone_story(0, 1), words=words, phones=None, timebase=clock)
    word_rate, pauses = extractor(low_level=["word_rate", "pauses"]).spaces(alice_story)
    assert word_rate.values.sum() == sum(is_word)
    covered_s = words.duration_s.sum()
    assert pauses.values[:, 0].sum() == pytest.approx(words.end_s[-1] - words.start_s[0] - covered_s, abs=0.01)
    assert pauses.values[:, 0].max() <= 2.0
    assert np.corrcoef(word_rate.values[:, 0], pauses.values[:, 0])[0, 1] < -0.4
