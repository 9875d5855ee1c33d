"""The doctor recognises what keeps brainlit from running, and repairs the one thing that can be repaired."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from brainlit import doctor

CPU_VERSION = "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"
CUDA_VERSION = "__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"


@pytest.fixture
def installed(tmp_path: Path) -> tuple[Path, Path]:
    """A torchaudio with native libraries beside a CPU-only torch, as folders."""
    torchaudio, torch = tmp_path / "torchaudio", tmp_path / "torch"
    (torchaudio / "lib").mkdir(parents=True)
    torch.mkdir()
    (torch / "version.py").write_text(CPU_VERSION)
    for name in ("_torchaudio.abi3.so", "libtorchaudio.abi3.so"):
        (torchaudio / "lib" / name).write_bytes(b"not for this machine")
    return torchaudio, torch


@pytest.fixture
def broken_import(installed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """An import that fails as long as the native libraries are there."""

    def import_error(module: str) -> str | None:
        present = doctor.native_libraries(installed[0])
        return "OSError: libcudart.so.13: cannot open shared object file" if present else None

    monkeypatch.setattr(doctor, "import_error", import_error)


@pytest.mark.usefixtures("broken_import")
def test_the_cuda_build_beside_a_cpu_torch_is_recognised_and_said(installed: tuple[Path, Path]) -> None:
    check = doctor.check_torchaudio(*installed)
    assert check.level == "error"
    assert "CUDA build beside a CPU-only torch" in check.message
    assert "libtorchaudio.abi3.so" in check.message
    assert "brainlit doctor --fix" in check.cure


@pytest.mark.usefixtures("broken_import")
def test_fix_sets_the_libraries_aside_once_and_loses_nothing(installed: tuple[Path, Path]) -> None:
    assert len(doctor.fix_torchaudio(*installed)) == 2
    assert doctor.native_libraries(installed[0]) == []
    kept = installed[0] / "lib" / "libtorchaudio.abi3.so.unused"
    assert kept.read_bytes() == b"not for this machine"
    assert doctor.check_torchaudio(*installed).level == "ok"
    assert doctor.fix_torchaudio(*installed) == []


def test_fix_leaves_a_torchaudio_that_imports_alone(
    installed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "import_error", lambda module: None)
    assert doctor.fix_torchaudio(*installed) == []
    assert len(doctor.native_libraries(installed[0])) == 2


@pytest.mark.usefixtures("broken_import")
def test_fix_leaves_a_cuda_torch_alone_and_passes_the_error_on(installed: tuple[Path, Path]) -> None:
    (installed[1] / "version.py").write_text(CUDA_VERSION)
    assert doctor.fix_torchaudio(*installed) == []
    assert "libcudart" in doctor.check_torchaudio(*installed).message


def test_import_error_is_the_last_line_of_the_traceback() -> None:
    assert (
        doctor.import_error("no_such_module_at_all") == "ModuleNotFoundError: No module named 'no_such_module_at_all'"
    )
    assert doctor.import_error("json") is None


def test_a_missing_package_has_a_cure() -> None:
    check = doctor.check_package("no-such-package-at-all")
    assert check.level == "error"
    assert "constraints.txt" in check.cure


def test_a_wheel_without_its_library_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "package_folder", lambda name: tmp_path)
    assert doctor.check_espeak().level == "error"
    (tmp_path / "libespeak-ng.so").touch()
    assert doctor.check_espeak().level == "ok"


def test_no_espeak_is_a_warning_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "package_folder", lambda name: None)
    check = doctor.check_espeak()
    assert check.level == "warning"
    assert check.cure == "pip install espeakng-loader"


def test_little_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "NEEDED_DISK_BYTES", 2**80)
    assert [check.level for check in doctor.check_machine(tmp_path)] == ["ok", "ok", "warning"]


def test_the_status_says_whether_anything_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Check("disk", "warning", "little", "free some")])
    assert doctor.main([]) == 0
    assert "-> free some" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Check("torch", "error", "gone", "install it")])
    assert doctor.main([]) == 1


def test_the_doctor_imports_nothing_it_examines() -> None:
    heavy = ("torch", "torchaudio", "transformers", "numpy")
    code = f"import sys; import brainlit.doctor; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
