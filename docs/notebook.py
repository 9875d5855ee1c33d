"""The tour as an executed notebook: `python docs/notebook.py` runs docs/tour.md and writes docs/tour.ipynb.

A test does the same and compares, so the notebook is that of today's page and code.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PYTHON = re.compile(r"^```python\n(.*?)^```\n", re.DOTALL | re.MULTILINE)


def cells(page: str) -> list[dict[str, Any]]:
    """The cells of a page, not yet run: text as it is, and every block of Python as code."""
    parts = PYTHON.split(page)
    made: list[dict[str, Any]] = []
    for k, part in enumerate(parts):
        source = part.strip("\n").splitlines(keepends=True)
        cell = {"id": f"cell-{k}", "metadata": {}, "source": source}
        code = {"cell_type": "code", "execution_count": (k + 1) // 2, "outputs": []}
        made.append({**cell, **(code if k % 2 else {"cell_type": "markdown"})})
    return made


def executed(page: str) -> list[dict[str, Any]]:
    """The cells with what the code prints, run one after the other in the working directory."""
    names: dict[str, Any] = {}
    made = cells(page)
    for cell in made:
        if cell["cell_type"] == "code":
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
            lines = said.getvalue().splitlines(keepends=True)
            cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": lines}] if lines else []
    return made


def main() -> None:
    """Write the notebook."""
    page = (DOCS / "tour.md").read_text(encoding="utf-8")
    target = DOCS.resolve() / "tour.ipynb"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        made = executed(page)
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = {"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    target.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
