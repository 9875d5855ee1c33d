"""Pictures of a report as a browser shows it, for the docs: `python docs/images/screens.py runs/brain_tune/ID`.

Writes report-light.png, report-dark.png and report-phone.png. Needs chromium.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
QUIET = ("--headless", "--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-sync")
SCREENS = {
    "report-light": ("--window-size=1280,1000",),
    "report-dark": ("--window-size=1280,1000", "--blink-settings=preferredColorScheme=0"),
    "report-phone": ("--window-size=500,1000",),  # the narrowest window that chromium opens
}
N_COLOURS = 128


def main(run: Path) -> None:
    """Take the three pictures of the run's report."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("there is no chromium here; install it.")
    page = (run / "report.html").resolve().as_uri()
    for name, options in SCREENS.items():
        with tempfile.TemporaryDirectory() as folder:
            shot = Path(folder) / "shot.png"
            command = [browser, *QUIET, "--hide-scrollbars", *options, f"--user-data-dir={folder}/profile"]
            subprocess.run([*command, f"--screenshot={shot}", page], check=True, capture_output=True, timeout=120)
            picture = Image.open(io.BytesIO(shot.read_bytes())).convert("RGB").quantize(N_COLOURS)
        picture.save(HERE / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
