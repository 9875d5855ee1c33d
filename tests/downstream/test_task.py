"""One label map for all parts; nothing of the test in the training; clips as they were cut."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from brainlit.downstream.clip import Clip, cut_clips
from brainlit.downstream.task import RecognitionTask, Task, make_recognition_task, make_task
from brainlit.stories import Intervals
from tests.downstream.planted import clip, planted_task


def examples(**labels):
    """Examples of each part, one clip per label: train='ab' has one clip with label a and one with b."""
    wanted = {"train": "ab", "choose": "ab", "test": "ab", **labels}
    return {part: [(clip(part, k), label) for k, label in enumerate(own)] for part, own in wanted.items()}


def test_parts_share_one_sorted_label_map():
    task = make_task("t", "single", examples(train="cab", choose="cb", test="ba", test_new="c"))
    assert task.labels == ("a", "b", "c")
    assert {part: targets.tolist() for part, targets in task.targets.items()} == {
        "train": [2, 0, 1],
        "choose": [2, 1],
        "test": [1, 0],
        "test_new": [2],
    }
    assert task.parts == ("train", "choose", "test", "test_new")
    assert task.test_parts == ("test", "test_new")


def test_the_label_map_is_the_same_whatever_the_hash_seed():
    code = (
        "import json; from brainlit.downstream.task import make_task; from tests.downstream.planted import clip;"
        "words = {'set order ' + str(k) for k in range(40)};"
        "pairs = {p: [(clip(p, k), w) for k, w in enumerate(words)] for p in ('train', 'choose', 'test')};"
        "task = make_task('t', 'single', pairs);"
        "said = {p: sorted((str(w), int(t)) for (_, w), t in zip(pairs[p], task.targets[p])) for p in pairs};"
        "print(json.dumps([list(words)[:8], task.labels, said]))"
    )
    found = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(json.loads(done.stdout))
    assert found[0][0] != found[1][0]  # the sets really had another order
    assert found[0][1:] == found[1][1:]
    assert found[0][2]["train"] == found[0][2]["test"]


def test_several_labels_per_clip_become_rows_of_0_and_1():
    pairs = {part: [(clip(part, 0), ["b", "a"]), (clip(part, 1), [])] for part in ("train", "choose", "test")}
    assert make_task("t", "multi", pairs).targets["test"].tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"test": "abz"}, r"1 labels are not among those of train, in 1 places: z \(1\)"),
        ({"choose": ""}, "no clips in its part 'choose'"),
        ({"train": "aa", "choose": "a", "test": "a"}, "two or more"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        make_task("t", "single", examples(**changed))


def test_a_missing_part_a_name_twice_and_a_wrong_kind_are_refused():
    with pytest.raises(ValueError, match="'test'"):
        make_task("t", "single", {"train": [(clip("a", 0), "a")], "choose": [(clip("b", 0), "a")]})
    twice = examples()
    twice["test"][0] = (Clip(twice["train"][0][0].name, np.arange(9, dtype=np.int16)), "a")
    with pytest.raises(ValueError, match="1 names of clips occur more than once, the first is 'train/0'"):
        make_task("t", "single", twice)
    with pytest.raises(ValueError, match="'single' takes one str"):
        make_task("t", "multi", examples())
    with pytest.raises(ValueError, match="kinds are 'single' and 'multi'"):
        Task("t", "several", ("a", "b"), {}, {})
    whole = planted_task()
    with pytest.raises(ValueError, match=r"targets of shape \(160,\) in its part 'test'"):
        Task("t", "single", whole.labels, whole.clips, {**whole.targets, "test": np.zeros(3, dtype=np.int64)})


def test_unknown_labels_are_left_out_and_counted_where_that_is_wanted():
    task = make_task("t", "single", examples(test="azzb"), drop_unknown=True, facts={"left_out": "2 files"})
    assert [clip.name for clip in task.clips["test"]] == ["test/0", "test/3"]
    assert task.facts["left_out"] == "2 files; 2 labels that train lacks: z (2)"
    pairs = {part: [(clip(part, 0), ["a", "b"])] for part in ("train", "choose")}
    multi = make_task("t", "multi", {**pairs, "test": [(clip("test", 0), ["a", "z"])]}, drop_unknown=True)
    assert multi.targets["test"].tolist() == [[1, 0]]
    with pytest.raises(ValueError, match="no clip of the part 'test' has a label that train knows"):
        make_task("t", "single", examples(test="z"), drop_unknown=True)


def test_speakers_are_kept_apart_where_that_is_wanted():
    def spoken(**speakers):
        return {
            part: [(Clip(f"{part}/{k}", clip(part, k).source, speaker=own), "ab"[k]) for k, own in enumerate(names)]
            for part, names in speakers.items()
        }

    apart = spoken(train=("x", "y"), choose=("z", "z"), test=("u", "v"), test_new=("u", "v"))
    assert make_task("t", "single", apart, speaker_disjoint=True).test_parts == ("test", "test_new")
    shared = spoken(train=("x", "y"), choose=("z", "z"), test=("y", "v"))
    with pytest.raises(ValueError, match="speaker 'y' is in 'train' and in 'test'"):
        make_task("t", "single", shared, speaker_disjoint=True)
    assert make_task("t", "single", shared).labels == ("a", "b")
    with pytest.raises(ValueError, match="names none"):
        make_task("t", "single", spoken(train=("", "y"), choose=("z", "z"), test=("u", "v")), speaker_disjoint=True)


def test_the_same_sound_in_two_parts_is_refused_or_left_out(tmp_path):
    for name, shift in (("first", 0), ("copy", 0), ("other", 1)):
        soundfile.write(tmp_path / f"{name}.wav", np.arange(300, dtype=np.int16) + shift, 16_000)
    files = examples()
    files["train"].append((Clip("train/first", tmp_path / "first.wav"), "a"))
    files["test"].append((Clip("test/copy", tmp_path / "copy.wav"), "a"))
    with pytest.raises(ValueError, match="'train/first' in 'train'"):
        make_task("t", "single", files)
    kept = make_task("t", "single", files, same_sound="drop")
    assert [clip.name for clip in kept.clips["train"]] == ["train/0", "train/1"]
    assert len(kept.clips["test"]) == 3
    assert "1 clips whose sound is in a later part too" in kept.facts["left_out"]
    assert len(make_task("t", "single", files, same_sound="ignore").clips["train"]) == 3
    files["test"][-1] = (Clip("test/other", tmp_path / "other.wav"), "a")
    assert len(make_task("t", "single", files).clips["train"]) == 3  # as long, but another sound
    files["test"][-1] = (Clip("test/later", tmp_path / "first.wav", start_s=0.005), "a")
    assert len(make_task("t", "single", files).clips["train"]) == 3  # another stretch of the same file
    memory = examples()
    memory["choose"].append((Clip("again", memory["train"][1][0].source.copy()), "a"))
    with pytest.raises(ValueError, match="'train/1' in 'train'"):
        make_task("t", "single", memory)
    further = {**examples(), "test_new": [(Clip("test_new/0", examples()["test"][0][0].source), "a")]}
    assert len(make_task("t", "single", further).clips["test_new"]) == 1  # two tests may share


def test_a_clip_is_cut_where_it_says_at_16_khz(tmp_path):
    steps = np.repeat(np.arange(1, 11, dtype=np.int16) * 1000, 800)  # 0.1 s each at 8 kHz
    soundfile.write(tmp_path / "stereo.wav", np.stack([steps, steps], axis=1), 8000)
    sound = Clip("c", tmp_path / "stereo.wav", 0.2, 0.4).sound()
    assert sound.dtype == np.int16
    assert sound.shape == (3200,)
    assert abs(int(np.median(sound[:1600])) - 3000) < 20
    assert abs(int(np.median(sound[1600:])) - 4000) < 20
    assert len(Clip("c", tmp_path / "stereo.wav", 0.9, 2.0).sound()) == 1600
    memory = np.arange(16_000, dtype=np.int16)
    assert Clip("c", memory, 0.5).sound()[0] == 8000


def test_a_clip_that_cannot_be_is_refused(tmp_path):
    samples = np.zeros(1600, dtype=np.int16)
    with pytest.raises(ValueError, match=r"begins at 0\.2 s, but its source ends at 0\.100 s"):
        Clip("late", samples, 0.2).sound()
    with pytest.raises(ValueError, match=r"'back' is from 0\.2 to 0\.1 s"):
        Clip("back", samples, 0.2, 0.1)
    with pytest.raises(ValueError, match="float64 samples"):
        Clip("floats", samples.astype(float))
    with pytest.raises(FileNotFoundError):
        Clip("gone", tmp_path / "gone.wav").sound()


def test_words_of_a_long_sound_become_clips_of_their_own():
    words = Intervals(("one", "two"), np.asarray([0.02, 0.5]), np.asarray([0.1, 0.25]))
    first, second = cut_clips("story", np.arange(16_000, dtype=np.int16), words, "me", edge_s=0.05)
    assert (first.name, first.text, first.speaker) == ("story/0", "one", "me")
    assert (first.start_s, first.stop_s) == (0.0, pytest.approx(0.17))
    assert second.sound()[0] == 7200
    assert len(second.sound()) == 5600


def test_recognition_needs_texts():
    clips = {part: [clip(part, 0, "It's 5 o'clock")] for part in ("train", "choose", "test")}
    assert make_recognition_task("r", clips).alphabet == " 'ciklost"
    with pytest.raises(ValueError, match="1 clips of the part 'test' have no text, the first is 'test/0'"):
        make_recognition_task("r", {**clips, "test": [clip("test", 0)]})
    with pytest.raises(ValueError, match="'choose'"):
        RecognitionTask("r", {**clips, "choose": []}, " a")
