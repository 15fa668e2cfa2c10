"""The files that the official site and the authors' repository distribute."""

from collections.abc import Iterable
from dataclasses import dataclass

from .configs import DATASET_URL
from .counts import PUBLISHED
from .facts import CONVERTED, PAGE, Certainty, Fact

_RELEASES = "https://github.com/fabiocarrara/visual-sentiment-analysis/releases/download/torch-models/"

TSV_HEADER = ("TWID", "NEG", "NEU", "POS")
CSV_HEADER = ("id", "text")
MEMBER_PATTERN = "data/{prefix}/{tweet_id}-{image_index}.jpg"
"""Members of b-t4sa_imgs.tar; prefix = first five digits of the tweet id, image_index = 1..4."""
SPLIT_LINE_EXAMPLE = "data/76772/767724493873516544-1.jpg 2"
"""A line of a split list: member, one space, label; no header."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One file that can be downloaded."""

    name: str
    """What `t4sa download` calls it."""
    filename: str
    """The site's file name; kept on disk."""
    url: str
    num_bytes: int | None
    """Size in bytes as the site rounds it (63 GB -> 63,000,000,000), never exact; None: unknown."""
    size_certainty: Certainty
    needs_credentials: bool | None
    """None: unknown until the server answers."""
    description: str
    """One sentence: what it is for."""
    members: tuple[str, ...] = ()
    """Glob patterns of members that an archive must hold."""
    num_rows: int | None = None
    """Rows of a table without its header, or images of an archive; None: not published exactly."""
    source: str = PAGE
    """Where name and size stand."""
    system: str | None = None
    """Row of table 1 whose network it is; None: no network."""


def _model(name: str, stem: str, num_bytes: int, system: str, layers: str) -> tuple[Package, Package]:
    """The DIGITS archive of a model and its PyTorch conversion."""
    words = f"{system}, {layers} fine-tuned"
    caffe = Package(
        name=name,
        filename=f"{stem}.tar.gz",
        url=f"{DATASET_URL}{stem}.tar.gz",
        num_bytes=num_bytes,
        size_certainty="published",
        needs_credentials=None,
        description=f"{words}: NVIDIA DIGITS archive with the Caffe model.",
        members=("deploy.prototxt", "mean.binaryproto", "snapshot_iter_*.caffemodel"),
        system=system,
    )
    torch = Package(
        name=f"pytorch-{name}",
        filename=f"{stem}.pth",
        url=f"{_RELEASES}{stem}.pth",
        num_bytes=None,
        size_certainty="unknown",
        needs_credentials=False,
        description=f"{words}: the authors' conversion, a NumPy pickle and no torch checkpoint: unpickle restricted.",
        source=CONVERTED,
        system=system,
    )
    return caffe, torch


_DATA = (
    Package(
        name="b-t4sa",
        filename="b-t4sa_imgs.tar",
        url=f"{DATASET_URL}b-t4sa_imgs.tar",
        num_bytes=63_000_000_000,
        size_certainty="published",
        needs_credentials=True,
        description="The images of B-T4SA and the three split lists, inside the tar or beside it.",
        members=("data/?????/*-[1-4].jpg",),
        num_rows=PUBLISHED["balanced"].total,
    ),
    Package(
        name="text-sentiment",
        filename="t4sa_text_sentiment.tsv",
        url=f"{DATASET_URL}t4sa_text_sentiment.tsv",
        num_bytes=74_000_000,
        size_certainty="published",
        needs_credentials=True,
        description="Three class probabilities for each tweet of T4SA.",
        num_rows=PUBLISHED["tweets"].total,
    ),
    Package(
        name="raw-text",
        filename="raw_tweets_text.csv",
        url=f"{DATASET_URL}raw_tweets_text.csv",
        num_bytes=414_000_000,
        size_certainty="published",
        needs_credentials=True,
        description="Id and text of all collected tweets, about 3.4 million; optional, fills the text column.",
    ),
)
_MODELS = (
    _model("hybrid-ft-a", "hybrid_finetuned_all", 210_900_000, "Hybrid-T4SA FT-A", "all layers"),
    _model("hybrid-ft-f", "hybrid_finetuned_fc6+", 210_900_000, "Hybrid-T4SA FT-F", "fc layers"),
    _model("vgg19-ft-a", "vgg19_finetuned_all", 518_200_000, "VGG-T4SA FT-A", "all layers"),
    _model("vgg19-ft-f", "vgg19_finetuned_fc6+", 518_200_000, "VGG-T4SA FT-F", "fc layers"),
)

MODELS = tuple(caffe.name for caffe, _ in _MODELS)
MODELS_PYTORCH = tuple(torch.name for _, torch in _MODELS)
PACKAGES: dict[str, Package] = {
    package.name: package for package in (*_DATA, *(caffe for caffe, _ in _MODELS), *(torch for _, torch in _MODELS))
}
GROUPS: dict[str, tuple[str, ...]] = {"models": MODELS, "models-pytorch": MODELS_PYTORCH}
"""Names that stand for several packages."""
PREPARE_REQUIRED = ("b-t4sa", "text-sentiment")
"""Without these `t4sa prepare` cannot build the default config."""
PREPARE_PACKAGES = (*PREPARE_REQUIRED, "raw-text")
"""What `t4sa download` fetches unless told otherwise."""

DISTRIBUTION: dict[str, Fact] = {
    "access": Fact(
        value="form, then user name and password by mail",
        source=PAGE,
        certainty="published",
        note="The page lists the models apart from the form, so they may be open.",
    ),
    "authentication": Fact(
        value="HTTP Basic",
        source="public scripts that hand URL, user and password to a downloader",
        certainty="inferred",
        note="Over plain http: the password and the files can be read and changed on the way.",
    ),
    "urls": Fact(value=f"{DATASET_URL}<file>", source="public scripts", certainty="inferred"),
    "checksums": Fact(
        value=None, source=PAGE, certainty="unknown", note="None are published; recorded at the first download."
    ),
    "full_image_package": Fact(
        value=None,
        source=PAGE,
        certainty="unknown",
        note="Name and size of an archive of all T4SA images, and of a list without near-duplicates, were not found.",
    ),
    "tsv_order": Fact(
        value="ascending tweet id",
        source="public readers of t4sa_text_sentiment.tsv",
        certainty="published",
        note="Probabilities have about 12 significant digits and sum to 1.",
    ),
    "csv_quoting": Fact(
        value="quoted CSV, UTF-8",
        source="public readers of raw_tweets_text.csv",
        certainty="published",
        note="Texts hold commas, quotes, HTML entities and emoji; ids need 64-bit integers.",
    ),
}


def expand(names: Iterable[str]) -> tuple[Package, ...]:
    """Packages by name or group, each once, in the order given.

    >>> [package.filename for package in expand(["models", "hybrid-ft-a"])][:2]
    ['hybrid_finetuned_all.tar.gz', 'hybrid_finetuned_fc6+.tar.gz']
    """
    found: dict[str, Package] = {}
    for name in names:
        members = GROUPS.get(name, (name,))
        for member in members:
            if member not in PACKAGES:
                raise KeyError(f"unknown package {name!r}: known are {', '.join([*PACKAGES, *GROUPS])}")
            found[member] = PACKAGES[member]
    return tuple(found.values())
