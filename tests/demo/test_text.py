import numpy as np
import pytest

from brainlit.demo.text import CATEGORIES, FILLERS, TEMPLATES, category_of, word_vectors, write_sentence, write_story


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
