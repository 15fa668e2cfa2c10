"""examples/relabel.py --text-model: a classifier of transformers over the release's own texts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
pytest.importorskip("transformers")
import torch
import transformers

from examples import relabel
from examples.errors import ModelFileError
from examples.evaluation import figures
from examples.evaluation.predictions import read_truth
from examples.relabelling import texts
from examples.relabelling.samples import read_samples
from t4sa_data import release as releases_module
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption, ConfigUnavailable, InputMissing, MissingDependency
from t4sa_data.miniature import make_samples
from t4sa_data.reading import open_release
from t4sa_data.testing.releases import record_table

# isort: split
from tests.evaluation_helpers import _layer as make_layer

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] what a gloomy sad awful wonderful happy love the meeting number & user http @"
SPLITS = ("train", "validation")


def make_model(folder: Path, names: tuple[str, ...] = CLASSES) -> Path:
    """A network of random weights and a vocabulary of a few words, as `save_pretrained` writes them."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS.split()) + "\n")
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=len(WORDS.split()),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=34,
        id2label=dict(enumerate(names)),
        label2id={name: k for k, name in enumerate(names)},
        initializer_range=1.0,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert tokenizer.tokenize("gloomy unheard") == ["gloomy", "[UNK]"]
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("text") / "tiny")


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 40)


def expected(folder: Path, text: str) -> np.ndarray:
    """A text alone through the model."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return torch.softmax(network(**tokenizer(text, return_tensors="pt")).logits, dim=1)[0].numpy()


@pytest.mark.usefixtures("no_network")
def test_each_picture_gets_what_the_model_says_of_its_tweet(
    model: Path, releases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["--text-model", str(model), "--data", str(releases), "--out", str(tmp_path), "--device", "cpu"]
    found = relabel.main([*typed, "--batch-size", "3"])
    printed = capsys.readouterr().out
    assert "classes: negative = negative, neutral = neutral, positive = positive" in printed
    table = pq.read_table(tmp_path / "labels.parquet")
    rows = pa.concat_tables([read_truth(open_release(releases), "b-t4sa", split, ("text",)) for split in SPLITS])
    assert found["n"] == table.num_rows == rows.num_rows and len(set(table["label"].to_pylist())) > 1
    for row in (0, 7, 31):
        text = rows["text"][row].as_py()
        assert "&" in text
        made = [table[name][row].as_py() for name in CLASSES]
        assert made == pytest.approx(expected(model, text).tolist(), abs=1e-5)
        assert table["label"][row].as_py() == int(np.argmax(made))
    assert texts.folder_digest(model) in (tmp_path / "agreement.md").read_text()
    before = (tmp_path / "labels.parquet").read_bytes()
    relabel.main([*typed, "--batch-size", "64"])
    again = pq.read_table(tmp_path / "labels.parquet")
    for name in CLASSES:  # nothing is padded: neighbours do not matter
        assert np.abs(again[name].to_numpy() - table[name].to_numpy()).max() < 1e-5
    relabel.main([*typed, "--batch-size", "3"])
    assert (tmp_path / "labels.parquet").read_bytes() == before


def test_classes_by_their_names_or_by_what_the_user_says(model: Path, tmp_path: Path) -> None:
    text = "what a gloomy gloomy meeting"
    plain = texts.TextModel(str(model), device="cpu").probabilities([text], 1)[0]
    other = make_model(tmp_path / "other", ("Positive", "NEG", "neutral"))
    turned = texts.TextModel(str(other), device="cpu")
    assert turned.columns == [1, 2, 0] and turned.mapping == "NEG = negative, neutral = neutral, Positive = positive"
    assert turned.probabilities([text], 1)[0] == pytest.approx(plain[[1, 2, 0]])
    numbered = make_model(tmp_path / "numbered", ("LABEL_0", "LABEL_1", "LABEL_2"))
    assert texts.TextModel(str(numbered), device="cpu").columns == [0, 1, 2]
    named = texts.TextModel(str(numbered), classes=["neutral", "positive", "negative"], device="cpu")
    assert named.probabilities([text], 1)[0] == pytest.approx(plain[[2, 0, 1]])


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("joy", "anger", "none"), None),
        (("negative", "positive"), None),
        (("negative", "negative", "positive"), None),
        (("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"), None),
        (("a", "b", "c"), ["negative", "positive"]),
        (("a", "b", "c"), ["negative", "positive", "good"]),
        (("a", "b"), ["negative", "neutral", "positive"]),
    ],
)
def test_classes_that_cannot_be_told(names: tuple[str, ...], classes: list[str] | None) -> None:
    with pytest.raises(BadOption, match=r"which output of the model is which class.*--classes names them"):
        texts.columns_of(names, classes, "model")


def test_long_texts_are_cut_and_entities_undone(model: Path) -> None:
    loaded = texts.TextModel(str(model), device="cpu")
    assert loaded.max_tokens == 32
    long = "gloomy " * 200
    found = loaded.probabilities([long, "gloomy " * 30, "", "happy"], 8)
    assert np.isfinite(found).all() and (found[0] == found[1]).all(), "30 words, and the two marks"
    assert texts.clean("a &amp; b @Some_One x@y http://t.co/a") == "a & b @Some_One x@y http://t.co/a"
    assert texts.clean("a &amp; b @Some_One x@y https://t.co/a", mask_names=True) == "a & b @user x@y http"


def make_release(folder: Path, words: list[str | None]) -> list[str]:
    """A release whose pictures have these texts; their keys."""
    samples = make_samples(len(words))
    table = record_table(samples)
    table = table.set_column(table.column_names.index("text"), "text", pa.array(words, pa.string()))
    layer = make_layer(folder, "b-t4sa", table, {one.key: one.image for one in samples})
    releases_module.seal(folder, "parquet", [layer])
    return [one.key for one in samples]


def test_releases_without_texts(model: Path, tmp_path: Path) -> None:
    keys = make_release(tmp_path / "some", [None, "  ", *["happy love"] * 58])
    typed = ["--text-model", str(model), "--out", str(tmp_path / "out"), "--device", "cpu"]
    found = relabel.main([*typed, "--data", str(tmp_path / "some")])
    made = set(pq.read_table(tmp_path / "out" / "labels.parquet")["key"].to_pylist())
    assert len(made) == found["n"] and not made & set(keys[:2])
    assert "2 of 57 samples have no text in the release" in (tmp_path / "out" / "agreement.md").read_text()
    make_release(tmp_path / "none", [None] * 60)
    with pytest.raises(ConfigUnavailable, match=r"holds no texts: expected column text of b-t4sa.*--predictions"):
        relabel.main([*typed, "--data", str(tmp_path / "none")])


def test_texts_of_a_layer_of_tweets(tmp_path: Path) -> None:
    """The official files: pictures prepared without the texts, `t4sa-text` with them."""
    from builders.prepare import prepare
    from builders.run import PrepareConfig
    from t4sa_data.testing import make_official_archive

    archive = make_official_archive(tmp_path / "raw", 40)
    out = tmp_path / "home"
    aside = tmp_path / "raw_tweets_text.csv"
    (tmp_path / "raw" / aside.name).rename(aside)
    prepare(PrepareConfig(raw=tmp_path / "raw", out=out, workers=1, formats=("parquet",)))
    release = open_release(out)
    samples = read_samples(release, "b-t4sa", SPLITS)
    with pytest.raises(ConfigUnavailable, match="holds no texts"):
        texts.read_texts(release, samples)
    aside.rename(tmp_path / "raw" / aside.name)
    prepare(PrepareConfig(raw=tmp_path / "raw", out=out, configs=("t4sa-text",), workers=1, formats=("parquet",)))
    found = texts.read_texts(open_release(out), samples)
    known = {int(key[:-2]): text for key, text in zip(samples.keys.to_pylist(), found, strict=True)}
    assert sum(text is not None for text in found) > 20
    assert known == {tweet: archive.texts.get(tweet) for tweet in known}


@pytest.mark.usefixtures("no_network")
def test_models_that_are_none(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (str(tmp_path / "nowhere"), "nowhere", "./a/b"):
        with pytest.raises(InputMissing, match="no folder of a text model"):
            texts.TextModel(name, device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFileError, match=r"transformers cannot load the text model.*\[.*empty\]"):
        texts.TextModel(str(tmp_path / "empty"), device="cpu")
    headless = make_model(tmp_path / "headless")
    from safetensors.torch import load_file, save_file

    weights = load_file(headless / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "classifier" not in k}, headless / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"weights are missing from the text model: got classifier"):
        texts.TextModel(str(headless), device="cpu")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependency, match=r"--text-model needs transformers.*pip install transformers"):
        texts.TextModel(str(model), device="cpu")


def test_the_digest_of_a_folder_is_of_its_files(model: Path, tmp_path: Path) -> None:
    first = make_model(tmp_path / "first")
    digest = texts.folder_digest(first)
    config = json.loads((first / "config.json").read_text())
    (first / "config.json").write_text(json.dumps({**config, "hidden_size": 17}))
    assert texts.folder_digest(first) != digest and digest == texts.folder_digest(model)
