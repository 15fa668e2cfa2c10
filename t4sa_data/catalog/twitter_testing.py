"""The Twitter Testing Dataset of You et al. (AAAI 2015): counts, published folds, and where copies of it are known."""

from dataclasses import dataclass

from .facts import Fact

_UPC = "github.com/imatge-upc/sentiment-2017-imavis"


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Images of the Twitter Testing Dataset on which so many of five workers agreed."""

    name: str
    list_file: str
    positive: int
    negative: int
    fold_images: int
    """Images that the published five folds cover."""
    split_twins: int
    """Pairs of identical pictures that the published folds put on both sides."""

    @property
    def total(self) -> int:
        """Images, both classes."""
        return self.positive + self.negative

    def by_class(self) -> dict[str, int]:
        """Class -> count, in label order; there is no neutral one."""
        return {"negative": self.negative, "neutral": 0, "positive": self.positive}

    @property
    def majority_percent(self) -> float:
        """Accuracy of always answering the larger class, in percent."""
        return 100 * max(self.positive, self.negative) / self.total


TWITTER_TESTING: dict[str, Agreement] = {
    "five": Agreement(
        name="five agree",
        list_file="twitter_five_agrees.txt",
        positive=581,
        negative=301,
        fold_images=880,
        split_twins=5,
    ),
    "four": Agreement(
        name="at least four agree",
        list_file="twitter_four_agrees.txt",
        positive=689,
        negative=427,
        fold_images=1_115,
        split_twins=7,
    ),
    "three": Agreement(
        name="at least three agree",
        list_file="twitter_three_agrees.txt",
        positive=769,
        negative=500,
        fold_images=1_265,
        split_twins=8,
    ),
}
TWITTER_TESTING_FACTS: dict[str, Fact] = {
    "counts": Fact(
        value={name: agreement.total for name, agreement in TWITTER_TESTING.items()},
        source="label lists of the Twitter Testing Dataset, You et al., AAAI 2015",
        certainty="published",
        note="0 negative, 1 positive.",
    ),
    "folds": Fact(
        value={name: agreement.fold_images for name, agreement in TWITTER_TESTING.items()},
        source=f"ground_truth lists of {_UPC}",
        certainty="published",
        note="Disjoint folds of equal size: 2, 1, 4 images are in none. Whether T4SA's paper used them is unknown.",
    ),
    "twins": Fact(
        value=13,
        source="media keys in the label lists",
        certainty="computed",
        note="Media keys that occur twice; one pair (BfSDX5lIEAA2wmY) has opposite labels.",
    ),
}
TWITTER_TESTING_FOLDS = Fact(
    value={
        "five": (
            "e07f9ac8c9860d41980c0360418891aa4ec8de16904e1dbfe948d027305fc69b",
            "f85fc32e196ffc5e8588e8b7e712ac6c9095018506b8ca9ae416bde34b1db34c",
            "c9dbf81fc0558ce4800e4b898423ade25f540c7dd7ca28d5ded728d17c86da70",
            "a528e76e04a80c44b1a55e2ba204b041552e4f42104b2fbadcc61e1fea46d880",
            "d5ef47dfa5b969c1bc8c82a8e132647ec69802b3b48f040ed281a73376e57048",
        ),
        "four": (
            "27ee246d11f40b4b7d75f6c964f6b4f182efc3bb2d077efef3185773ac2c1a38",
            "b54e9dc14c503d53a262ef37222ebf9665dab76808fcc42f904120fb528e9a99",
            "fafa7bceedac40b6780bca9adc0b2d747c42f3b04d93917aa21316f824cc1566",
            "64a5e73c1981730196a8bb0d1b32cfaf135b69758b12236251960d01f8d1d9cf",
            "370238bacd7f6f8610db1adae652e689255cff7059a5db1a1a24388ff15fd9a1",
        ),
        "three": (
            "824dd7fa09a29dafadf2af952265f1db896117a8d4b1b7a818c25c28bc74af13",
            "ed6c4ba0a4da274566367f9d372481f9f0fb71dc9bfc84ec9f105fe702e61df6",
            "118c85f25ae3a69511afb24e254f795938918d321adf44b182527cbe570ec1dd",
            "aa610200ad459db9ef1e8a412789aa0d7afe9fe03276738e87a16f513b4d5173",
            "48957fec1d521116b242878a0cccbc72bc503de62c579272d65ef54d29510988",
        ),
    },
    source=f"test1 to test5 of the ground_truth lists of {_UPC} (MIT licence)",
    certainty="computed",
    note="sha256 of each test list's lines `<file> <label>`, sorted, each with a line feed.",
)
"""Word of the agreement -> sha256 of the five published test lists, in their order."""
TWITTER_TESTING_PLACES: tuple[Fact, ...] = (
    Fact(
        value=_UPC,
        source=f"README and files of {_UPC}",
        certainty="published",
        note="its README names a copy on Google Drive (57.4 MB); it holds label lists and folds",
    ),
    Fact(
        value="github.com/codiceSpaghetti/T4SA-2.0",
        source="its files",
        certainty="published",
        note="stores the images; 2.88 GB in all",
    ),
    Fact(
        value="the authors' page at the University of Rochester",
        source="handed down to this project; not re-read",
        certainty="recalled",
        note="gone since September 2021",
    ),
)
"""Where the images were seen; none of these was fetched by this project."""


def twitter_testing_places() -> str:
    """The known places and what a copy has to hold, as a sentence for messages."""
    places = "; ".join(f"{place.value} ({place.note})" for place in TWITTER_TESTING_PLACES)
    counts = ", ".join(f"{one.name} {one.total:,}" for one in TWITTER_TESTING.values())
    return f"Expected images: {counts}. Known places: {places}."
