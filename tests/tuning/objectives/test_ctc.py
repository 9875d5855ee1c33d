"""CTC: a path sum by hand, padding on either side, texts that do not fit, the alphabet, and it can be learned."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torchaudio.functional
from hypothesis import given
from hypothesis import strategies as st

from brainlit.backbones import SpeechBackbone
from brainlit.tuning.objectives import CharacterCtc, inventory_of
from brainlit.tuning.objectives.ctc import collapse, compact, edit_distance, frames_needed, plain
from tests.tuning.objectives.conftest import Front, learn, random_states_untouched, tone_batch, values

ALPHABET = " abc"


def random_logits(n_frames: int, n_windows: int = 1, n_labels: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_windows, n_frames, n_labels, generator=torch.Generator().manual_seed(seed))


def sum_over_paths(logits: torch.Tensor, labels: list[int]) -> float:
    """Minus the log of the summed probability of all paths that spell the labels; logits (n_frames, n_labels)."""
    probabilities = logits.softmax(-1).tolist()
    total = 0.0
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        if collapse(path) == labels:
            total += math.prod(frame[label] for frame, label in zip(probabilities, path, strict=True))
    return -math.log(total)


@pytest.fixture
def ctc() -> CharacterCtc:
    return CharacterCtc(ALPHABET, hidden_size=16, seed=0)


@pytest.mark.parametrize("text", ["ab", "a b", "aa", "c"])
def test_loss_is_the_sum_over_all_paths_per_character(ctc: CharacterCtc, text: str) -> None:
    logits = random_logits(5)
    found = ctc.score(logits, torch.ones(1, 5, dtype=torch.bool), [text])
    expected = sum_over_paths(logits[0], ctc.encode(text)) / len(text)
    assert values(found)["loss"] == pytest.approx(expected, rel=1e-5)


def test_padding_on_either_side_does_not_count(ctc: CharacterCtc) -> None:
    logits = random_logits(10, n_windows=3)
    mask = torch.zeros(3, 10, dtype=torch.bool)
    mask[0, 4:], mask[1, :6], mask[2, 2:8] = True, True, True
    texts = ["ab", "b ca", "c"]
    together = values(ctc.score(logits, mask, texts))["loss"]
    alone = [
        values(ctc.score(logits[k, None, mask[k]], torch.ones(1, 6, dtype=torch.bool), [texts[k]])) for k in range(3)
    ]
    expected = sum(part["loss"] * len(text) for part, text in zip(alone, texts, strict=True)) / 7
    assert together == pytest.approx(expected, rel=1e-5)


def test_compact_keeps_the_order_of_real_frames() -> None:
    rows = torch.arange(6.0)[None, :, None]
    mask = torch.tensor([[False, True, False, True, True, False]])
    assert compact(rows, mask)[0, :3, 0].tolist() == [1, 3, 4]


def test_windows_without_words_and_with_too_many_are_left_out(
    ctc: CharacterCtc, caplog: pytest.LogCaptureFixture
) -> None:
    logits, mask = random_logits(4, n_windows=4), torch.ones(4, 4, dtype=torch.bool)
    texts = ["ab", "", "aaa", "abcab"]
    for _ in range(2):
        found = values(ctc.score(logits, mask, texts))
    assert found["n_windows"] == 1
    assert found["n_too_long"] == 2
    assert found["loss"] == values(ctc.score(logits[:1], mask[:1], texts[:1]))["loss"]
    assert caplog.text.count("a text of 3 characters needs 5 frames and its window has 4") == 1


@pytest.mark.parametrize(("text", "fits"), [("aba", True), ("abab", False), ("aa", True), ("aab", False)])
def test_a_text_that_just_fits_counts(ctc: CharacterCtc, text: str, fits: bool) -> None:
    found = values(ctc.score(random_logits(3), torch.ones(1, 3, dtype=torch.bool), [text]))
    assert found["n_windows"] == fits
    assert math.isfinite(found["loss"])


def test_a_batch_without_words_has_gradients(ctc: CharacterCtc, backbone: SpeechBackbone, front: Front) -> None:
    batch = {**tone_batch(), "text": [""] * 4}
    found = ctc(backbone, front(batch), batch, 0)
    found["loss"].backward()
    assert values(found) == {"loss": 0.0, "n_windows": 0.0, "n_too_long": 0.0}


def test_other_characters_are_dropped_and_named_once(ctc: CharacterCtc, caplog: pytest.LogCaptureFixture) -> None:
    assert ctc.decode(ctc.encode("A 7 b-C")) == "a bc"
    assert ctc.decode(ctc.encode("b-7 a!")) == "b a"
    assert [record.getMessage() for record in caplog.records] == [
        "CTC drops characters that its alphabet ' abc' lacks: - 7",
        "CTC drops characters that its alphabet ' abc' lacks: !",
    ]


def test_error_rate_is_counted_in_eval_mode_alone(ctc: CharacterCtc) -> None:
    logits = torch.full((1, 6, 5), -5.0)
    for frame, label in enumerate([2, 2, 0, 2, 3, 0]):  # spells "aab"
        logits[0, frame, label] = 5.0
    mask = torch.ones(1, 6, dtype=torch.bool)
    assert "character_error_rate" not in ctc.score(logits, mask, ["aab"])
    ctc.eval()
    assert values(ctc.score(logits, mask, ["aab"]))["character_error_rate"] == 0
    assert values(ctc.score(logits, mask, ["abc"]))["character_error_rate"] == pytest.approx(2 / 3)


def test_known_states_are_used(ctc: CharacterCtc, backbone: SpeechBackbone, front: Front) -> None:
    batch = tone_batch()
    sound = front(batch)
    states = backbone.trunk(sound.features, sound.frame_mask)
    known = values(ctc(backbone, sound, batch, 0, states))
    assert known == values(ctc(backbone, sound, batch, 0))
    assert known != values(ctc(backbone, sound, batch, 0, states[:1]))


def test_seeded_and_no_global_random_state(backbone: SpeechBackbone, front: Front) -> None:
    batch = tone_batch()
    with random_states_untouched():
        first = values(CharacterCtc(ALPHABET, 16, seed=0)(backbone, front(batch), batch, 0))
    assert values(CharacterCtc(ALPHABET, 16, seed=0)(backbone, front(batch), batch, 0)) == first
    assert values(CharacterCtc(ALPHABET, 16, seed=1)(backbone, front(batch), batch, 0)) != first


@pytest.mark.parametrize("other", [" abx", " abcd"])
def test_the_state_of_another_alphabet_is_refused(ctc: CharacterCtc, other: str) -> None:
    CharacterCtc(ALPHABET, 16, seed=4).load_state_dict(ctc.state_dict())
    with pytest.raises(ValueError, match=f"spells with ' abc' and this model with '{other}'"):
        CharacterCtc(other, 16, seed=0).load_state_dict(ctc.state_dict())


def test_it_can_be_learned(ctc: CharacterCtc, backbone: SpeechBackbone, front: Front) -> None:
    batches = [tone_batch(seed=k, letter_s=0.1) for k in range(3)]
    losses = learn(ctc, backbone, batches, steps=60, lr=2e-2)
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:3])
    assert values(ctc.eval()(backbone, front(batches[0]), batches[0], 0))["character_error_rate"] < 0.5


# --- characters
# Alphabets and edit distance.


WORDS = st.lists(st.integers(0, 3), max_size=7)


@given(WORDS, WORDS)
def test_edit_distance_is_torchaudios(first: list[int], second: list[int]) -> None:
    assert edit_distance(first, second) == torchaudio.functional.edit_distance(first, second)


@pytest.mark.parametrize(("labels", "frames"), [([], 0), ([1], 1), ([1, 2], 2), ([1, 1, 1], 5)])
def test_repeats_need_a_frame_between_them(labels: list[int], frames: int) -> None:
    assert frames_needed(labels) == frames


def test_letters_of_any_script_are_in_the_alphabet() -> None:
    assert inventory_of(["Où est l\u2019œuf?", "e\u0301te\u0301 2024"]) == " 'eflostuéùœ"
    assert inventory_of(["小王子", "हिन्दी"])[1:] == "".join(sorted("小王子हिन्दी"))


def test_the_alphabet_does_not_depend_on_order() -> None:
    assert inventory_of(["b", "a c"]) == inventory_of(["c a", "b"]) == " abc"


@pytest.mark.parametrize("texts", [[], ["", " "], ["42!", "'"]])
def test_texts_without_letters_are_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"no letters, .* give --model.objective.ctc 0"):
        inventory_of(texts)


def test_plain_text_has_single_spaces() -> None:
    assert plain("  A\t B\n") == "a b"
