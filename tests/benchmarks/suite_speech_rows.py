"""Rows of the suite about sound and speech models: store, loader, steps, features, and how long a command takes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from brainlit.backbones import BackboneConfig
from brainlit.cli import TRAINING, VERBS
from brainlit.datamodules import StoryDataModule, WindowConfig
from brainlit.features import FeatureConfig
from brainlit.probing.hidden_states import layer_features
from brainlit.splits import Span
from brainlit.store import StoryStore, build_store
from brainlit.stories import FeatureSpace, Intervals, Responses, Story, StorySource, Subject
from brainlit.timebase import SAMPLE_RATE_HZ, TimeBase
from brainlit.tuning import BrainTuning
from brainlit.tuning.front_end_cache import FrontEndCache, FrontEndCacheConfig
from tests.benchmarks import plain, store_size
from tests.benchmarks.suite_measuring import Agreement, Answer, Case, Row, near
from tests.benchmarks.train_step import flops_of_trunk, make_batch, our_module

TR_S = 2.0
ROW_SAMPLES = int(TR_S * SAMPLE_RATE_HZ)
WINDOW = WindowConfig(n_trs=1, context_s=8.0, random_phase=False)
LAYERS = {"base": (2, 5, 7, 8, 10, 11, 12), "tiny": (2, 3, 4)}
SUBJECT = "one"


# --- A store, and windows from it ---


class Heard(StorySource):
    """Stories of noise whose colour changes, as one subject heard them.

    The responses follow the slowly smoothed colour, 2 TRs later, with noise.

    Parameters
    ----------
    n_stories, n_trs, n_voxels : int
    """

    name = "suite"

    def __init__(self, n_stories: int, n_trs: int, n_voxels: int, seed: int = 0) -> None:
        self.n_stories, self.n_trs, self.n_voxels, self.seed = n_stories, n_trs, n_voxels, seed
        self.stories = {f"story{k}": self._make(k) for k in range(n_stories)}

    def _make(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Sound and responses."""
        rng = np.random.default_rng([self.seed, k])
        per_s, n_s = 5, int(self.n_trs * TR_S)
        colours = rng.standard_normal((per_s * n_s, 6))
        for t in range(1, len(colours)):
            colours[t] += 0.8 * colours[t - 1]
        n_samples = SAMPLE_RATE_HZ // per_s
        tones = np.sin(2 * np.pi * np.geomspace(150, 4000, 6)[:, None] * np.arange(n_samples) / SAMPLE_RATE_HZ)
        sound = (np.exp(0.5 * colours).astype(np.float32) @ tones.astype(np.float32)).ravel()
        sound += 0.1 * rng.standard_normal(len(sound), dtype=np.float32)
        sound = np.round(sound * (12_000 / np.abs(sound).max())).astype(np.int16)
        rows = colours.reshape(self.n_trs, -1, 6).mean(axis=1)
        signal = np.roll(rows, 2, axis=0) @ np.random.default_rng(self.seed).standard_normal((6, self.n_voxels))
        values = signal / signal.std(axis=0) + 0.7 * rng.standard_normal((self.n_trs, self.n_voxels), dtype=np.float32)
        return sound, ((values - values.mean(axis=0)) / values.std(axis=0)).astype(np.float32)

    def settings(self) -> dict[str, Any]:
        """What decides the stories."""
        return {"seed": self.seed, "n": [self.n_stories, self.n_trs, self.n_voxels]}

    def story_names(self) -> Sequence[str]:
        """All."""
        return list(self.stories)

    def subject_names(self) -> Sequence[str]:
        """One."""
        return [SUBJECT]

    def story(self, name: str) -> Story:
        """Sound without words."""
        nothing = Intervals((), np.zeros(0), np.zeros(0))
        return Story(name, self.stories[name][0], nothing, None, TimeBase.regular(self.n_trs, TR_S))

    def feature_spaces(self, story: Story) -> list[FeatureSpace]:
        """None of its own."""
        return []

    def subject(self, name: str) -> Subject:
        """Voxels without places."""
        return Subject(name=name, n_voxels=self.n_voxels, regions={})

    def responses(self, subject: str, story: str) -> Responses | None:
        """As simulated."""
        return Responses(self.stories[story][1])

    def default_roles(self) -> dict[str, list[str]]:
        """All stories are tuned on."""
        return {"tune": self.story_names(), "fit": [], "choose": [], "score": []}


NO_FEATURES = FeatureConfig(low_level=[])
STORED = {"full": (6, 300, 5000), "quick": (3, 200, 1000), "tiny": (2, 8, 10)}
LOADED = {"full": (6, 300, 1000), "quick": (4, 150, 200), "tiny": (2, 8, 10)}


def store(size: str, folder: Path) -> Iterator[Case]:
    """Making a store against saving the arrays."""
    n_stories, n_trs, n_voxels = STORED[size]
    source = Heard(n_stories, n_trs, n_voxels)
    places = [folder / "store", folder / "arrays"]

    def ours() -> Answer:
        shutil.rmtree(places[0], ignore_errors=True)
        build_store(source, places[0], progress=False, features=NO_FEATURES).close()
        return {}

    def reference() -> Answer:
        shutil.rmtree(places[1], ignore_errors=True)
        plain.save_arrays(source.stories, places[1])
        return {}

    def stored() -> Answer:
        opened = StoryStore.open(places[0])
        found = {}
        for name in source.stories:
            found[f"{name}-sound"] = opened.audio(name, 0, n_trs * ROW_SAMPLES)
            found[f"{name}-responses"] = opened.responses(SUBJECT, name)
        opened.close()
        return found  # type: ignore[return-value]

    def saved() -> Answer:
        return {path.stem: np.load(path) for path in sorted(places[1].glob("*.npy"))}

    sizes = {"stories": n_stories, "TRs each": n_trs, "voxels": n_voxels}
    yield Case(sizes, ours, reference, near(0.0), check=(stored, saved))


def store_real_size(size: str, folder: Path) -> Iterator[Case]:
    """27 stories in LeBel's own layout, made into a store, against copying the files twice."""
    n_voxels = {"full": store_size.N_VOXELS, "quick": store_size.N_VOXELS // 20, "tiny": 20}[size]
    root, kept = folder / "ds003020", folder / "store"
    n_bytes, n_rows = store_size.simulate(root, n_voxels)
    story = store_size.source(root).story_names()[0]

    def ours() -> Answer:
        shutil.rmtree(kept, ignore_errors=True)
        store_size.in_own_process(root, kept)
        return {}

    def reference() -> Answer:
        shutil.rmtree(folder / "copy", ignore_errors=True)
        store_size.copy_twice(root, folder / "copy")
        return {}

    def stored() -> Answer:
        opened = StoryStore.open(kept)
        found = opened.responses(store_size.SUBJECT, story)
        opened.close()
        return {"responses": found}  # type: ignore[dict-item]

    def published() -> Answer:
        with h5py.File(folder / "copy/1" / store_size.RESPONSES / f"{story}.hf5") as h5:
            return {"responses": h5["data"][:].astype(np.float32)}

    sizes = {"stories": 27, "rows": n_rows, "voxels": n_voxels, "GB": round(n_bytes / 1e9, 2)}
    yield Case(sizes, ours, reference, near(1e-6), check=(stored, published))


def loader(size: str, folder: Path) -> Iterator[Case]:
    """An epoch of shuffled windows of 10 s, with masks and responses, against matrices in memory."""
    n_stories, n_trs, n_voxels = LOADED[size]
    batch_size = 128 if size == "full" else 32
    source = Heard(n_stories, n_trs, n_voxels)
    data = StoryDataModule(
        source, str(folder / "store"), WINDOW, features=NO_FEATURES, batch_size=batch_size, subjects=[SUBJECT]
    )
    build_store(source, folder / "store", progress=False, features=NO_FEATURES).close()
    data.setup()
    n_windows = n_stories * n_trs
    held: list[plain.StoriesInMemory] = []

    def ours() -> Answer:
        rows = []
        for batch in data.train_dataloader():
            sound = batch["audio"][:, ::8000].numpy() / np.float32(32_768)
            rows.append(_fingerprint(batch["story"], batch["first_tr"], sound, batch["targets"][SUBJECT][:, 0]))
        return _in_order(rows)

    def reference() -> Answer:
        if not held:  # once, and kept: more than published loaders do, which make a matrix anew in each epoch
            held.append(plain.StoriesInMemory(source.stories, ROW_SAMPLES))
        rows = []
        for sound, responses, story, row in plain.in_memory_batches(held[0], batch_size):
            rows.append(_fingerprint(story, row, sound[:, ::8000].numpy(), responses))
        return _in_order(rows)

    sizes = {"stories": n_stories, "TRs each": n_trs, "voxels": n_voxels, "windows": n_windows, "batch": batch_size}
    yield Case(sizes, ours, reference, near(0.0), unit="window", n_ours=n_windows, n_reference=n_windows)


def _fingerprint(story: Any, row: Any, sound: np.ndarray, responses: Any) -> np.ndarray:
    """Which window, every 8000th sample, and five voxels: (n_windows, 2 + 20 + 5)."""
    return np.column_stack([np.asarray(story), np.asarray(row), sound, np.asarray(responses)[:, :5]])


def _in_order(rows: Sequence[np.ndarray]) -> Answer:
    every = np.concatenate(rows)
    return {"windows": every[np.lexsort((every[:, 1], every[:, 0]))]}


# --- Steps ---


def heads_of(module: BrainTuning, sizes: Mapping[str, int]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of each subject's part of the linear head."""
    linear: Any = module.head.linear  # type: ignore[union-attr]
    parts = zip(linear.weight.split(list(sizes.values())), linear.bias.split(list(sizes.values())), strict=True)
    return dict(zip(sizes, parts, strict=True))


def step(size: str, folder: Path) -> Iterator[Case]:
    """A step of one subject: front end cached and fused AdamW, against the paper's loop."""
    yield _step_case(size, ("S1",), FrontEndCacheConfig(5.0, str(folder / "front_end")))


def subjects(size: str, folder: Path) -> Iterator[Case]:
    """A step of three subjects: one pass, against three."""
    yield _step_case(size, ("S1", "S2", "S3"), None)


def _step_case(size: str, people: Sequence[str], kept: FrontEndCacheConfig | None) -> Case:
    weights, n_windows, window_s, n_targets = {
        "full": ("base", 2, 10.0 if len(people) == 1 else 4.0, 50_732),
        "quick": ("base", 1, 4.0 if len(people) == 1 else 2.0, 5_000),
        "tiny": ("tiny", 2, 2.0, 10),
    }[size]
    batch = make_batch(n_windows, window_s, dict.fromkeys(people, n_targets), torch.device("cpu"))
    module = our_module(batch, BackboneConfig(weights=f"random:{weights}"))
    loop = plain.TuningLoop(module.backbone.model, heads_of(module, dict.fromkeys(people, n_targets)))
    if kept is not None:
        module.cache = FrontEndCache(kept, module.backbone)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=5e-5, fused=True)

    def ours() -> Answer:
        optimizer.zero_grad()
        loss = module.losses(batch)["loss"]
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = module.backbone.model.encoder.layers[0].attention.q_proj.weight.grad.numpy().copy()
        optimizer.step()
        return {"loss": np.array([float(loss.detach())]), "gradient": gradient}

    def reference() -> Answer:
        return loop.step(batch["audio"], {name: values[:, 0] for name, values in batch["targets"].items()})

    def agree(own: Answer, wanted: Answer) -> Agreement:
        parts = {name: near(1e-4, relative=True)({name: own[name]}, {name: wanted[name]}) for name in wanted}
        said = "; ".join(f"{name} {part.said}" for name, part in parts.items())
        return Agreement(all(part.same for part in parts.values()), f"first step: {said}")

    sizes = {"weights": f"random:{weights}", "windows": n_windows, "seconds": window_s, "targets": n_targets}
    sizes |= {"subjects": len(people)}
    operations = (lambda: flops_of_trunk(batch) / n_windows) if weights == "base" and kept is not None else None
    return Case(
        sizes, ours, reference, agree, unit="window", n_ours=n_windows, n_reference=n_windows, operations=operations
    )


# --- Features for an encoding model ---

CONTEXT_S, CHUNK_S = 16.0, 0.1
PER_TR = round(TR_S / CHUNK_S)
"""Windows that published extraction encodes for each TR: one every tenth of a second."""


@cache
def model_of(weights: str) -> BrainTuning:
    """A model with random weights."""
    return BrainTuning(BackboneConfig(weights=f"random:{weights}"), seed=0).eval()


def exact_windows(size: str, folder: Path, half: bool = False) -> Iterator[Case]:
    """The very windows of published extraction: 16.1 s, one every tenth of a second, the last frame."""
    weights, context_s, n_windows = {"full": ("base", 16.0, 2), "quick": ("base", 4.0, 2), "tiny": ("tiny", 2.0, 2)}[
        size
    ]
    module, layers = model_of(weights), LAYERS[weights]
    sound = Heard(1, 12, 1).stories["story0"][0]
    window = round((context_s + CHUNK_S) * SAMPLE_RATE_HZ)
    ends = [window + k * round(CHUNK_S * SAMPLE_RATE_HZ) for k in range(n_windows)]
    theirs = plain.speech_model(module.backbone.model)

    def ours() -> Answer:
        audio = torch.from_numpy(np.stack([sound[end - window : end] for end in ends]))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            states = module.backbone.encode(audio, torch.ones_like(audio, dtype=torch.bool)).hidden_states
        return {"states": torch.stack([states[k][:, -1].float() for k in layers], dim=1).numpy()}

    def reference() -> Answer:
        return {"states": plain.last_frames(theirs, sound, ends, window, layers)}

    sizes = {"weights": f"random:{weights}", "seconds": context_s + CHUNK_S, "layers": len(layers)}
    agree = near(0.05 if half else 1e-4, relative=True)
    yield Case(sizes, ours, reference, agree, unit="window", n_ours=n_windows, n_reference=n_windows)


def exact_windows_bf16(size: str, folder: Path) -> Iterator[Case]:
    """The same in bfloat16."""
    yield from exact_windows(size, folder, half=True)


def per_tr(size: str, folder: Path) -> Iterator[Case]:
    """One window for each TR with 16 s before it; all frames of the TR count."""
    yield _extraction(size, folder, lambda context_s: WindowConfig(1, context_s, random_phase=False), n_trs=1)


def segments(size: str, folder: Path) -> Iterator[Case]:
    """Windows of 16 rows with 8 s before them, as a probe takes them by default."""
    yield _extraction(size, folder, lambda context_s: WindowConfig(16, context_s / 2, random_phase=False), n_trs=16)


def _extraction(size: str, folder: Path, window_of: Any, n_trs: int) -> Case:
    """Seconds per TR against the windows of published extraction; what the features predict is compared.

    Seconds are those of the model at `weights`. Features of either way cannot be equal, so that a tiny model's are
    compared by what they predict: a plain ridge on simulated listeners.
    """
    weights, context_s, n_check_trs = {
        "full": ("base", 16.0, 150),
        "quick": ("base", 4.0, 60),
        "tiny": ("tiny", 2.0, 24),
    }[size]
    timing = _data(folder / "timing", Heard(1, 28, 1), window_of(context_s))
    checking = listeners(n_check_trs)
    module, sound = model_of(weights), timing.source.stories["story0"][0]  # type: ignore[attr-defined]
    theirs = plain.speech_model(module.backbone.model)
    span = Span("story0", 10, 10 + n_trs)
    window = round((context_s + CHUNK_S) * SAMPLE_RATE_HZ)

    def ours() -> Answer:
        return {"rows": layer_features(module, timing, [span], LAYERS[weights], progress=False)[LAYERS[weights][0]]}

    def reference() -> Answer:
        return {"states": plain.last_frames(theirs, sound, [window], window, LAYERS[weights])}

    def our_r() -> Answer:
        data = _data(folder / "check", checking, window_of(2 * CHECKED_CONTEXT_S if n_trs > 1 else CHECKED_CONTEXT_S))
        spans = [Span(name, 0, n_check_trs) for name in checking.stories]
        rows = layer_features(model_of("tiny"), data, spans, [CHECKED_LAYER], progress=False)[CHECKED_LAYER]
        return r_of(rows, checking)

    def their_r() -> Answer:
        return published_r(n_check_trs, CHUNK_S if size != "tiny" else 5 * CHUNK_S)

    def agree(own: Answer, wanted: Answer) -> Agreement:
        means = [float(np.mean(answer["r"])) for answer in (own, wanted)]
        allowed = 0.005 if size != "tiny" else 0.05  # so few rows say no more
        said = f"held-out r of a tiny model's features {means[0]:.4f}, of exact windows {means[1]:.4f}"
        return Agreement(means[1] - allowed <= means[0] <= 1, f"{said} (at most {allowed:g} less)")

    sizes = {
        "weights": f"random:{weights}",
        "context s": context_s,
        "rows at a time": n_trs,
        "compared TRs": 2 * n_check_trs,
    }
    return Case(
        sizes,
        ours,
        reference,
        agree,
        check=(our_r, their_r),
        unit="TR",
        n_ours=n_trs,
        n_reference=1 / PER_TR,  # one of a TR's windows is timed
    )


CHECKED_LAYER, CHECKED_CONTEXT_S = 2, 1.0


@cache
def listeners(n_trs: int) -> Heard:
    """Two stories: one to fit, one to score."""
    return Heard(2, n_trs, 40)


def r_of(rows: np.ndarray, source: Heard) -> Answer:
    """What rows of features predict of the second story, voxel by voxel."""
    Y = np.concatenate([responses for _, responses in source.stories.values()])
    return {"r": plain.held_out_r(rows, Y, np.repeat([0, 1], source.n_trs))}


@cache
def published_r(n_trs: int, chunk_s: float) -> Answer:
    """The same of features as published extraction makes them."""
    source = listeners(n_trs)
    return r_of(
        np.concatenate([_published_rows(sound, n_trs, chunk_s) for sound, _ in source.stories.values()]), source
    )


def _published_rows(sound: np.ndarray, n_trs: int, chunk_s: float) -> np.ndarray:
    """The tiny model's last frames every chunk_s, resampled to the middles of the rows."""
    model, chunk = plain.speech_model(model_of("tiny").backbone.model), round(chunk_s * SAMPLE_RATE_HZ)
    window = round(CHECKED_CONTEXT_S * SAMPLE_RATE_HZ) + chunk
    padded = np.concatenate([np.zeros(window - chunk, dtype=np.int16), sound])
    ends = [window + k * chunk for k in range(round(n_trs * TR_S / chunk_s))]
    with torch.no_grad():
        states = plain.last_frames(model, padded, ends, window, [CHECKED_LAYER])[:, 0]
    times_s = (np.arange(len(ends)) + 1) * chunk_s
    return plain.lanczos(states, times_s, (np.arange(n_trs) + 0.5) * TR_S)


def _data(folder: Path, source: Heard, window: WindowConfig) -> StoryDataModule:
    data = StoryDataModule(source, str(folder), window, features=NO_FEATURES, batch_size=4, subjects=[SUBJECT])
    build_store(source, folder, progress=False, features=NO_FEATURES).close()
    data.setup()
    return data


# --- A command ---


def start_up(size: str, folder: Path) -> Iterator[Case]:
    """`brainlit --help` against a script that imports everything first."""
    imports = ["numpy"] if size == "tiny" else ["torch", "lightning.pytorch", "transformers"]
    verbs = [verb for verb in (*TRAINING, *VERBS) if verb not in HIDDEN]
    script = plain.up_front(imports, verbs)

    def listed(command: Sequence[str]) -> Answer:
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
        return {
            "verbs": np.array(
                [len(re.findall(rf"^ {{2,4}}{verb}(?= |$)", done.stdout, re.MULTILINE)) for verb in verbs]
            )
        }

    yield Case(
        {"imports of the reference": ", ".join(imports)},
        lambda: listed(["-m", "brainlit.cli", "--help"]),
        lambda: listed(["-c", script]),
        near(0.0),
    )


HIDDEN = ("completion",)
"""Verbs that --help names in another place than its list."""
ROWS = (
    Row("store", "build_store without features", "np.save of the same arrays, down to the disk", store, clock="wall"),
    Row(
        "store_real_size",
        "build_store of LeBel's files (25 GB of disk)",
        "copying them twice",
        store_real_size,
        clock="wall",
        repeats=1,
        warm=False,
        by_default=False,
    ),
    Row(
        "loader",
        "train_dataloader: int16 windows with masks and responses, read from the store",
        "float32 matrices of all stories in memory, DataLoader",
        loader,
        least_memory_ratio=8.0,
        least_per_s=5000.0,
    ),
    Row(
        "step",
        "BrainTuning, front end cached, fused AdamW, float32",
        "the paper's loop, Adam, float32",
        step,
        repeats=3,
    ),
    Row(
        "subjects",
        "BrainTuning, three heads, one pass and step",
        "the paper's loop, three passes and a step",
        subjects,
        least_ratio=2.3,
    ),
    Row(
        "features_exact",
        "SpeechBackbone.encode, two windows at a time, float32",
        "one window at a time, gradients on, float32",
        exact_windows,
        least_ratio=2.0,
        warm=False,
    ),
    Row(
        "features_exact_bf16",
        "the same under torch.autocast in bfloat16",
        "one window at a time, gradients on, float32",
        exact_windows_bf16,
        least_ratio=2.0,
        warm=False,
    ),
    Row(
        "features_per_tr",
        "layer_features, one window per TR, all its frames",
        "20 exact windows per TR (one is timed)",
        per_tr,
        least_ratio=25.0,
        warm=False,
    ),
    Row(
        "features_segments",
        "layer_features, windows of 16 TRs",
        "20 exact windows per TR (one is timed)",
        segments,
        least_ratio=25.0,
        warm=False,
    ),
    Row("start_up", "brainlit --help", "a script that imports torch, Lightning and transformers first", start_up),
)
