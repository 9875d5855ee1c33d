"""What is known of LeBel et al. 2023 (OpenNeuro ds003020) before a file is read: stories, subjects, timing, roles.

Sources: LeBel et al. (2023), Scientific Data 10, 555, doi:10.1038/s41597-023-02437-z; the data set's public file tree
and its respdict.json (volumes per story); the laboratory's list of sessions
(github.com/HuthLab/deep-fMRI-dataset, sess_to_story.json); scanner logs of 13 stories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from brainlit.stories.base import ROLES, SourceError
from brainlit.stories.published import chosen

NOMINAL_TR_S = 2.0045
"""Repetition time to which the logs agree."""
SIDECAR_TR_S = 2.0
"""Repetition time in the BIDS side-cars; off by 1.6 s after 355 volumes."""
MEASURED_TR_S = 2.00449
"""Mean over the 13 logs; single intervals are 1.98 to 2.02 s."""
SOUND_START_S = 10.023
"""Seconds from the first volume (volume 0) to the start of the sound; the same within 1 ms in the 13 logs."""
FIRST_VOLUME = 10
"""Row 0 of the published responses is this volume."""
PADDING_VOLUMES = 5
"""respdict.json counts this many volumes more than the scanner was triggered for."""
TRIMMED_VOLUMES = 20
"""respdict.json counts this many volumes more than the responses have rows: padding, 10 at the start, 5 at the end."""
SAVGOL = (120.0, 2)
"""Seconds and order of the Savitzky-Golay smoother whose output was subtracted from every voxel, as the paper says."""

TEST_STORY = "wheretheressmoke"
CHOOSE_STORIES = ("stagefright", "life")
NO_STORY = "auditory_localizer"

_VOLUMES = """
    alternateithicatom 363  souls 375  avatar 387  legacy 420  odetostepfather 424  undertheinfluence 324
    howtodraw 374  myfirstdaywiththeyankees 378  naked 442  life 450  stagefright 313  tildeath 343  sloth 457
    exorcism 487  haveyoumethimyet 516  adollshouse 261  inamoment 225  theclosetthatateeverything 334
    adventuresinsayingyes 411  buck 352  swimmingwithastronauts 405  thatthingonmyarm 454  eyespy 399  itsabox 375
    hangtime 344  breakingupintheageofgoogle 541  treasureisland 414  shoppinginchina 357  onlyonewaytofindout 402
    penpal 275  goingthelibertyway 414  kiksuya 352  thepostmanalwayscalls 474  backsideofthestorm 365
    sweetaspie 177  thetiniestbouquet 191  lifeanddeathontheoregontrail 381  thefreedomridersandme 354  thumbsup 434
    becomingindian 408  waitingtogo 369  singlewomanseekingmanwich 317  whenmothersbullyback 327
    superheroesjustforeachother 345  gpsformylostidentity 346  catfishingstrangerstofindmyself 346
    christmas1940 263  stumblinginthedark 509  forgettingfear 257  bluehope 429  lifereimagined 347
    ifthishaircouldtalk 269  againstthewind 190  goldiethegoldfish 337  quietfire 475  cocoonoflove 449
    comingofageondeathrow 369  leavingbaghdad 347  mybackseatviewofagreatromance 404  reachingoutbetweenthebars 316
    afatherscover 332  wildwomenanddancingqueens 209  notontheusualtour 265  food 390  vixenandtheussr 411
    golfclubbing 221  beneaththemushroomcloud 362  threemonths 373  gangstersandcookies 276  metsmagic 248
    myfathershands 190  theadvancedbeginner 338  firetestforlove 338  theshower 412  birthofanation 284  listo 380
    thecurse 427  thetriangleshirtwaistconnection 222  mayorofthefreaks 495  cautioneating 299  theinterview 241
    jugglingandjesus 213  wheretheressmoke 311  fromboyhoodtofatherhood 368
"""
VOLUMES = {name: int(n) for name, n in zip(_VOLUMES.split()[::2], _VOLUMES.split()[1::2], strict=True)}
"""Volumes of each of the 84 stories, as in respdict.json."""
STORIES_84 = tuple(VOLUMES)

SESSIONS = (
    ("alternateithicatom", "souls", "avatar", "legacy", "odetostepfather"),
    ("undertheinfluence", "howtodraw", "myfirstdaywiththeyankees", "naked", "life"),
    ("stagefright", "tildeath", "fromboyhoodtofatherhood", "sloth", "exorcism"),
    ("haveyoumethimyet", "adollshouse", "inamoment", "theclosetthatateeverything", "adventuresinsayingyes", "buck"),
    ("swimmingwithastronauts", "thatthingonmyarm", "eyespy", "itsabox", "hangtime"),
)
"""The first five sessions, which everyone had; each also had the test story."""
STORIES_27 = (*(story for session in SESSIONS for story in session), TEST_STORY)

PAPER_SUBJECTS = tuple(f"UTS0{k}" for k in range(1, 9))
SUBJECTS = (*PAPER_SUBJECTS, "UTS09")
N_VOXELS = dict(zip(PAPER_SUBJECTS, (81126, 94251, 95556, 109469, 99322, 92198, 94395, 97023), strict=True))
"""Columns of the published responses."""

HEARD: dict[str, tuple[str, ...] | None] = {
    **dict.fromkeys(("UTS01", "UTS02", "UTS03"), STORIES_84),
    "UTS04": tuple(story for story in STORIES_27 if story != "life"),
    **dict.fromkeys(("UTS05", "UTS06", "UTS07", "UTS08"), STORIES_27),
    "UTS09": None,
}
"""Stories with published responses; None where only their number is known (54 for UTS09)."""

REMARKS = {
    "UTS01": "the raw NIfTI of treasureisland (session 7) is corrupt; its preprocessed responses are published",
    "UTS02": "another scanner and protocol, and no localisers",
    "UTS04": "no responses to life",
    "UTS09": "in the file tree (54 stories) but not in the paper",
}

NOT_WORDS = frozenset(
    {"", "sp", "br", "lg", "ls", "ns", "cg", "sl", "ig", "ns_ap", "ls)", "(br", "sil", "pau", "spn"}
    | {"{sp}", "{br}", "{lg}", "{ls}", "{ns}", "{cg}", "{sl}", "{ig}", "sentence_start", "sentence_end"}
    | {"sentence start", "sentence end", "{sentence_start}", "{sentence_end}"}
)
"""Marks for silence, breath, laughter, lip smacks and noise in the TextGrids, in lower case."""
_PHONES = """
    AA AE AH AO AW AX AXR AY B CH D DH DX EH EL EM EN ER EY F G HH HV IH IX IY JH K L M N NG NX OW OY P Q R S SH T TH
    UH UW UX V W Y Z ZH
"""
ARPABET = frozenset(_PHONES.split())
"""Phones without their stress digits."""


def n_rows(story: str) -> int:
    """Rows of a story's responses: respdict.json less 20.

    >>> n_rows("souls"), n_rows("wheretheressmoke")
    (355, 291)
    """
    return VOLUMES[story] - TRIMMED_VOLUMES


# --- Which stories and subjects are asked for, and which tune, fit, choose and score ---

Split = Literal["paper", "held_out_ceiling", "disjoint"]

GAP_TRS = 15
"""Rows between the half of the test story that chooses and the half that is scored: 30 s, more than windows and
delays reach over."""


def chosen_subjects(subjects: Sequence[str] | None) -> tuple[str, ...]:
    """The subjects asked for, as in `chosen`; the eight of the paper by default."""
    return PAPER_SUBJECTS if subjects is None else chosen("subject", subjects, SUBJECTS)


def chosen_stories(stories: str | int | Sequence[str]) -> tuple[str, ...]:
    """The stories asked for: '27', '84' or names, as in `chosen`."""
    if isinstance(stories, (str, int)):
        sets = {"27": STORIES_27, "84": STORIES_84}
        if str(stories) not in sets:
            raise SourceError(f"stories is {stories!r}; say '27', '84' or a list of names.")
        return sets[str(stories)]
    if NO_STORY in stories:
        raise SourceError(f"{NO_STORY!r} is a localiser and no story; leave it out of stories.")
    return chosen("story", stories, STORIES_84)


def roles_of(stories: Sequence[str], split: Split, subjects: Sequence[str]) -> dict[str, list[str]]:
    """Roles of some stories under a split.

    The paper (Moussa et al. 2025, arXiv 2410.09230) tunes and fits on 24 stories, chooses on two (its code names
    stagefright; life is the only other story that it leaves out) and scores wheretheressmoke.

    Raises
    ------
    SourceError
        If a role is left empty, or a subject is known to have heard none of a role's stories.
    """
    rest = [story for story in stories if story not in (*CHOOSE_STORIES, TEST_STORY)]
    choose = [story for story in CHOOSE_STORIES if story in stories]
    score = [TEST_STORY] if TEST_STORY in stories else []
    tune, fit = (rest[::2], rest[1::2]) if split == "disjoint" else (rest, rest)
    if split == "held_out_ceiling" and score:
        n_trs = n_rows(TEST_STORY)
        half = (n_trs - GAP_TRS) // 2
        choose = [*choose, f"{TEST_STORY}[0:{half}]"]
        score = [f"{TEST_STORY}[{half + GAP_TRS}:{n_trs}]"]
    roles = dict(zip(ROLES, (list(tune), list(fit), choose, score), strict=True))
    _require_all(roles, split, subjects)
    return roles


def _require_all(roles: dict[str, list[str]], split: Split, subjects: Sequence[str]) -> None:
    needs = {"choose": " or ".join(CHOOSE_STORIES), "score": TEST_STORY}
    cures = {role: f"Add {needs.get(role, 'more stories')} to stories, or take '27'." for role in roles}
    for role, spans in roles.items():
        if not spans:
            raise SourceError(f"the stories asked for leave no story to {role} under split {split!r}. {cures[role]}")
    for subject in subjects:
        heard = HEARD[subject]
        for role, spans in roles.items():
            if heard is not None and not any(span.partition("[")[0] in heard for span in spans):
                raise SourceError(
                    f"{subject} heard none of the stories that {role} ({', '.join(spans)}). {cures[role]}"
                )
