"""The tiny backbone learns which of a few tones sounds, and is kept."""

import json

import numpy as np
import pytest
import torch

from brainlit.backbones import BACKBONES, BackboneConfig, WeightsError, load_backbone
from brainlit.backbones.tiny import (
    SILENCE,
    UNKNOWN,
    PhoneListener,
    TinyRecipe,
    corpus_version,
    draw_crops,
    learn_phones,
    make_lesson,
    phone_inventory,
    recipe_folder,
    tiny_architecture,
    tiny_folder,
    tiny_record,
)
from brainlit.backbones.weights import settings_key
from brainlit.stories import Intervals, Story
from brainlit.timebase import TimeBase

WAV2VEC = BACKBONES["wav2vec"]

TONES = {"a": 300, "i": 2500, "s": 6000}


def tone_story(name, seed, seconds=12):
    """Tones of 200 ms as phones, with silence between some."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([*TONES, ""], size=seconds * 5)
    t = np.arange(3200) / 16_000
    audio = np.concatenate([np.sin(2 * np.pi * TONES[x] * t) if x else np.zeros(3200) for x in labels])
    audio = (8000 * audio + rng.normal(size=len(audio)) * 100).astype(np.int16)
    sounding = [k for k, label in enumerate(labels) if label]
    phones = Intervals(tuple(labels[sounding]), np.array(sounding) * 0.2, np.full(len(sounding), 0.2))
    words = Intervals((), np.zeros(0), np.zeros(0))
    return Story(name, audio, words, phones, TimeBase.regular(seconds // 2, 2.0))


@pytest.fixture
def fake_corpus(monkeypatch, tmp_path):
    """Five tone stories instead of speech, and a cache of our own; the list grows with each corpus made."""
    made = []

    def speech_corpus(seed, minutes):
        made.append((seed, minutes))
        return [tone_story(f"tones{k}", 10 * seed + k) for k in range(5)]

    monkeypatch.setattr("brainlit.demo.source.speech_corpus", speech_corpus)
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "cache"))
    return made


def test_inventory_and_answers():
    story = tone_story("x", 0)
    inventory = phone_inventory([story])
    assert inventory == {"a": 1, "i": 2, "s": 3}
    lesson = make_lesson(story, {"a": 1, "s": 3})
    k = story.phones.labels.index("s")
    times_s = np.array([story.phones.start_s[k], story.phones.middle_s[k], story.phones.end_s[-1] + 1, -0.5])
    assert lesson.phones_at(times_s).tolist() == [3, 3, SILENCE, SILENCE]
    i_s = story.phones.middle_s[story.phones.labels.index("i")]
    assert lesson.phones_at(np.array([i_s])).tolist() == [UNKNOWN]


def test_spectrum_peaks_where_the_tone_is():
    story = tone_story("x", 0)
    lesson = make_lesson(story, phone_inventory([story]))
    bands = {}
    for label, start_s, end_s in zip(story.phones.labels, story.phones.start_s, story.phones.end_s, strict=True):
        bands.setdefault(label, []).append(lesson.log_mel_at(np.array([(start_s + end_s) / 2]))[0].argmax().item())
    assert np.median(bands["a"]) < np.median(bands["i"]) < np.median(bands["s"])


def test_stories_without_phones_are_refused():
    story = tone_story("mute", 0)
    silent = Story("mute", story.audio, story.words, None, story.timebase)
    with pytest.raises(ValueError, match=r"mute.*phone times"):
        phone_inventory([silent])
    with pytest.raises(ValueError, match=r"mute.*phone times"):
        make_lesson(silent, {})


def test_crops_stay_inside_and_need_room():
    story = tone_story("x", 0)
    lesson = make_lesson(story, phone_inventory([story]))
    crops = draw_crops([lesson], 200, 16_000, np.random.default_rng(0))
    starts = [start for _, start in crops]
    assert min(starts) >= 0
    assert max(starts) + 16_000 <= len(story.audio)
    assert len(set(starts)) > 100
    with pytest.raises(ValueError, match="longer than a crop"):
        draw_crops([lesson], 1, len(story.audio), np.random.default_rng(0))


def test_phones_outside_the_inventory_count_as_wrong(mini_folder):
    listener = PhoneListener(load_backbone(BackboneConfig(weights=str(mini_folder))), 4, seed=0)
    nothing_known = make_lesson(tone_story("x", 0), {})
    scores = listener.accuracy(nothing_known, 3.0)
    assert scores["accuracy_phone_frames"] == 0
    assert scores["accuracy_all_frames"] <= scores["share_silence"]


def test_learns_tones_of_a_story_it_never_heard_and_borrows_the_random_state():
    stories = [tone_story(f"t{k}", k) for k in range(4)]
    inventory = phone_inventory(stories)
    lessons = [make_lesson(story, inventory) for story in stories]
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    with torch.no_grad():
        listener = PhoneListener(load_backbone(BackboneConfig(weights="random:tiny")), 4, seed=0)
        before = listener.accuracy(lessons[-1], 3.0)["accuracy_all_frames"]
        learn_phones(listener, lessons[:-1], TinyRecipe(steps=25, batch_size=2, crop_s=2.0))
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.rand(2), expected)
    after = listener.accuracy(lessons[-1], 3.0)
    assert after["accuracy_all_frames"] > max(0.7, before + 0.2)
    assert 0.1 < after["share_silence"] < 0.5


def test_the_last_steps_hear_long_crops_and_clips_with_silence_after_them():
    recipe = TinyRecipe(steps=10, batch_size=8, crop_s=6.0, long_steps=6, long_batch=2, long_s=30.0, clip_every=3)
    steps = list(recipe.steps_heard(np.random.default_rng(0)))
    assert steps[:4] == [(8, 6.0, 6.0)] * 4
    assert [(n, length_s) for n, length_s, _ in steps[4:]] == [(2, 30.0)] * 6
    heard_s = [heard for _, _, heard in steps[4:]]
    assert [heard == 30.0 for heard in heard_s] == [False, True, True] * 2
    assert all(0.4 <= heard_s[k] <= 6.0 for k in (0, 3))
    plain = TinyRecipe(steps=2)
    assert list(plain.steps_heard(np.random.default_rng(0))) == [(8, 6.0, 6.0)] * 2
    assert not {"long_steps", "long_s", "clip_every"} & set(plain.settings())


def test_what_is_not_heard_is_silence_and_does_not_count(mini_folder, monkeypatch):
    listener = PhoneListener(load_backbone(BackboneConfig(weights=str(mini_folder))), 4, seed=0)
    story, other = (tone_story("x", seed) for seed in (0, 1))
    n_heard = 16_000
    audio = np.concatenate([story.audio[:n_heard], other.audio[n_heard:]])
    mixed = Story("mixed", audio, story.words, story.phones, story.timebase)
    inventory, heard = phone_inventory([story]), []
    forward = listener.forward
    monkeypatch.setattr(listener, "forward", lambda sound: heard.append(sound) or forward(sound))
    lessons = [make_lesson(story, inventory), make_lesson(mixed, inventory)]
    with torch.no_grad():
        losses = [float(listener.loss([(one, 0)], 32_000, 0.0, n)) for one in lessons for n in (n_heard, None)]
    assert losses[0] == losses[2]
    assert losses[1] != losses[3]
    assert not heard[0][:, n_heard:].any()
    assert torch.equal(heard[0][0, :n_heard], lessons[0].audio[:n_heard])
    assert lessons[0].audio[n_heard:].any(), "the story itself stays as it is"


def test_silence_after_a_piece_is_not_scored():
    story = tone_story("x", 0, seconds=4)
    listener = PhoneListener(load_backbone(BackboneConfig("whisper", "random:tiny")), 4, seed=0)
    assert listener.accuracy(make_lesson(story, phone_inventory([story])), 2.0)["n_frames"] == 2 * 100


def test_whisper_learns_all_of_its_positions():
    recipe = TinyRecipe(**BACKBONES["whisper"].tiny_recipe)
    lengths = {length_s for _, length_s, _ in recipe.steps_heard(np.random.default_rng(0))}
    assert max(lengths) == recipe.heard_at_once_s == 30.0


def test_made_once_then_kept_and_described(fake_corpus, caplog):
    recipe = TinyRecipe(seed=2, steps=2, batch_size=2, crop_s=1.0)
    folder = recipe_folder(WAV2VEC, recipe)
    assert recipe_folder(WAV2VEC, recipe) == folder
    assert fake_corpus == [(2, recipe.minutes)]
    record = tiny_record(folder)
    assert record["held_out"]["story"] == "tones4"
    assert 0 <= record["held_out"]["accuracy_all_frames"] <= 1
    assert record["phones"] == ["a", "i", "s"]
    assert recipe_folder(WAV2VEC, TinyRecipe(seed=3, steps=2, batch_size=2, crop_s=1.0)) != folder
    assert len(fake_corpus) == 2


def test_another_corpus_is_another_backbone(fake_corpus, monkeypatch):
    recipe = TinyRecipe(steps=1, batch_size=1, crop_s=1.0)
    folder = recipe_folder(WAV2VEC, recipe)
    assert len(corpus_version()) == 16
    monkeypatch.setattr("brainlit.backbones.tiny.corpus_version", lambda: "another")
    assert recipe_folder(WAV2VEC, recipe) != folder


def test_same_seed_same_weights(fake_corpus, tmp_path, monkeypatch):
    recipe = TinyRecipe(steps=2, batch_size=2, crop_s=1.0)
    first = (recipe_folder(WAV2VEC, recipe) / "model.safetensors").read_bytes()
    monkeypatch.setenv("BRAINLIT_CACHE", str(tmp_path / "other"))
    assert (recipe_folder(WAV2VEC, recipe) / "model.safetensors").read_bytes() == first


def test_by_name_the_backbone_is_the_cached_one(fake_corpus, monkeypatch):
    monkeypatch.setattr(
        "brainlit.backbones.tiny.TinyRecipe", lambda seed: TinyRecipe(seed=seed, steps=1, batch_size=1, crop_s=1.0)
    )
    backbone = load_backbone(BackboneConfig(weights="tiny", seed=4))
    origin = backbone.describe()["origin"]
    assert (origin["kind"], origin["seed"]) == ("tiny", 4)
    assert "accuracy_all_frames" in origin["held_out"]
    again = load_backbone(BackboneConfig(weights=str(tiny_folder(WAV2VEC, 4))))
    pairs = zip(backbone.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert len(fake_corpus) == 1
    json.dumps(backbone.describe())


@pytest.fixture
def asked_of_the_cache(monkeypatch):
    """What would be made: kind and settings of each folder."""
    asked = []
    monkeypatch.setattr(
        "brainlit.backbones.tiny.cached_folder", lambda kind, settings, build: asked.append((kind, settings))
    )
    return asked


def test_wav2vec_that_was_taught_before_other_families_came_is_still_found(asked_of_the_cache, monkeypatch):
    monkeypatch.setattr("brainlit.backbones.tiny.corpus_version", lambda: "0123456789abcdef")
    tiny_folder(WAV2VEC)
    ((kind, settings),) = asked_of_the_cache
    assert f"{kind}-{settings_key(settings)}" == "tiny-wav2vec-039b0fdde5146b44"


def test_families_and_sizes_learn_by_their_own_recipes(asked_of_the_cache, monkeypatch, family):
    monkeypatch.setattr(BACKBONES[family], "tiny_recipe", {"lr": 1e-3, "steps": 300})
    for size in ("tiny", "tiny-large"):
        tiny_folder(BACKBONES[family], 3, size)
    (small, made), (large, larger) = asked_of_the_cache
    assert (small, large) == (f"tiny-{family}", f"tiny-large-{family}")
    assert (made["recipe"]["seed"], made["recipe"]["steps"], made["recipe"]["lr"]) == (3, 300, 1e-3)
    assert larger["recipe"] != made["recipe"]
    assert larger["architecture"] == tiny_architecture(BACKBONES[family], "tiny-large") != made["architecture"]


def test_each_family_has_a_small_and_a_larger_one(family):
    small, large = (load_backbone(BackboneConfig(family, f"random:{size}")) for size in ("tiny", "tiny-large"))
    assert (small.hidden_size, small.n_layers, small.frame_rate_hz) == (128, 4, 25.0)
    assert (large.hidden_size, large.n_layers, large.frame_rate_hz) == (256, 6, 25.0)
    assert small.strided
    assert small.uses_attention_mask
    assert small.mask_embedding is not None
    n_small, n_large = (sum(p.numel() for p in model.parameters()) for model in (small, large))
    assert 0.8e6 < n_small < 1.0e6
    assert 3.7 < n_large / n_small < 4.3


def test_another_family_is_taught_and_loaded_by_name(fake_corpus, monkeypatch):
    monkeypatch.setattr(
        "brainlit.backbones.tiny.TinyRecipe", lambda seed: TinyRecipe(seed=seed, batch_size=1, crop_s=1.0)
    )
    monkeypatch.setattr("brainlit.backbones.wavlm.WavLMBackbone.tiny_recipe", {"steps": 1})
    backbone = load_backbone(BackboneConfig("wavlm", "tiny"))
    assert backbone.describe()["origin"]["recipe"]["steps"] == 1
    assert backbone.family == "wavlm"
    assert "tiny-wavlm" in str(tiny_folder(BACKBONES["wavlm"]))
    with pytest.raises(WeightsError, match=r"'wavlm'.*'wav2vec2'"):
        load_backbone(BackboneConfig("wav2vec", str(tiny_folder(BACKBONES["wavlm"]))))
