"""What a run keeps of its models' answers: it comes back as it was, and other files are refused."""

from pathlib import Path

from brainlit.downstream.evaluate import evaluate
from brainlit.downstream.probes import LayerProbeConfig
from brainlit.downstream.result import find_results, task_path
from tests.downstream.planted import planted_features, planted_task

LINEAR = LayerProbeConfig(probes=("linear",), strengths=(0.1,))


def test_results_are_found_by_task_and_words_are_none_of_them(tmp_path: Path):
    assert find_results(tmp_path / "nowhere") == {}
    for name in ("demo/speaker", "demo/phones"):
        task = planted_task(name=name, sizes={"train": 20, "choose": 10, "test": 10})
        result = evaluate(task, planted_features(task, {0: 1.0}), LINEAR, model="tuned", progress=False)
        result.save(task_path(tmp_path, name))
    (tmp_path / "words.npz").write_bytes(b"words are read by others")
    assert (tmp_path / "demo-speaker.npz").is_file()
    found = find_results(tmp_path)
    assert list(found) == ["demo/phones", "demo/speaker"]
    assert found["demo/speaker"].task == "demo/speaker"
