"""The command itself: help, version, unknown verbs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from brainlit import __version__
from brainlit.cli import main


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in (
        "fit",
        "validate",
        "test",
        "predict",
        "plan",
        "init",
        "data",
        "probe",
        "doctor",
        "report",
        "compare",
        "reproduce",
        "sweep",
        "fractions",
        "submit",
        "status",
        "curve",
        "dashboard",
        "figure",
        "maps",
    ):
        assert f"\n  {verb} " in text
    assert main([]) == 2, "no verb is wrong use"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"brainlit {__version__}\n"


def test_help_and_wrong_verbs_import_nothing_heavy() -> None:
    code = (
        "import sys; from brainlit.cli import main; main(['--help']); main(['fitt']);"
        "print([m for m in ('torch', 'lightning', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unknown_verb_has_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tets"]) == 2
    error = capsys.readouterr().err
    assert "there is no verb 'tets'. Did you mean 'test'?" in error
    assert "Traceback" not in error


def test_debug_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINLIT_DEBUG", "")  # given back afterwards
    with pytest.raises(ValueError, match="there is no verb 'tets'"):
        main(["tets", "--debug"])


def test_doctor_is_a_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from brainlit import doctor

    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Check("torch", "error", "gone", "install it")])
    assert main(["doctor"]) == 1
    assert "torch: gone" in capsys.readouterr().out
