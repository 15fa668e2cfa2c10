"""T4SA 2.0's recipe whole, on drawn pictures: half of the labels are wrong, a text model reads the tweets right."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tyro")
import torch
import transformers

from examples import relabel, train
from examples.evaluation import writing
from t4sa_data import release
from t4sa_data.catalog import CLASSES
from t4sa_data.miniature import make_samples
from t4sa_data.testing.releases import record_table

# isort: split
from tests.evaluation_helpers import _layer as make_layer


def make_release(folder: Path) -> None:
    """400 pictures; half of the labels of train and validation are another class's, the test split's are right."""
    rng, samples = random.Random(0), make_samples(400)
    for k, one in enumerate(samples):
        if one.split != "test" and rng.random() < 0.5:
            samples[k] = replace(one, label=(one.label + rng.choice((1, 2))) % 3)
    layer = make_layer(folder, "b-t4sa", record_table(samples), {one.key: one.image for one in samples})
    release.seal(folder, "parquet", [layer])


def make_text_model(folder: Path) -> None:
    """A tiny transformer that learned other tweets of the same words; its outputs in an order of its own."""
    others, order = make_samples(300, seed=9), (2, 0, 1)
    words = sorted({word.strip(",") for one in others for word in one.text.split() if word.strip(",").isalpha()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    torch.manual_seed(0)
    names = dict(enumerate(CLASSES[k] for k in order))
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=names,
        label2id={name: k for k, name in names.items()},
    )
    model = transformers.BertForSequenceClassification(config)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    given = tokenizer([one.text for one in others], padding=True, return_tensors="pt")
    target = torch.tensor([order.index(one.label) for one in others])
    for _ in range(100):
        optimizer.zero_grad()
        model(**given, labels=target).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.slow
def test_two_commands_undo_wrong_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "write_figures", lambda out, _: (out / "confusion-b-t4sa.png").touch())
    monkeypatch.setattr(writing, "write_grids", lambda *_, **__: None)
    data, labels = tmp_path / "data", tmp_path / "labels"
    make_release(data)
    make_text_model(tmp_path / "text")
    found = relabel.main(["--text-model", str(tmp_path / "text"), "--data", str(data), "--out", str(labels)])
    changed = 1 - sum(found["confusion"][k][k] for k in range(3)) / found["n"]
    assert 0.45 < changed < 0.55, "what was turned is turned back"
    accuracy = {}
    for name, more in (("old", []), ("new", ["--labels", str(labels / "labels.parquet")])):
        typed = ["--recipe", "smoke", "--data", str(data), "--out", str(tmp_path / name), "--device", "cpu"]
        assert train.main([*typed, "--workers", "1", *more]) == 0
        results = json.loads((tmp_path / name / "evaluation" / "results.json").read_text())
        accuracy[name] = results["b-t4sa"]["accuracy"]
    assert accuracy["new"] > 0.85 and accuracy["new"] > accuracy["old"] + 0.25, accuracy
    pytest.importorskip("cleanlab", reason="the report of label noise needs the extra [noise]")
    from examples import label_noise

    typed = ["--data", str(data), "--out", str(tmp_path / "noise")]
    old = label_noise.main(typed)
    new = label_noise.main([*typed, "--labels", str(labels / "labels.parquet")])
    assert old.is_issue.mean() > 0.4 and new.is_issue.mean() < 0.05, "one model of pictures, two sets of labels"
