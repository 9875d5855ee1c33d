import numpy as np
import pytest

from brainlit.demo.speech import speak
from brainlit.demo.text import (
    CATEGORIES,
    FILLERS,
    TEMPLATES,
    Scenes,
    category_of,
    homophone_pairs,
    scenes_of,
    synonym_pairs,
    unheard_words,
    word_vectors,
    write_sentence,
    write_story,
)


def test_eight_categories_of_twelve_different_words():
    assert len(CATEGORIES) == 8
    assert {(len(c.nouns), len(c.verbs), len(c.adjectives)) for c in CATEGORIES.values()} == {(8, 2, 2)}
    assert len(category_of()) == 96


def test_no_content_word_hides_in_a_template_or_filler():
    frames = " ".join(TEMPLATES + FILLERS).lower().replace(".", " ").replace(",", " ").replace("?", " ").split()
    assert not set(frames) & set(category_of())


def test_words_of_a_category_are_closer_to_each_other_than_to_other_words():
    table = np.stack(list(word_vectors().values()))
    distance = np.linalg.norm(table[:, None] - table[None], axis=2)
    labels = np.asarray(list(category_of().values()))
    same = (labels[:, None] == labels[None]) & ~np.eye(96, dtype=bool)
    assert distance[same].max() < distance[labels[:, None] != labels[None]].min()


def test_meaning_is_centred_and_cannot_be_changed():
    table = np.stack(list(word_vectors().values()))
    np.testing.assert_allclose(table.mean(axis=0), 0, atol=1e-12)
    with pytest.raises(ValueError, match="read-only"):
        word_vectors()["wolf"][0] = 1.0
    with pytest.raises(TypeError):
        word_vectors()["unicorn"] = table[0]


def words_of(text):
    return text.replace(".", "").replace(",", "").replace("?", "").lower().split()


def test_scenes_stay_on_their_topic():
    rng = np.random.default_rng(0)
    words = words_of(" ".join(write_sentence(rng, "music") for _ in range(300)))
    named = [category_of()[word] for word in words if word in category_of()]
    assert 0.85 < named.count("music") / len(named) < 0.96
    assert set(named) == set(CATEGORIES)


def test_a_story_has_the_length_asked_for_and_every_category():
    story = words_of(write_story(np.random.default_rng(1), 750))
    assert 750 <= len(story) < 765
    content = [word for word in story if word in category_of()]
    assert 0.22 < len(content) / len(story) < 0.36
    assert {category_of()[word] for word in content} == set(CATEGORIES)


def test_text_follows_its_random_stream():
    one, again, other = (write_story(np.random.default_rng(seed), 60) for seed in (3, 3, 4))
    assert one == again
    assert one != other


def test_a_story_of_no_words_is_refused():
    with pytest.raises(ValueError, match="n_words is 0"):
        write_story(np.random.default_rng(0), 0)


# --- Synonyms, homophones, words that are never heard ---


@pytest.mark.parametrize("pair", homophone_pairs(), ids="/".join)
def test_homophones_sound_alike_and_mean_other_things(pair):
    spoken = [speak(f"She said that the {word} was near the other one.", "en-us+f4") for word in pair]
    assert spoken[0].phones.labels == spoken[1].phones.labels
    np.testing.assert_array_equal(spoken[0].audio, spoken[1].audio)
    assert len({category_of()[word] for word in pair}) == 2


def test_synonyms_sound_different_and_are_nearest_to_each_other():
    words, table = list(word_vectors()), np.stack(list(word_vectors().values()))
    distance = np.linalg.norm(table[:, None] - table[None], axis=2) + 99 * np.eye(96)
    for one, other in synonym_pairs():
        assert words[distance[words.index(one)].argmin()] == other
        assert distance[words.index(one), words.index(other)] < 0.2 * np.sort(distance[words.index(one)])[1]
        assert speak(one).phones.labels != speak(other).phones.labels
    assert len(synonym_pairs()) == len(homophone_pairs()) == 8
    assert len({word for pair in (*synonym_pairs(), *homophone_pairs()) for word in pair}) == 32


def test_a_quarter_of_the_words_is_unheard_in_tuning_and_another_in_fitting():
    for seed in (0, 1):
        unheard = unheard_words(seed)
        assert {role: len(words) for role, words in unheard.items()} == {"tune": 24, "fit": 24}
        assert not set(unheard["tune"]) & set(unheard["fit"])
        for category in CATEGORIES.values():
            assert [len(set(slot) & set(unheard["tune"])) for slot in category] == [2, 0, 1]
            assert [len(set(slot) & set(unheard["fit"])) for slot in category] == [2, 1, 0]
    assert unheard_words(0) != unheard_words(1)


def test_no_unheard_word_has_the_sound_of_a_heard_one():
    homophones = {word for pair in homophone_pairs() for word in pair}
    assert not homophones & {word for words in unheard_words(0).values() for word in words}


@pytest.mark.parametrize("role", ["tune", "fit", "choose", "score"])
def test_stories_of_a_role_have_the_words_of_their_role(role):
    rng = np.random.default_rng(0)
    said = set(words_of(" ".join(write_story(rng, 3000, scenes_of(role, 0)) for _ in range(4)))) & set(category_of())
    assert said == set(category_of()) - set(unheard_words(0).get(role, ()))


def test_scenes_of_unheard_words_have_no_others():
    words = frozenset(unheard_words(0)["tune"])
    rng = np.random.default_rng(0)
    said = {word for word in words_of(write_story(rng, 2000, [Scenes(words, 1.0)])) if word in category_of()}
    assert said == words
    sentences = [write_sentence(rng, "food", words) for _ in range(200)]
    assert len(set(sentences)) > 50
