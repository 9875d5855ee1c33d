"""What the story store costs at the size of a real data set: make bench, or python -m tests.benchmarks.store_size.

27 stories of LeBel et al. (2023) as one subject heard them, in the data set's own layout, with random responses: 9,752
rows of 95,556 voxels in float64, and ten repeats of the test story. Three questions: how long does it take to make the
store, against copying the files twice; how fast are random windows of sound; how fast are whole rows of voxels. Needs
25 GB of disk at full size (--scale .1 needs a tenth); nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import soundfile

from brainlit.store import StoryStore, build_store
from brainlit.stories.lebel2023 import LebelSource
from brainlit.stories.lebel2023_facts import VOLUMES

SUBJECT, TEST_STORY, N_VOXELS, N_REPEATS = "UTS03", "wheretheressmoke", 95_556, 10
RESPONSES = f"derivative/preprocessed_data/{SUBJECT}"
WINDOW_S, BATCH = 10.0, 128


def main() -> None:
    """Simulate, copy, build, read; print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where to work (default: the temporary folder)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the voxels")
    parser.add_argument("--rounds", type=int, default=2, help="how often copying and building alternate")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for line in measure(Path(folder), round(given.scale * N_VOXELS), given.rounds):
            print(line, flush=True)


def measure(folder: Path, n_voxels: int, rounds: int) -> list[str]:
    """The rows of the table."""
    root = folder / "ds003020"
    n_bytes, n_rows = simulate(root, n_voxels)
    copies, builds, peaks = [], [], []
    responses_copied, responses_stored = [], []
    for k in range(rounds):
        copies.append(timed(lambda k=k: copy_twice(root, folder / f"copy-{k}")))
        shutil.rmtree(folder / f"copy-{k}")
        seconds, peak_gb = in_own_process(root, folder / f"store-{k}")
        builds.append(seconds)
        peaks.append(peak_gb)
        responses_copied.append(timed(lambda k=k: copy_twice(root / RESPONSES, folder / f"copy-{k}")))
        shutil.rmtree(folder / f"copy-{k}")
        (folder / f"store-{k}/subjects/{SUBJECT}.h5").unlink()
        responses_stored.append(in_own_process(root, folder / f"store-{k}")[0])
        if k + 1 < rounds:
            shutil.rmtree(folder / f"store-{k}")
    again = timed(lambda: build_store(source(root), folder / f"store-{rounds - 1}", progress=False).close())
    store = StoryStore.open(folder / f"store-{rounds - 1}")
    copy_s, build_s = statistics.median(copies), statistics.median(builds)
    responses_copy_s, responses_s = statistics.median(responses_copied), statistics.median(responses_stored)
    return [
        f"{len(store.story_names)} stories, {n_rows} rows, {n_voxels} voxels: {n_bytes / 1e9:.2f} GB of files",
        f"copying them twice          {copy_s:8.1f} s  ({', '.join(f'{s:.1f}' for s in copies)}), sound and words too",
        f"making the store            {build_s:8.1f} s  ({', '.join(f'{s:.1f}' for s in builds)}), features too",
        f"                            {build_s / copy_s:8.2f} x",
        f"copying the responses twice {responses_copy_s:8.1f} s",
        f"storing the responses       {responses_s:8.1f} s",
        f"                            {responses_s / responses_copy_s:8.2f} x",
        f"peak memory                 {max(peaks):8.2f} GB",
        f"making it again             {again:8.2f} s",
        f"random windows of {WINDOW_S:g} s     {windows_per_s(store):8.0f} /s",
        f"random rows of all voxels   {rows_per_s(store):8.0f} /s, {4e-9 * n_voxels * rows_per_s(store):.2f} GB/s",
        f"batches of {BATCH} windows      {batch_ms(store):8.1f} ms with sound, mask and all voxels of each row",
    ]


def source(root: Path) -> LebelSource:
    """One subject, 27 stories, nominal clock."""
    return LebelSource(root=str(root), subjects=[SUBJECT], stories="27", clock="nominal")


def simulate(root: Path, n_voxels: int) -> tuple[int, int]:
    """Write the files; returns their size in bytes and the number of rows."""
    rng = np.random.default_rng(0)
    responses, sounds, grids = root / RESPONSES, root / "stimuli", root / "derivative/TextGrids"
    for folder in (responses, sounds, grids):
        folder.mkdir(parents=True)
    one = source(root)
    noise = rng.standard_normal((512, n_voxels))
    volumes = {story: VOLUMES[story] for story in one.story_names()}
    (root / "derivative/respdict.json").write_text(json.dumps(volumes))
    n_rows = 0
    for story in one.story_names():
        n_trs = volumes[story] - 20
        n_rows += n_trs
        rows = rng.permutation(512)[np.arange(n_trs) % 512]
        with h5py.File(responses / f"{story}.hf5", "w") as h5:
            h5["data"] = noise[rows]
            if story == TEST_STORY:
                repeats = h5.create_dataset("individual_repeats", (N_REPEATS, n_trs, n_voxels), np.float64)
                for k in range(N_REPEATS):
                    repeats[k] = noise[np.roll(rows, k)]
        duration_s = 2.0045 * n_trs + 12
        sound = rng.normal(0, 2000, (int(44_100 * duration_s), 2)).astype(np.int16)
        soundfile.write(sounds / f"{story}.wav", sound, 44_100)
        (grids / f"{story}.TextGrid").write_text(textgrid(duration_s))
    os.sync()
    return sum(path.stat().st_size for path in responses.iterdir()), n_rows


def textgrid(duration_s: float) -> str:
    """Three words a second, three phones a word, in the short text form."""
    n_words = int(3 * duration_s)
    words = [(k / 3, (k + 1) / 3, ("story", "{NS}", "about")[k % 3]) for k in range(n_words)]
    phones = [(k / 9, (k + 1) / 9, ("AH0", "K", "T")[k % 3]) for k in range(3 * n_words)]
    lines = ['"ooTextFile"', '"TextGrid"', "0", f"{duration_s}", "<exists>", "2"]
    for name, intervals in (("phone", phones), ("word", words)):
        lines += ['"IntervalTier"', f'"{name}"', "0", f"{duration_s}", f"{len(intervals)}"]
        lines += [f'{start}\n{stop}\n"{label}"' for start, stop, label in intervals]
    return "\n".join(lines)


def copy_twice(root: Path, target: Path) -> None:
    """Copy all files, twice, down to the disk."""
    for k in range(2):
        shutil.copytree(root, target / str(k), copy_function=copy_to_disk)


def copy_to_disk(source_file: str, target: str) -> str:
    """shutil.copy2, and nothing left in memory only: a finished store is on the disk as well."""
    shutil.copy2(source_file, target)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return target


def in_own_process(root: Path, path: Path) -> tuple[float, float]:
    """Seconds and peak memory (GB) of making the store in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_build, args=(root, path, queue))
    process.start()
    measured: tuple[float, float] = queue.get()
    process.join()
    return measured


def _build(root: Path, path: Path, queue: multiprocessing.Queue[tuple[float, float]]) -> None:
    seconds = timed(lambda: build_store(source(root), path, progress=False).close())
    queue.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6))


def windows_per_s(store: StoryStore, n: int = 20_000) -> float:
    """Random windows of random stories into one batch, as float32."""
    rng, length = np.random.default_rng(1), int(WINDOW_S * store.sample_rate_hz)
    names = rng.choice(store.story_names, n)
    starts = [int(rng.integers(0, store.n_samples(name) - length)) for name in names]
    samples, batch = np.empty(length, np.int16), np.empty((BATCH, length), np.float32)

    def read() -> None:
        for k, (name, start) in enumerate(zip(names, starts, strict=True)):
            store.read_audio(name, start, samples)
            batch[k % BATCH] = samples

    read()
    return n / timed(read)


def rows_per_s(store: StoryStore, n: int = 2_000) -> float:
    """Random rows of all voxels, one at a time."""
    rng = np.random.default_rng(2)
    names = rng.choice(store.story_names, n)
    rows = [int(rng.integers(0, store.n_trs(name))) for name in names]

    def read() -> None:
        for name, row in zip(names, rows, strict=True):
            store.responses(SUBJECT, name, row, row + 1)

    read()
    return n / timed(read)


def batch_ms(store: StoryStore) -> float:
    """Milliseconds for one batch of windows of one row each, as training reads them."""
    from brainlit.datamodules import StoryDataModule, WindowConfig

    data = StoryDataModule(
        source(store.path), str(store.path), WindowConfig(n_trs=1, context_s=8.0), subjects=[SUBJECT], batch_size=BATCH,
        roles={"tune": store.story_names[:-1], "choose": [], "fit": [], "score": store.story_names[-1:]},
    )  # fmt: skip
    data.setup()
    batches = iter(data.train_dataloader())
    next(batches)
    return statistics.median(1e3 * timed(lambda: next(batches)) for _ in range(7))


def timed(job: Callable[[], object]) -> float:
    """Seconds that a job takes."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
