"""Tasks of silent clips, and features that know their labels as well as a test wants."""

import numpy as np

from brainlit.downstream.clip import Clip
from brainlit.downstream.task import make_task

SIZES = {"train": 240, "choose": 120, "test": 160}
LABELS = ("blue", "green", "red", "white")


def clip(part, k, text="", n_speakers=10):
    sound = np.frombuffer(f"{part} {k:06d}  ".encode()[:12], dtype=np.int16)
    return Clip(f"{part}/{k}", sound, speaker=f"speaker {k % n_speakers}", text=text)


def planted_task(kind="single", sizes=SIZES, labels=LABELS, text=None, metric="accuracy", seed=0, name="planted"):
    """Labels by lot; `text` makes a clip's text from its label, or its labels."""
    rng = np.random.default_rng(seed)
    examples = {}
    for part, n_clips in sizes.items():
        examples[part] = []
        for k in range(n_clips):
            several = [name for name in labels if rng.random() < 0.4]
            label = several if kind == "multi" else str(rng.choice(labels))
            examples[part].append((clip(part, k, text(label) if text else ""), label))
    return make_task(name, kind, examples, metric=metric)


def planted_features(task, signals, n_features=12, seed=1):
    """Gaussian noise, plus signals[layer] x the direction of each label that a clip has.

    A signal may be one number for all parts, or one for each part.
    """
    rng = np.random.default_rng(seed)
    directions = {layer: rng.standard_normal((len(task.labels), n_features)) for layer in signals}
    found = {}
    for part in task.parts:
        targets = task.targets[part]
        has = targets if task.kind == "multi" else np.eye(len(task.labels))[targets]
        found[part] = {}
        for layer, signal in signals.items():
            strength = signal[part] if isinstance(signal, dict) else signal
            noise = rng.standard_normal((len(targets), n_features))
            found[part][layer] = (noise + strength * has @ directions[layer]).astype(np.float32)
    return found
