"""A model folder: bit for bit what was trained, or a named error; equal training gives equal bytes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("vaderSentiment")
pytest.importorskip("safetensors")

from builders import label
from builders.label import folder as folders
from builders.label import systems
from builders.label.folder import ARRAYS, MODEL, VOCABULARY, load_model, read_description, save_model
from builders.label.labeller import Labeller
from t4sa_data.errors import BadOption, ClassAbsent, ForeignFiles, ModelFolderError, OutputError

from tests.label_helpers import labelled, save_tiny, tiny_tandem  # isort: skip

TEXTS = [row[2] for row in labelled(40, seed=1)] + ["", "\ud83d", "\x00", "\U0001f602", "x" * 5000]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tandem")


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    """A folder to damage."""
    made = tmp_path / "copy"
    made.mkdir()
    for path in model.iterdir():
        (made / path.name).write_bytes(path.read_bytes())
    return made


class Probe(Labeller):
    """Keeps what it was given."""

    kind = "majority"

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]], values: Mapping[str, Any]) -> None:
        super().__init__([0.2, 0.3, 0.5])
        self.arrays, self.values = arrays, values

    def _probabilities(self, texts: list[str]) -> npt.NDArray[np.float64]:
        return np.full((len(texts), 3), 1 / 3)

    def state(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        return dict(self.arrays), dict(self.values)

    @classmethod
    def from_state(cls, arrays: Mapping[str, npt.NDArray[Any]], values: Mapping[str, Any]) -> Self:
        return cls(arrays, values)


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "labeller_class", lambda _kind: Probe)


def test_every_array_comes_back_bit_for_bit_in_whatever_order_it_lay(tmp_path: Path, probes: None) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4) / 7
    arrays = {
        "fortran": np.asfortranarray(rows),
        "strided": rows[:, ::2],
        "reversed": rows[::-1],
        "turned": rows.T,
        "big endian": rows.astype(">f4"),
        "scalar": np.float64(0.1) * np.ones(()),
        "empty": np.zeros((0, 3), np.int64),
        "nan": np.array([np.nan, -0.0, np.inf, 5e-324]),
        "flags": np.array([True, False]),
        "ids": np.array([2**60 + 1]),
    }
    assert arrays["fortran"].flags.f_contiguous and not arrays["fortran"].flags.c_contiguous
    save_model(Probe(arrays, {"config": {"a": 1}}), tmp_path / "m")
    found = load_model(tmp_path / "m")
    assert isinstance(found, Probe) and found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        native = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
        assert found.arrays[name].tobytes() == native.tobytes(), name
        assert found.arrays[name].shape == array.shape and found.arrays[name].dtype == native.dtype


def test_words_come_back_as_they_were_also_those_that_utf8_cannot_hold(tmp_path: Path, probes: None) -> None:
    values = {"words": ["a", "\ud83d", "\u2028", "\x00", ""], "none": [], "config": {"rate": 0.1, "name": "\u00e9"}}
    save_model(Probe({"a": np.zeros(1)}, values), tmp_path / "m")
    found = load_model(tmp_path / "m")
    assert isinstance(found, Probe) and found.values == values


def test_probabilities_after_a_round_trip_are_the_same_bits(model: Path) -> None:
    before, after = tiny_tandem(), label.load_model(str(model))
    assert type(before) is type(after)
    for prior in ("raw", "uniform"):
        assert before.predict_proba(TEXTS, prior).tobytes() == after.predict_proba(TEXTS, prior).tobytes()


@pytest.mark.parametrize("kind", [kind for kind in systems.names() if kind not in ("tandem", "lstm")])
def test_every_system_is_trained_saved_and_loaded_by_its_name(kind: str, tmp_path: Path) -> None:
    rows = labelled(120)
    texts, labels = [row[2] for row in rows], [row[1] for row in rows]
    trained = systems.train_system(kind, texts, labels)
    digests = {save_model(trained, tmp_path / "one", {"seed": 0})}
    digests.add(save_model(systems.train_system(kind, texts, labels), tmp_path / "two", {"seed": 0}))
    assert len(digests) == 1 == len({(tmp_path / n / ARRAYS).read_bytes() for n in ("one", "two")})
    found = load_model(tmp_path / "one")
    assert found.kind == kind == read_description(tmp_path / "one")["kind"]
    assert found.predict_proba(TEXTS).tobytes() == trained.predict_proba(TEXTS).tobytes()


def test_the_folder_says_what_it_is_and_holds_no_text_time_or_path(model: Path, tmp_path: Path) -> None:
    again = save_tiny(tmp_path / "elsewhere" / "again")
    assert {p.name: p.read_bytes() for p in model.iterdir()} == {p.name: p.read_bytes() for p in again.iterdir()}
    assert {path.name for path in model.iterdir()} == {MODEL, VOCABULARY, ARRAYS}
    text = (model / MODEL).read_text()
    said = json.loads(text)
    assert text == json.dumps(said, indent=1, sort_keys=True) + "\n"
    assert said["classes"] == ["negative", "neutral", "positive"] and said["format"] == 1 and said["kind"] == "tandem"
    assert abs(sum(said["prior"]) - 1) < 1e-9 and said["seed"] == 0 and said["state"]["config"]["folds"] == 2
    assert said["fingerprint"]["threads"] == 1 and said["fingerprint"]["text_version"] >= 1
    assert {"numpy", "torch", "scikit-learn"} <= said["fingerprint"]["libraries"].keys()
    assert len(said["fingerprint"]["lexicons"]["vader"]["sha256"]) == 64
    assert str(model) not in text and "was great and" not in text
    for name, file in said["files"].items():
        assert hashlib.sha256((model / name).read_bytes()).hexdigest() == file["sha256"]


def rewrite(folder: Path, **changes: Any) -> None:
    """A description that is sealed again, as a careful hand would."""
    said = {**json.loads((folder / MODEL).read_text()), **changes}
    said["sha256"] = folders._own_hash(said)
    (folder / MODEL).write_text(json.dumps(said))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def newer_lexicon(folder: Path) -> None:
    said = json.loads((folder / MODEL).read_text())["fingerprint"]
    said["lexicons"]["vader"] |= {"sha256": "0" * 64, "version": "9.9"}
    rewrite(folder, fingerprint=said)


def fewer_lexicons(folder: Path) -> None:
    said = json.loads((folder / MODEL).read_text())["fingerprint"]
    del said["lexicons"]["community"]
    rewrite(folder, fingerprint=said)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "arrays cut": (lambda f: (f / ARRAYS).write_bytes((f / ARRAYS).read_bytes()[:-1]), "truncated"),
    "arrays empty": (lambda f: (f / ARRAYS).write_bytes(b""), "truncated"),
    "a byte of the arrays": (lambda f: flip(f / ARRAYS, -5), "an altered file"),
    "a byte of the arrays' header": (lambda f: flip(f / ARRAYS, 20), "an altered file"),
    "a byte of the vocabulary": (lambda f: flip(f / VOCABULARY, 40), "an altered file"),
    "no arrays": (lambda f: (f / ARRAYS).unlink(), "missing"),
    "no vocabulary": (lambda f: (f / VOCABULARY).unlink(), "missing"),
    "no description": (lambda f: (f / MODEL).unlink(), "no model folder"),
    "description cut": (lambda f: (f / MODEL).write_bytes((f / MODEL).read_bytes()[:100]), "not JSON"),
    "description altered": (
        lambda f: (f / MODEL).write_text((f / MODEL).read_text().replace('"folds": 2', '"folds": 3')),
        "an altered description",
    ),
    "description of NaN": (
        lambda f: (f / MODEL).write_text((f / MODEL).read_text().replace('"folds": 2', '"folds": NaN')),
        "an altered description",
    ),
    "nested without end": (lambda f: (f / MODEL).write_text("[" * 100_000), "not JSON"),
    "another program's": (lambda f: (f / MODEL).write_text('{"architecture": "vgg19"}'), "another program"),
    "a list": (lambda f: (f / MODEL).write_text("[1]"), "another program"),
    "a later format": (lambda f: rewrite(f, format=2), "another format"),
    "an unknown kind": (lambda f: rewrite(f, kind="oracle"), "unknown kind"),
    "other classes": (lambda f: rewrite(f, classes=["positive", "neutral", "negative"]), "unknown kind"),
    "another kind's state": (lambda f: rewrite(f, kind="svm"), "another version"),
    "no files": (lambda f: rewrite(f, files={}), "missing"),
    "other rules for texts": (
        lambda f: rewrite(f, fingerprint={**read_description(f)["fingerprint"], "text_version": 99}),
        "other rules",
    ),
    "without a lexicon": (fewer_lexicons, "no community"),
    "another lexicon": (newer_lexicon, "pip install 'vaderSentiment==9.9'"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_or_foreign_folder_is_refused_by_name(name: str, copy: Path) -> None:
    damage, says = DAMAGE[name]
    load_model(copy)
    damage(copy)
    with pytest.raises(ModelFolderError, match=says) as caught:
        load_model(copy)
    assert str(copy) in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="no model folder"):
        load_model(tmp_path / "none")


def test_only_a_model_is_replaced_and_nothing_is_left_behind(copy: Path, tmp_path: Path) -> None:
    flip(copy / ARRAYS, -5)
    save_tiny(copy)
    load_model(copy)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(ForeignFiles, match=r"notes\.txt"):
        save_tiny(copy)
    with pytest.raises(ForeignFiles):
        save_tiny(copy / "notes.txt")
    with pytest.raises(OutputError):
        save_tiny(copy / "notes.txt" / "deeper")
    assert (copy / "notes.txt").read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_disk_that_fills_leaves_the_old_model(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}

    def full(path: Path, _data: bytes) -> str:
        if path.name == VOCABULARY:
            raise OSError(28, "No space left on device")
        return ""

    monkeypatch.setattr(folders, "write_bytes", full)
    with pytest.raises(OutputError, match="disk is full"):
        save_tiny(copy)
    assert before == {path.name: path.read_bytes() for path in copy.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_what_a_folder_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="object"):
        save_model(Probe({"a": np.array(["x", None], dtype=object)}, {}), tmp_path / "m")
    with pytest.raises(ModelFolderError, match="no model folder can hold"):
        save_model(Probe({}, {"config": float("nan")}), tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"kind": "oracle"}, BadOption, "tandem | svm"),
        ({"kind": "transformers"}, BadOption, "not trained here"),
        ({"kind": "svm", "device": "cuda"}, BadOption, "no use for device"),
        ({"kind": "tandem", "device": "warp"}, BadOption, "no such device"),
        ({"kind": "majority", "vectors": {"a": np.ones(2)}}, BadOption, "no use for vectors"),
        ({"labels": [0, 2] * 30}, ClassAbsent, "no text of the class neutral.*30 negative, 0 neutral"),
        ({"labels": [1] * 60}, ClassAbsent, "a single class"),
        ({"kind": "tandem", "labels": [0] * 30 + [1] + [2] * 29}, ClassAbsent, "too few different texts.* neutral"),
        ({"kind": "svm", "labels": [0] * 30 + [1] + [2] * 29}, ClassAbsent, "too few different texts.* neutral"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_training(
    arguments: dict[str, Any], error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from builders.label import linear, lstm

    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(linear, "fit_svm", too_late)
    monkeypatch.setattr(lstm, "train", too_late)
    rows = labelled(60)
    given = {"kind": "svm", "texts": [row[2] for row in rows], "labels": [row[1] for row in rows], **arguments}
    with pytest.raises(error, match=says):
        systems.train_system(**given)


def test_the_package_is_light_until_a_model_is_loaded() -> None:
    check = (
        "import sys, builders.label as b; b.load_model;"
        "print(sorted({'torch', 'sklearn', 'scipy', 'numpy', 'pyarrow', 'transformers'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
