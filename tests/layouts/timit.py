"""LDC93S1 as published: TRAIN and TEST, DR*, a folder per speaker, SPHERE sound, .PHN, .WRD and .TXT beside it.

The names of speakers and the 61 symbols are typed off the corpus' own documents, not taken from brainlit.
"""

from __future__ import annotations

from pathlib import Path

import soundfile

from tests.layouts.speech import N_SAMPLES, RATE_HZ, samples, write_lines

_SYMBOLS = """
    b d g p t k dx q jh ch s sh z zh f th v dh m n ng em en eng nx l r w y hh hv el iy ih eh ey ae aa aw ay ah ao oy ow
    uh uw ux er ax ix axr ax-h pau epi h# bcl dcl gcl pcl tcl kcl
"""
SYMBOLS = _SYMBOLS.split()
_TRAIN = """
    fcjf0 fdaw0 fdml0 fecd0 fetb0 fjsp0 fkfb0 fmem0 fsah0 fsjk1 fsma0 ftbr0 fvfb0 fvmh0 mcpm0 mdac0 mdpk0 medr0 mgrl0
    mjeb1
"""
TRAIN = _TRAIN.split()
_CORE = """
    mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0 mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0 mgrt0
    mnjm0 fdhc0 mjln0 mpam0 fmld0
"""
CORE = _CORE.split()
_DEVELOPMENT = """
    faks0 fdac1 fjem0 mgwt0 mjar0 mmdb1 mmdm2 mpdf0 fcmh0 fkms0 mbdg0 mbwm0 mcsh0 fadg0 fdms0 fedw0 mgjf0 mglb0 mrtk0
    mtaa0 mtdt0 mthc0 mwjg0 fnmr0 frew0 fsem0 mbns0 mmjr0 mdls0 mdlf0 mdvc0 mers0 fmah0 fdrw0 mrcs0 mrjm4 fcal1 mmwh0
    fjsj0 majc0 mjsw0 mreb0 fgjd0 fjmg0 mroa0 mteb0 mjfc0 mrjr0 fmml0 mrws1
"""
DEVELOPMENT = _DEVELOPMENT.split()
OTHERS = ["mbjk0", "fdrd1"]
SA1 = "She had your dark suit in greasy wash water all year."


def write_timit(root: Path, upper: bool = True, riff_twins: bool = False) -> None:
    """Write TRAIN and TEST below root: SA1 and one other sentence (SX or SI in turn) of each speaker.

    Parameters
    ----------
    upper : bool
        Names in capitals, as on the CD-ROM; otherwise in lower case.
    riff_twins : bool
        Write SA1.WAV.wav (RIFF) in place of SA1.WAV (SPHERE).
    """
    for split, speakers in (("TRAIN", TRAIN), ("TEST", CORE + DEVELOPMENT + OTHERS)):
        for k, speaker in enumerate(speakers):
            home = Path(split, f"DR{k % 8 + 1}", speaker.upper())
            home = root / (home if upper else str(home).lower())
            home.mkdir(parents=True)
            write_sentence(home, "SA1", SA1, SYMBOLS[:5], upper, riff_twins)
            kind = "SX" if k % 2 == 0 else "SI"
            said = [SYMBOLS[(4 * k + step) % len(SYMBOLS)] for step in range(4)]
            write_sentence(home, f"{kind}{k + 1}", f"A {split.lower()} one -- isn't it?", said, upper, riff_twins)


def write_sentence(
    home: Path, name: str, text: str, symbols: list[str], upper: bool = True, riff_twins: bool = False
) -> None:
    """The four files of one sentence."""
    case = str.upper if upper else str.lower
    sound = home / case(f"{name}.wav")
    if riff_twins:
        twin = sound.with_name(f"{sound.name}.wav")
        soundfile.write(twin, samples(f"{home.name}/{name}".lower()), RATE_HZ, format="WAV")
    else:
        sound.write_bytes(sphere_header("") + samples(f"{home.name}/{name}".lower()).astype("<i2").tobytes())
    marks = ["h#", *symbols, "h#"]
    lines = [f"{40 * k} {40 * (k + 1)} {symbol}" for k, symbol in enumerate(marks)]
    write_lines(home / case(f"{name}.phn"), lines)
    write_lines(home / case(f"{name}.wrd"), [f"0 {N_SAMPLES} word"])
    write_lines(home / case(f"{name}.txt"), [f"0 {N_SAMPLES} {text} "])


def sphere_header(coding: str) -> bytes:
    """The 1024 bytes before the samples; TIMIT's own have no entry for the coding."""
    lines = ["NIST_1A", "   1024", "database_id -s5 TIMIT", "database_version -s3 1.0", "channel_count -i 1",
             f"sample_count -i {N_SAMPLES}", f"sample_rate -i {RATE_HZ}", "sample_n_bytes -i 2",
             "sample_byte_format -s2 01", "sample_sig_bits -i 16"]  # fmt: skip
    lines += [f"sample_coding -s{len(coding)} {coding}"] * bool(coding)
    return ("\n".join([*lines, "end_head"]) + "\n").encode().ljust(1024)
