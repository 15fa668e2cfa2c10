"""The labeller's core: features as scikit-learn's, a tandem that is the same however it is run, what a leak costs."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("vaderSentiment")
pytest.importorskip("torch")

from builders.label import tandem
from builders.label.baselines import Majority
from builders.label.features import DENSE, FLIP, Ngrams, dense
from builders.label.lexicons import load_lexicons
from builders.label.linear import Calibration, fit_svm
from builders.label.lstm import Lstm, LstmConfig, Vocabulary, batches, initial_vectors, inputs_of, train
from builders.label.metrics import evaluate
from builders.label.subwords import BUCKETS, Subwords, grams, margins
from builders.label.tandem import Tandem, TandemConfig, folds_of, train_tandem
from builders.label.tokens import TokenTable
from tests.label_helpers import BAD, GOOD, THINGS, labelled, tiny_tandem

SEMEVAL = Path(__file__).parents[2] / "shared" / "data" / "semeval" / "train.tsv"
TABLE = TokenTable(load_lexicons())
TEXTS = [row[2] for row in labelled(60)] + ["", "not good at all", "not bad , but good good", "\U0001f602 :)", "a"]
TINY = LstmConfig(dim=8, hidden=4, embedding=4, buckets=64, epochs=1)


def test_ngrams_are_those_of_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    batch = TABLE.encode(TEXTS)
    mine = Ngrams.fit(batch)
    found = mine.transform(batch)
    said = [TABLE.words[i] + ("_not" if turned else "") for i, turned in zip(batch.ids, batch.negated, strict=True)]
    texts = [said[a:b] for a, b in zip(batch.starts[:-1], batch.starts[1:], strict=True)]
    theirs = TfidfVectorizer(
        analyzer=lambda words: [tuple(words[i : i + n]) for n in (1, 2, 3) for i in range(len(words) - n + 1)],
        min_df=2,
        sublinear_tf=True,
    )
    expected = theirs.fit_transform(texts)
    words, size = mine.words, len(mine.words)
    names: list[tuple[str, ...]] = [(word,) for word in words]
    names += [(words[key // size], words[key % size]) for key in mine.pairs.tolist()]
    names += [(*names[size + key // size], words[key % size]) for key in mine.triples.tolist()]
    assert found.shape == expected.shape and set(names) == set(theirs.vocabulary_)
    assert abs(found - expected[:, [theirs.vocabulary_[name] for name in names]]).max() < 1e-6
    assert mine.transform(TABLE.encode(["zzz yyy", ""])).nnz == 0


def test_margins_of_subwords_are_sums_over_words() -> None:
    batch = TABLE.encode(TEXTS)
    learned = Subwords.fit(batch, min_texts=2)
    weights = np.random.default_rng(0).normal(size=(BUCKETS, 3)).astype(np.float32)
    expected = learned.transform(batch) @ weights
    found = margins(batch, learned.of_tokens(TABLE, weights))
    assert np.abs(found - expected).max() < 1e-5 and np.abs(expected).max() > 0.01
    one = np.asarray((learned.transform(TABLE.encode(["good phone"])) > 0).sum())
    assert 0 < one <= len(grams("good")) + len(grams("phone"))
    assert learned.transform(TABLE.encode([""])).nnz == 0


def test_what_the_dense_features_say() -> None:
    names = {name: i for i, name in enumerate(DENSE)}
    logs = dense(TABLE.encode(["good", "not good", "SOOO good !! :) #fun \U0001f602", ""]))
    table = np.expm1(np.abs(logs)) * np.sign(logs)
    good = 1.9  # VADER's
    assert table[0, names["vader sum"]] == pytest.approx(good, rel=1e-5)
    assert table[1, names["vader sum"]] == pytest.approx(FLIP * good, rel=1e-5)
    assert table[1, names["number of negation"]] == pytest.approx(1) and table[1, names["negated tokens"]] == 1
    for name in ("caps", "elongated", "happy", "tag", "emoji", "exclamation"):
        assert table[2, names[f"number of {name}"]] == pytest.approx(1), name
    assert table[2, names["emoji sum"]] > 0.2 and not table[3].any() and table.shape == (4, len(DENSE))


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(len(TEXTS))), st.integers(1, 30))
def test_probabilities_hang_on_the_text_alone(order: list[int], batch_size: int) -> None:
    """Not on what else is asked, in which order, or how many at once."""
    model = tiny_tandem()

    def anew(texts: list[str]) -> np.ndarray:
        model._kept.clear()
        return model.predict_proba(texts)

    expected = anew(TEXTS)
    assert expected.dtype == np.float32 and np.abs(expected.astype(np.float64).sum(axis=1) - 1).max() < 1e-6
    shuffled = [TEXTS[i] for i in order] + [TEXTS[order[0]]]
    assert np.abs(anew(shuffled)[:-1] - expected[order]).max() < 1e-6
    parts = [anew(TEXTS[i : i + batch_size]) for i in range(0, len(TEXTS), batch_size)]
    assert np.abs(np.concatenate(parts) - expected).max() < 1e-6
    uniform = model.predict_proba(TEXTS, prior="uniform")
    divided = expected / model.prior
    assert np.abs(uniform - divided / divided.sum(axis=1, keepdims=True)).max() < 1e-5
    assert model.predict_proba([]).shape == (0, 3)


def test_a_text_that_comes_again_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = Majority([1, 2, 1]), list[int]()
    real = model._probabilities
    monkeypatch.setattr(model, "_probabilities", lambda texts: asked.append(len(texts)) or real(texts))
    assert model.predict_proba(["a", "b", "a"]).shape == (3, 3) and asked == [2]
    model.predict_proba(["b", "c"])
    assert asked == [2, 1]
    monkeypatch.setattr("builders.label.labeller.MOST_KEPT", 3)
    model.predict_proba(["b", "d"])  # one too many: all anew
    model.predict_proba(["d", "a"])
    assert asked == [2, 1, 2, 1] and len(model._kept) == 3


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_equal_training_gives_equal_bytes_for_any_number_of_processes(workers: int) -> None:
    rows = labelled(90)
    config = TandemConfig(lstm=TINY, folds=2)
    texts, labels = [row[2] for row in rows], [row[1] for row in rows]
    model = train_tandem(texts, labels, config=config)
    one, two = model.state(), train_tandem(texts, labels, config=config, workers=workers).state()
    other, _ = train_tandem(texts, labels, config=replace(config, seed=2)).state()
    assert one[1] == two[1] and one[0].keys() == two[0].keys()
    assert all(array.tobytes() == two[0][name].tobytes() for name, array in one[0].items())
    assert one[0]["lstm0.scores.weight"].tobytes() != other["lstm0.scores.weight"].tobytes()
    again = Tandem.from_state(*one)
    assert again.predict_proba(TEXTS).tobytes() == model.predict_proba(TEXTS).tobytes()


def test_weights_are_contiguous() -> None:
    """scikit-learn's are Fortran-ordered here, and safetensors writes such arrays in the wrong order."""
    chance = np.random.default_rng(0)
    features, labels = chance.normal(size=(60, 5)), np.arange(60) % 3
    weights, intercept = fit_svm(features, labels, 0.1)
    fitted = Calibration.fit(features @ weights.T, labels)
    for array in (weights, intercept, fitted.weights, fitted.intercept, *tiny_tandem().state()[0].values()):
        assert array.flags.c_contiguous
    made = fitted.probabilities(np.array([[1e4, 0, -1e4], [0, 0, 0]]))
    assert np.isfinite(made).all() and np.abs(made.sum(axis=1) - 1).max() < 1e-12


def test_folds_keep_what_says_the_same_together() -> None:
    batch = TABLE.encode(["Good day!", "good DAY", "@you good day http://t.co/x", *TEXTS])
    folds = folds_of(batch, 5)
    assert len(set(folds[:3].tolist())) == 1 and set(folds.tolist()) == set(range(5))


def test_batches_are_of_one_length_and_lose_nothing() -> None:
    lengths = np.random.default_rng(0).integers(0, 9, 200)
    for chance in (None, np.random.default_rng(1)):
        made = list(batches(lengths, 16, chance))
        assert sorted(np.concatenate(made).tolist()) == list(range(200))
        assert all(len(one) <= 16 and len(set(lengths[one].tolist())) == 1 for one in made)


def test_vectors_of_words_that_keep_the_same_company() -> None:
    chance = random.Random(0)
    texts = [f"the {chance.choice(THINGS)} was {chance.choice(GOOD)} {chance.choice(GOOD)} yes" for _ in range(400)]
    texts += [f"a {chance.choice(THINGS)} is {chance.choice(BAD)} {chance.choice(BAD)} no" for _ in range(400)]
    batch = TABLE.encode(texts)
    vocabulary = Vocabulary.fit(batch, replace(TINY, dim=6))
    vectors = initial_vectors(batch, vocabulary, seed=0)
    assert vectors.shape == (len(vocabulary.words) + 1, 6) and not vectors[0].any()
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    row = {word: i + 1 for i, word in enumerate(vocabulary.words)}
    near = np.mean([unit[row[a]] @ unit[row[b]] for a in GOOD for b in GOOD if a < b])
    far = np.mean([unit[row[a]] @ unit[row[b]] for a in GOOD for b in BAD])
    assert near > far + 0.3
    assert vectors.tobytes() == initial_vectors(batch, vocabulary, seed=0).tobytes()


def test_the_network_learns_order() -> None:
    """What no bag of words can tell: which of two comes first."""
    chance = random.Random(1)
    texts = [" ".join([*["w", "v"][:: 1 if label == 2 else -1], chance.choice(THINGS)]) for label in (0, 2) * 150]
    labels = np.array((0, 2) * 150)
    batch = TABLE.encode(texts)
    config = replace(TINY, epochs=12, lr=0.02, hidden=8, word_dropout=0.0)
    vocabulary = Vocabulary.fit(batch, config)
    weights = train(inputs_of(batch, vocabulary), labels, len(vocabulary.words), config, seed=0)
    model = Lstm(vocabulary, weights)
    assert (model.log_probabilities(batch).argmax(axis=1) == labels).mean() > 0.97
    assert model.embeddings(batch).shape == (300, TINY.embedding)


def test_no_network_speaks_on_a_text_that_it_was_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = labelled(90)
    texts, labels = [row[2] for row in rows], [row[1] for row in rows]
    real, trained = tandem.lstm.train, list[tuple[set[int], dict[str, np.ndarray]]]()

    def watched(*arguments: Any, rows: Any, **more: Any) -> dict[str, np.ndarray]:
        weights = real(*arguments, rows=rows, **more)
        trained.append((set(range(90)) if rows is None else set(rows.tolist()), weights))
        return weights

    monkeypatch.setattr(tandem.lstm, "train", watched)
    batch = TABLE.encode(texts)
    folds, config = folds_of(batch, 3), TandemConfig(lstm=TINY, folds=3)
    networks, logs = tandem._train_networks(batch, np.array(labels), folds, config, 1, "cpu", None, lambda _line: None)
    assert len(networks) == 2 and len(trained) == 8 and trained[0][0] == trained[1][0] == set(range(90))
    for (seen, one), (too, other) in zip(trained[2::2], trained[3::2], strict=True):
        unseen = sorted(set(range(90)) - seen)
        said = [np.exp(Lstm(networks[0].vocabulary, w).log_probabilities(batch)[unseen]) for w in (one, other)]
        assert unseen and seen == too and np.allclose(np.log((said[0] + said[1]) / 2), logs[unseen], atol=1e-6)
    assert set.intersection(*(seen for seen, _ in trained[2:])) == set()  # each text is held out


@pytest.mark.slow
@pytest.mark.skipif(not SEMEVAL.exists(), reason="needs ../shared/data/semeval/train.tsv")
def test_a_leak_costs_the_calibration() -> None:
    """The LSTM's word from a network that was trained on the text makes probabilities that are far too sure."""
    lines = [line.split("\t", 2) for line in SEMEVAL.read_text(encoding="utf-8").splitlines()[1:]][::4]
    texts, labels = [line[2] for line in lines], np.array([int(line[1]) for line in lines])
    held = np.arange(len(lines)) % 4 == 0
    network = LstmConfig(dim=50, hidden=32, embedding=32, epochs=4)
    config = TandemConfig(lstm=network, folds=4)

    def error(config: TandemConfig) -> float:
        known = [text for text, is_held in zip(texts, held, strict=True) if not is_held]
        model = train_tandem(known, labels[~held], config=config, workers=2)
        asked = [text for text, is_held in zip(texts, held, strict=True) if is_held]
        return float(evaluate(model.predict_proba(asked), labels[held])["ece"])

    honest, leaking = error(config), error(replace(config, is_leaking=True))
    assert honest < 0.04 and leaking > 0.06 and leaking > 2 * honest, (honest, leaking)
