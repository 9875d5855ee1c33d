"""What may be said about a claim: one of four words, by one rule, from the interval over seeds.

A seed is a whole new experiment (stories, voices, listeners, starting weights), so a claim is judged by how much its
number moves between seeds: mean and t interval with n - 1 degrees of freedom, one number per seed. Intervals of single
seeds (over held-out time, clips or words) only bound it from below (`effects.over_seeds`).

kind        supported                not supported                                  else
rises       interval above 0         interval below `smallest`                      cannot tell
falls       interval below 0         interval above -`smallest`                     cannot tell
not worse   interval above -margin   interval below -margin                         cannot tell
unchanged   interval inside +-margin interval outside of it, on one side            cannot tell

`smallest` is the smallest effect of interest, fixed for each claim before looking. An interval wholly below it is 'not
supported' also where it is above 0: there is an effect, and it is too small to matter. If there is no effect at all, a
claim of a rise or fall is called supported in at most 2.5 % of experiments. That of 'unchanged' needs a 95 % interval
inside the margin, which is stricter than the usual 90 % (two one-sided tests at 2.5 %).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["rises", "falls", "not worse", "unchanged", "shown"]
Verdict: TypeAlias = Literal["supported", "not supported", "cannot tell with this n", "not measured", "shown"]

SUPPORTED: Verdict = "supported"
NOT_SUPPORTED: Verdict = "not supported"
CANNOT_TELL: Verdict = "cannot tell with this n"
NOT_MEASURED: Verdict = "not measured"
SHOWN: Verdict = "shown"


def verdict(kind: Kind, smallest: float, low: float | None, high: float | None) -> Verdict:
    """The verdict on a number with its interval over seeds.

    Parameters
    ----------
    smallest : float
        Smallest effect of interest, or the margin; above 0.
    low, high : float or None
        None with one seed: then nothing can be told.

    Raises
    ------
    ValueError
        If `smallest` is not above 0.

    >>> verdict("rises", 0.01, 0.02, 0.08), verdict("rises", 0.01, -0.03, 0.005), verdict("rises", 0.01, -0.01, 0.05)
    ('supported', 'not supported', 'cannot tell with this n')
    """
    if not smallest > 0:
        raise ValueError(f"the smallest effect of interest is {smallest}; it has to be above 0.")
    if kind == "shown":
        return SHOWN
    if low is None or high is None:
        return CANNOT_TELL
    if kind == "unchanged":
        return _unchanged(smallest, low, high)
    if kind == "falls":
        low, high = -high, -low
    border, too_small = (-smallest, -smallest) if kind == "not worse" else (0.0, smallest)
    if high < too_small:
        return NOT_SUPPORTED
    return SUPPORTED if low > border else CANNOT_TELL


def is_beyond_zero(kind: Kind, low: float | None, high: float | None) -> bool:
    """Whether the interval lies on the side of 0 that the claim is about."""
    if low is None or high is None:
        return False
    return high < 0 if kind == "falls" else low > 0


def smallest_p(n_seeds: int) -> float:
    """The smallest two-sided p that a sign-flip test or Wilcoxon's signed-rank test can give: 2 / 2^n, at most 1.

    >>> smallest_p(5)
    0.0625
    """
    return min(1.0, 2.0 / 2.0**n_seeds)


def _unchanged(margin: float, low: float, high: float) -> Verdict:
    if -margin < low and high < margin:
        return SUPPORTED
    return NOT_SUPPORTED if low > margin or high < -margin else CANNOT_TELL
