"""What pyproject.toml cannot say: the wheel carries experiments/ and the texts of data/ inside the package."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SHIPPED = runpy.run_path(str(ROOT / "src" / "brainlit" / "shipped.py"))


class BuildWithShippedFiles(build_py):
    """The package, with what `brainlit.shipped` names in _shipped/; an editable install reads the clone."""

    def run(self) -> None:
        """Build; what an earlier build left of these files goes first."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib) / "brainlit" / SHIPPED["PACKAGED"].name
        shutil.rmtree(folder, ignore_errors=True)
        for path in SHIPPED["shipped_files"](ROOT):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, folder / path)


setup(cmdclass={"build_py": BuildWithShippedFiles})
