"""What a terminal showed, as text: `python docs/transcript.py RECORDING` writes it into docs/tour.md.

RECORDING is what `script` keeps of a command, in the folder of the clone:

    script -qec "make train MODEL=wav2vec" RECORDING

Bars are as they stood at last, colours are left out, and the folder of the clone is called FOLDER; nothing else is
changed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGE = Path(__file__).parent / "tour.md"
FOLDER = "/home/you/brainlit"
BLOCK = re.compile(r"(<!-- docs/transcript.py -->\n)```text\n.*?^```\n", re.DOTALL | re.MULTILINE)
"""Where the transcript stands in the page."""
_COMMAND = re.compile(r'^Script started on .*? \[COMMAND="(.*?)" (?:TERM=|<not executed).*\]\n', re.MULTILINE)
_END = re.compile(r"^Script done on .*", re.MULTILINE | re.DOTALL)
_PART = re.compile(r"\x1b\[(\d*)([A-Za-z])|\x1b\[[\d;?]*[A-Za-z]|([\r\n])|([^\x1b\r\n]+)")


def shown(text: str) -> str:
    """The lines that stand on a terminal of any height after it was sent this text.

    Known are the carriage return, the line feed, cursor up and erase to the end of the line. Colours are left out.

    >>> shown("a bar: 10 %\\rdone\\x1b[K\\r\\nnext\\x1b[31m red\\x1b[0m\\r\\n")
    'done\\nnext red'
    """
    lines, row, column = [""], 0, 0
    for match in _PART.finditer(text):
        count, move, control, words = match.groups()
        if move == "A":
            row = max(0, row - int(count or 1))
        elif move == "K":
            lines[row] = lines[row][:column]
        elif control == "\r":
            column = 0
        elif control == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif words:
            before = lines[row][:column].ljust(column)
            lines[row] = before + words + lines[row][column + len(words) :]
            column += len(words)
    return "\n".join(line.rstrip() for line in lines).rstrip("\n")


def transcript(recording: str, folder: Path) -> str:
    """The command behind a $, and what it showed; lines without anything on them are left out.

    Parameters
    ----------
    recording : str
        As `script` writes it, with its head and its end.
    folder : Path
        Of the clone.

    Raises
    ------
    ValueError
        If the head says no command.
    """
    head = _COMMAND.search(recording)
    if head is None:
        raise ValueError('this is no recording of a command: script -qec "make train MODEL=wav2vec" RECORDING')
    body = _END.sub("", recording[head.end() :])
    lines = [line for line in shown(body).replace(str(folder), FOLDER).splitlines() if line]
    return "\n".join([f"$ {head[1]}", *lines])


def main(recording: Path) -> None:
    """Put the transcript into the page."""
    said = transcript(recording.read_bytes().decode("utf-8"), Path.cwd())
    page, n_blocks = BLOCK.subn(lambda match: f"{match[1]}```text\n{said}\n```\n", PAGE.read_text("utf-8"))
    if n_blocks != 1:
        sys.exit(f"{PAGE} has {n_blocks} places for a transcript, and not one.")
    PAGE.write_text(page, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
