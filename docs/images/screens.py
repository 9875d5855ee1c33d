"""Pictures of pages as a browser shows them, for the docs: `python docs/images/screens.py PAGE.html...`.

report.html makes report-light.png, report-dark.png and report-phone.png; another page one picture, page-curve.png of
curve.html, say. Needs chromium.
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
DESKTOP = "--window-size=1280,1000"
SCREENS = {
    "report-light": (DESKTOP,),
    "report-dark": (DESKTOP, "--blink-settings=preferredColorScheme=0"),
    "report-phone": ("--window-size=500,1000",),  # the narrowest window that chromium opens
}
N_COLOURS = 255


def main(pages: list[Path]) -> None:
    """Take the pictures of each page."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("there is no chromium here; install it.")
    for page in pages:
        of_report = {name: options for name, options in SCREENS.items() if name.startswith(f"{page.stem}-")}
        for name, options in (of_report or {f"page-{page.stem}": (DESKTOP,)}).items():
            picture = taken(browser, page, options)
            picture.save(HERE / f"{name}.png", optimize=True)


def taken(browser: str, page: Path, options: tuple[str, ...]) -> Image.Image:
    """The upper part of a page, in few colours."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        command = [browser, *QUIET, "--hide-scrollbars", *options, f"--user-data-dir={folder}/profile"]
        command += [f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        picture = Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")
    return picture.quantize(N_COLOURS, Image.Quantize.MAXCOVERAGE)  # the default makes scales of colours muddy


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
