"""Every family, full tuning and LoRA, in every regime: loss, alignment and seconds of each as a markdown table.

Run as `python -m tests.benchmarks.regimes`; a few minutes. Nothing is downloaded: models are random and far too small
to show which regime aligns with brains. With `--tiny` they are brainlit's tiny models on the demo of `make train`, for
which all 55 runs take hours; name some families and regimes.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import warnings
from pathlib import Path

from brainlit.datamodules import LanguageTargetsConfig, SpeechTargetsConfig, WindowConfig
from brainlit.demo import DemoSource
from brainlit.tuning import HeadConfig
from tests.matrix import FAMILIES, HOWS, TRAINED, Cell, Setting, mini_setting, train_cell

COLUMNS = ("family", "how", "regime", "loss before", "after", "trained numbers", "r before", "after", "s")


def main() -> None:
    """Run the cells and print a row for each."""
    options = _options()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(options.folder or name)
        if not options.tiny:
            os.environ["BRAINLIT_CACHE"] = str(folder / "cache")
        setting = tiny_setting(folder, options.accelerator) if options.tiny else mini_setting(folder)
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
        for family in options.families:
            for how, regime in [*((how, regime) for how in options.hows for regime in options.regimes)]:
                print(row(train_cell(family, how, regime, setting)), flush=True)
            print(row(train_cell(family, "full", "pretrained", setting)), flush=True)


def tiny_setting(folder: Path, accelerator: str) -> Setting:
    """The tiny models on the demo, as experiments/ has them, with windows that Whisper takes."""
    return Setting(
        source=DemoSource(n_tune=12, n_fit=12, n_score=4),
        folder=folder,
        weights=dict.fromkeys(FAMILIES, "tiny"),
        language_model=LanguageTargetsConfig(),
        speech_model=SpeechTargetsConfig(),
        epochs=8,
        batch_size=4,
        window=WindowConfig(n_trs=10, context_s=8.0),
        head=HeadConfig(),
        rates=dict.fromkeys(HOWS, (None, None)),
        accelerator=accelerator,
    )


def row(cell: Cell) -> str:
    """A cell as a line of the table."""
    values = (
        *(cell.family, cell.how if cell.n_steps else "", cell.regime),
        *(_number(cell.loss_before), _number(cell.loss_after), f"{cell.n_trained_parameters:,}"),
        *(_number(cell.r_before), _number(cell.r_after), f"{cell.seconds:.1f}"),
    )
    return f"| {' | '.join(values)} |"


def _number(value: float) -> str:
    return "" if value != value else f"{value:.3f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--hows", nargs="+", default=HOWS, choices=HOWS)
    parser.add_argument("--regimes", nargs="+", default=TRAINED, choices=TRAINED)
    parser.add_argument("--tiny", action="store_true", help="the tiny models and the demo of make train")
    parser.add_argument("--accelerator", default="auto", help="of the tiny models: cpu, cuda or auto")
    parser.add_argument("--folder", help="where store and runs stay; a temporary folder otherwise")
    return parser.parse_args()


if __name__ == "__main__":
    main()
