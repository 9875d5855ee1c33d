"""What a training step costs: the plain loop of the paper beside brainlit's, alternating in one process.

Run as `make bench-step` or `python -m tests.benchmarks.train_step`; `--device cuda` on a GPU. Nothing is downloaded:
weights are random, of the published architecture. The plain loop is what arXiv 2410.09230 describes, written anew:
float32, the convolutions frozen but computed in every step, mean pooling, one linear map, mean squared error, Adam with
two groups.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from brainlit.backbones import BackboneConfig, SpeechBackbone, load_backbone
from brainlit.backbones.frames import normalise_clips
from brainlit.tuning import BrainTuning
from brainlit.tuning.front_end_cache import FrontEndCache, FrontEndCacheConfig
from brainlit.tuning.heads import HeadConfig
from brainlit.tuning.module import slow_precision
from brainlit.tuning.pooling import PoolingConfig

SAMPLE_RATE_HZ = 16_000
WAV2VEC_BASE = BackboneConfig(weights="random:base")
N_WINDOWS = 8
DTYPES: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
Step = Callable[[], Any]
Seconds = tuple[float, float]
"""Wall, processor."""


def main() -> None:
    """Print the tables that were asked for."""
    options = _options()
    for section in options.sections:
        with tempfile.TemporaryDirectory() as folder:
            SECTIONS[section](options, folder)


def steps(options: argparse.Namespace, folder: str) -> None:
    """The plain loop and ours, on wav2vec 2.0 base."""
    device = torch.device(options.device)
    batch = make_batch(options.batch_size, options.window_s, {"S1": options.n_targets}, device)
    variants = {
        "plain float32 loop, eager attention": plain_step(batch, "eager"),
        "plain float32 loop": plain_step(batch, "sdpa"),
        "front end cached": our_step(batch, folder, fused=False),
        "front end cached, fused AdamW": our_step(batch, folder),
    }
    slow = slow_precision("bf16-mixed", device)
    if slow is None or options.bf16:
        variants["front end cached, fused AdamW, bf16"] = our_step(batch, folder, dtype=torch.bfloat16)
    else:
        print(slow)
    title(f"One step, {options.n_targets} targets, {device}", options)
    table(alternate(variants, options.repeats, device), device, flops_of_trunk(batch))


def subjects(options: argparse.Namespace, folder: str) -> None:
    """Three people, one after the other or together."""
    device = torch.device(options.device)
    three = dict.fromkeys(("S1", "S2", "S3"), options.n_targets)
    one, together = (
        make_batch(options.batch_size, options.window_s, sizes, device) for sizes in ({"S1": options.n_targets}, three)
    )
    variants = {
        "three forwards, three steps": our_step(one, folder, times=3),
        "one forward, three heads": our_step(together, folder),
    }
    title("Three subjects", options)
    table(alternate(variants, options.repeats, device), device)


def whisper(options: argparse.Namespace, folder: str) -> None:
    """Whisper small with its 30 s of positions and with those of the window."""
    device = torch.device(options.device)
    batch = make_batch(options.batch_size, options.window_s, {"S1": options.n_targets}, device)
    positions: tuple[Literal["padded", "truncated"], ...] = ("padded", "truncated")
    variants = {
        f"{name} positions": our_step(
            batch, folder, backbone=BackboneConfig(family="whisper", weights="random:small", positions=name)
        )
        for name in positions
    }
    title("Whisper small, front end cached", options)
    table(alternate(variants, options.repeats, device), device)


def cache(options: argparse.Namespace, folder: str) -> None:
    """Two epochs over the same windows, as wav2vec 2.0 base and Whisper small hear them."""
    device = torch.device(options.device)
    title(f"Front end of {N_WINDOWS} windows, two epochs", options)
    for family, size in (("wav2vec", "base"), ("whisper", "small")):
        backbone = load_backbone(BackboneConfig(family=family, weights=f"random:{size}")).to(device)
        backbone.freeze_feature_encoder()
        epochs(f"{family} {size}, no cache", backbone, options)
        for dtype in DTYPES:
            kept = FrontEndCache(FrontEndCacheConfig(5.0, f"{folder}/{family}-{dtype}", dtype), backbone)
            epochs(f"{family} {size}, {dtype}", kept, options)


def epochs(name: str, source: SpeechBackbone | FrontEndCache, options: argparse.Namespace) -> None:
    """Milliseconds per window and share of hits in each of two epochs, and what the cache keeps."""
    device = torch.device(options.device)
    windows = make_batch(N_WINDOWS, options.window_s, {}, device)
    said = []
    for _ in range(2):
        hits = getattr(source, "n_hits", 0)
        started = time.perf_counter()
        for k in range(0, N_WINDOWS, options.batch_size):
            chosen = slice(k, k + options.batch_size)
            source.front_end(windows["audio"][chosen], windows["audio_mask"][chosen])
        _wait(device)
        per_window_ms = 1e3 * (time.perf_counter() - started) / N_WINDOWS
        share = 100 * (getattr(source, "n_hits", 0) - hits) / N_WINDOWS
        said.append(f"{per_window_ms:8.1f} ms ({share:3.0f} % hits)")
    kept = list(source.folder.glob("*.npy")) if isinstance(source, FrontEndCache) else []
    size = f"  {sum(file.stat().st_size for file in kept) / len(kept) / 1e6:.2f} MB a window" if kept else ""
    print(f"{name:44} {said[0]} {said[1]}{size}")


def title(what: str, options: argparse.Namespace) -> None:
    """Heading of a table."""
    print(f"\n{what}: {options.batch_size} windows of {options.window_s:g} s at a time", flush=True)


SECTIONS: dict[str, Callable[[argparse.Namespace, str], None]] = {
    "steps": steps,
    "subjects": subjects,
    "whisper": whisper,
    "cache": cache,
}


def make_batch(n: int, window_s: float, sizes: dict[str, int], device: torch.device) -> dict[str, Any]:
    """Noise of the paper's window, one row of targets for each subject."""
    generator = torch.Generator().manual_seed(0)
    audio = torch.randint(-8000, 8000, (n, int(window_s * SAMPLE_RATE_HZ)), generator=generator).to(torch.int16)
    targets = {name: torch.randn(n, 1, size, generator=generator).to(device) for name, size in sizes.items()}
    return {
        "audio": audio.to(device),
        "audio_mask": torch.ones_like(audio, dtype=torch.bool).to(device),
        "bin_edges_s": torch.tensor([[0.0, window_s]]).repeat(n, 1).to(device),
        "targets": targets,
        "target_mask": {name: torch.ones(n, 1, dtype=torch.bool, device=device) for name in sizes},
        "text": [""] * n,
    }


def plain_step(batch: dict[str, Any], attention: str) -> Step:
    """The paper's loop."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    device = batch["audio"].device
    target = batch["targets"]["S1"][:, 0]
    model = Wav2Vec2Model(Wav2Vec2Config(attn_implementation=attention)).to(device).eval()
    model.freeze_feature_encoder()
    head = nn.Linear(768, target.shape[1]).to(device)
    groups = [{"params": model.parameters(), "lr": 5e-5}, {"params": head.parameters(), "lr": 1e-4}]
    optimizer = torch.optim.Adam(groups, fused=False, foreach=False)

    def step() -> Tensor:
        sound = normalise_clips(batch["audio"], batch["audio_mask"])
        loss = nn.functional.mse_loss(head(model(sound).last_hidden_state.mean(1)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def our_step(
    batch: dict[str, Any],
    folder: str,
    fused: bool = True,
    dtype: torch.dtype | None = None,
    times: int = 1,
    backbone: BackboneConfig = WAV2VEC_BASE,
) -> Step:
    """The same window, loss and optimiser through BrainTuning; `times` steps of it."""
    device = batch["audio"].device
    module = our_module(batch, backbone)
    module.cache = FrontEndCache(FrontEndCacheConfig(max_gb=5.0, folder=folder), module.backbone)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=5e-5, fused=fused)

    def step() -> Tensor:
        for _ in range(times):
            with torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                loss = module.losses(batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss

    return step


def our_module(batch: dict[str, Any], backbone: BackboneConfig = WAV2VEC_BASE) -> BrainTuning:
    """A model that pools the window and maps it to the targets of a batch, on the batch's device."""
    module = BrainTuning(
        backbone,
        pooling=PoolingConfig(over="window"),
        head=HeadConfig(dropout=0.0),
        standardise_pools=False,
    ).to(batch["audio"].device)
    module.build_head({name: values.shape[2] for name, values in batch["targets"].items()})
    return module.to(batch["audio"].device)


def alternate(variants: dict[str, Step], repeats: int, device: torch.device) -> dict[str, list[Seconds]]:
    """Seconds of each variant, one after the other, `repeats` rounds after one that is not counted."""
    seconds: dict[str, list[Seconds]] = {name: [] for name in variants}
    for k in range(repeats + 1):
        for name, step in variants.items():
            _wait(device)
            started, cpu_started = time.perf_counter(), time.process_time()
            step()
            _wait(device)
            if k:
                seconds[name].append((time.perf_counter() - started, time.process_time() - cpu_started))
    return seconds


def table(seconds: dict[str, list[Seconds]], device: torch.device, flops: float | None = None) -> None:
    """Median with minimum and maximum, and how many times faster than the first; also in seconds of the processor.

    Those say more where other programs run on the same cores.
    """
    first, first_cpu = medians(next(iter(seconds.values())))
    peak = matmul_rate(device) if flops and device.type == "cuda" else None
    for name, values in seconds.items():
        median, cpu = medians(values)
        wall = [value for value, _ in values]
        processor = f"  {cpu:7.3f} s of CPU  {first_cpu / cpu:5.2f} x" if device.type == "cpu" else ""
        share = f"  {100 * flops / median / peak:5.1f} % of a bf16 product's rate" if peak and flops else ""
        spread = f"({min(wall):.3f} to {max(wall):.3f})"
        print(f"{name:44} {median:7.3f} s {spread:20}  {first / median:5.2f} x{processor}{share}", flush=True)


def medians(values: list[Seconds]) -> Seconds:
    """Of wall and processor seconds."""
    wall, cpu = zip(*values, strict=True)
    return statistics.median(wall), statistics.median(cpu)


def flops_of_trunk(batch: dict[str, Any]) -> float:
    """Floating point operations of the transformer, forward and backward: six per weight and frame, and attention."""
    n, n_samples = batch["audio"].shape
    n_frames, n_layers, size = n_samples / 320, 12, 768
    weights = n_layers * 12 * size**2
    return float(6 * n * n_frames * weights + 12 * n * n_layers * n_frames**2 * size)


def matmul_rate(device: torch.device, size: int = 8192) -> float:
    """What the device does on a large bf16 matrix product, in operations per second."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    a @ a
    _wait(device)
    started = time.perf_counter()
    for _ in range(10):
        a @ a
    _wait(device)
    return 10 * 2 * size**3 / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="which tables")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch-size", type=int, default=2, help="windows per step")
    parser.add_argument("--window-s", type=float, default=10.0, help="seconds per window")
    parser.add_argument("--n-targets", type=int, default=50_732, help="voxels (UTS03 above a ceiling of 0.4)")
    parser.add_argument("--repeats", type=int, default=3, help="counted rounds")
    parser.add_argument("--bf16", action="store_true", help="also bf16 where the processor has no instructions for it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
