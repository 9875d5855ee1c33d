"""What a run rests on and should cite: the method, the solver, the data, the speech model, and brainlit itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, eq=False)
class Citation:
    """One published work, as BibTeX has it.

    Parameters
    ----------
    kind : str
        'article', 'inproceedings' or 'misc'.
    short : str
        As a text names it: 'LeBel et al., 2023'.
    fields : mapping
        In their order; 'others' among the authors stands for those that are not listed here.
    """

    key: str
    kind: str
    short: str
    fields: Mapping[str, str] = field(default_factory=dict)

    def bibtex(self, **more: str) -> str:
        """The entry, with further fields at its end.

        >>> print(Citation("a", "misc", "A, 2020", {"title": "T", "year": "2020"}).bibtex())
        @misc{a,
          title = {T},
          year = {2020}
        }
        """
        lines = [f"  {name} = {{{value}}}" for name, value in {**self.fields, **more}.items()]
        return f"@{self.kind}{{{self.key},\n" + ",\n".join(lines) + "\n}"

    @property
    def address(self) -> str | None:
        """Where the work is read."""
        if "doi" in self.fields:
            return f"https://doi.org/{self.fields['doi']}"
        return f"https://arxiv.org/abs/{self.fields['eprint']}" if "eprint" in self.fields else self.fields.get("url")


def _preprint(key: str, short: str, title: str, author: str, arxiv: str) -> Citation:
    year = short.rpartition(" ")[2]
    eprint = {"eprint": arxiv, "archivePrefix": "arXiv", "url": f"https://arxiv.org/abs/{arxiv}"}
    return Citation(key, "misc", short, {"title": title, "author": author, "year": year, **eprint})


METHOD = Citation(
    "moussa2025improving",
    "inproceedings",
    "Moussa et al., 2025",
    {
        "title": "Improving Semantic Understanding in Speech Language Models via Brain-tuning",
        "author": "Moussa, Omer and Klakow, Dietrich and Toneva, Mariya",
        "booktitle": "International Conference on Learning Representations",
        "year": "2025",
        "url": "https://arxiv.org/abs/2410.09230",
    },
)
RIDGE = Citation(
    "duprelatour2022feature",
    "article",
    "Dupré la Tour et al., 2022",
    {
        "title": "Feature-space selection with banded ridge regression",
        "author": "Dupré la Tour, Tom and Eickenberg, Michael and Nunez-Elizalde, Anwar O. and Gallant, Jack L.",
        "journal": "NeuroImage",
        "volume": "264",
        "year": "2022",
        "doi": "10.1016/j.neuroimage.2022.119728",
    },
)
SOFTWARE = Citation(
    "brainlit",
    "misc",
    "brainlit",
    {
        "title": "brainlit: fine-tune speech models on fMRI of people who listen to stories",
        "author": "{The brainlit authors}",
    },
)
_ALICE = Citation(
    "brennan2016abstract",
    "article",
    "Brennan et al., 2016",
    {
        "title": "Abstract linguistic structure correlates with temporal activity during naturalistic comprehension",
        "author": "Brennan, Jonathan R. and Stabler, Edward P. and Van Wagenen, Sarah E. and Luh, Wen-Ming and Hale,"
        " John T.",
        "journal": "Brain and Language",
        "volume": "157-158",
        "pages": "81--94",
        "year": "2016",
    },
)
DATA_SETS: Mapping[str, tuple[Citation, ...]] = {
    "lebel2023": (
        Citation(
            "lebel2023natural",
            "article",
            "LeBel et al., 2023",
            {
                "title": "A natural language fMRI dataset for voxelwise encoding models",
                "author": "LeBel, Amanda and Wagner, Lauren and Jain, Shailee and Adhikari-Desai, Aneesh and Gupta,"
                " Bhavin and Morgenthal, Allyson and Tang, Jerry and Xu, Lixiang and Huth, Alexander G.",
                "journal": "Scientific Data",
                "volume": "10",
                "pages": "555",
                "year": "2023",
                "doi": "10.1038/s41597-023-02437-z",
            },
        ),
    ),
    "narratives": (
        Citation(
            "nastase2021narratives",
            "article",
            "Nastase et al., 2021",
            {
                "title": 'The "Narratives" fMRI dataset for evaluating models of naturalistic language comprehension',
                "author": "Nastase, Samuel A. and others",
                "journal": "Scientific Data",
                "volume": "8",
                "pages": "250",
                "year": "2021",
                "doi": "10.1038/s41597-021-01033-3",
            },
        ),
    ),
    "deniz2019": (
        Citation(
            "deniz2019representation",
            "article",
            "Deniz et al., 2019",
            {
                "title": "The representation of semantic information across human cerebral cortex during listening"
                " versus reading is invariant to stimulus modality",
                "author": "Deniz, Fatma and Nunez-Elizalde, Anwar O. and Huth, Alexander G. and Gallant, Jack L.",
                "journal": "Journal of Neuroscience",
                "volume": "39",
                "pages": "7722--7736",
                "year": "2019",
                "doi": "10.1523/JNEUROSCI.0675-19.2019",
            },
        ),
    ),
    "petit_prince": (
        Citation(
            "li2022petit",
            "article",
            "Li et al., 2022",
            {
                "title": "Le Petit Prince multilingual naturalistic fMRI corpus",
                "author": "Li, Jixing and Bhattasali, Shohini and Zhang, Shulin and Franzluebbers, Berta and Luh,"
                " Wen-Ming and Spreng, R. Nathan and Brennan, Jonathan R. and Yang, Yiming and Pallier, Christophe and"
                " Hale, John",
                "journal": "Scientific Data",
                "volume": "9",
                "pages": "530",
                "year": "2022",
                "doi": "10.1038/s41597-022-01625-7",
            },
        ),
    ),
    "alice_bids": (
        Citation(
            "bhattasali2020alice",
            "inproceedings",
            "Bhattasali et al., 2020",
            {
                "title": "The Alice Datasets: fMRI \\& EEG Observations of Natural Language Comprehension",
                "author": "Bhattasali, Shohini and Brennan, Jonathan and Luh, Wen-Ming and Franzluebbers, Berta and"
                " Hale, John",
                "booktitle": "Proceedings of the Twelfth Language Resources and Evaluation Conference",
                "pages": "120--125",
                "year": "2020",
            },
        ),
        _ALICE,
    ),
    "alice": (_ALICE,),
}
"""By the name of the store; the demo has none, for nobody has published it."""
FAMILIES: Mapping[str, Citation] = {
    "wav2vec": _preprint(
        "baevski2020wav2vec",
        "Baevski et al., 2020",
        "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations",
        "Baevski, Alexei and Zhou, Yuhao and Mohamed, Abdelrahman and Auli, Michael",
        "2006.11477",
    ),
    "hubert": _preprint(
        "hsu2021hubert",
        "Hsu et al., 2021",
        "HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden Units",
        "Hsu, Wei-Ning and Bolte, Benjamin and Tsai, Yao-Hung Hubert and Lakhotia, Kushal and Salakhutdinov, Ruslan and"
        " Mohamed, Abdelrahman",
        "2106.07447",
    ),
    "wavlm": _preprint(
        "chen2021wavlm",
        "Chen et al., 2021",
        "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing",
        "Chen, Sanyuan and others",
        "2110.13900",
    ),
    "data2vec": _preprint(
        "baevski2022data2vec",
        "Baevski et al., 2022",
        "data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language",
        "Baevski, Alexei and Hsu, Wei-Ning and Xu, Qiantong and Babu, Arun and Gu, Jiatao and Auli, Michael",
        "2202.03555",
    ),
    "unispeech-sat": _preprint(
        "chen2021unispeech",
        "Chen et al., 2021",
        "UniSpeech-SAT: Universal Speech Representation Learning with Speaker Aware Pre-Training",
        "Chen, Sanyuan and Wu, Yu and Wang, Chengyi and Chen, Zhengyang and Chen, Zhuo and Liu, Shujie and Wu, Jian and"
        " Qian, Yao and Wei, Furu and Li, Jinyu and Yu, Xiangzhan",
        "2110.05752",
    ),
    "whisper": _preprint(
        "radford2022robust",
        "Radford et al., 2022",
        "Robust Speech Recognition via Large-Scale Weak Supervision",
        "Radford, Alec and Kim, Jong Wook and Xu, Tao and Brockman, Greg and McLeavey, Christine and Sutskever, Ilya",
        "2212.04356",
    ),
    "speecht5": _preprint(
        "ao2021speecht5",
        "Ao et al., 2021",
        "SpeechT5: Unified-Modal Encoder-Decoder Pre-Training for Spoken Language Processing",
        "Ao, Junyi and Wang, Rui and Zhou, Long and Wang, Chengyi and Ren, Shuo and Wu, Yu and Liu, Shujie and Ko, Tom"
        " and Li, Qing and Zhang, Yu and Wei, Zhihua and Qian, Yao and Li, Jinyu and Wei, Furu",
        "2110.07205",
    ),
    "w2v-bert": _preprint(
        "seamless2023",
        "Seamless Communication, 2023",
        "Seamless: Multilingual Expressive and Streaming Speech Translation",
        "{Seamless Communication} and others",
        "2312.05187",
    ),
}
"""By the family of the backbone."""
FAMILY_NAMES: Mapping[str, str] = {
    "wav2vec": "wav2vec 2.0",
    "hubert": "HuBERT",
    "wavlm": "WavLM",
    "data2vec": "data2vec",
    "unispeech-sat": "UniSpeech-SAT",
    "whisper": "Whisper",
    "speecht5": "SpeechT5",
    "w2v-bert": "w2v-BERT 2.0",
}
"""As their authors write them."""


def cited(family: str | None, data_sets: Iterable[str]) -> list[Citation]:
    """The works behind a run, each once; a family or data set that is not known here adds none."""
    of_data = [one for name in data_sets for one in DATA_SETS.get(name, ())]
    of_model = [FAMILIES[family]] if family is not None and family in FAMILIES else []
    return list(dict.fromkeys([METHOD, RIDGE, *of_data, *of_model]))


def bibliography(works: Iterable[Citation], version: str | None = None) -> str:
    """BibTeX of some works, and of brainlit, with its version where it is known."""
    own = SOFTWARE.bibtex(**({"note": f"Version {version}"} if version else {}))
    return "\n\n".join([*(one.bibtex() for one in works), own])
