"""The labeller's texts: cleaned once and for all, cut without a loss, the same alone as among others."""

from __future__ import annotations

import hashlib
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("vaderSentiment")

from builders.label import text as texts
from builders.label.features import DENSE, dense
from builders.label.lexicons import COMMUNITY_SMOOTHING, load_lexicons
from builders.label.lstm import LEXICON_SCALE
from builders.label.tokens import LEXICON_COLUMNS, MAX_TOKENS, TokenTable

SCRAPS = st.sampled_from(
    ["\\u2019", "\\u005cu0041", "\\ud83d", "\\ude02", "&amp;", "&amp;lt;", "&#38;#38;", "&nbsp;", '"', '""', '\\"', "'",
     "http://t.co/x", "www.a", "@you", "#GoodDay", "#gooddaysunshine", ":)", "):", "</3", "\U0001f602", "\u2764\ufe0f",
     "\U0001f468\u200d\U0001f469", "\U0001f1ee\U0001f1f9", "3.5", "10th", "soooo", "can't", "CANT", "dont", "...",
     "!!!", "?!", "not", "but", " ", "\x00", "\ud83d", "\udc00", "\u202e", "\u0645\u0631\u062d\u0628\u0627", "e\u0301",
     "xD", "x", "\ufeff", "\u2026", "_", "1\ufe0f\u20e3"]
)  # fmt: skip
ANY = st.lists(st.one_of(SCRAPS, st.text(st.characters(codec=None), max_size=6)), max_size=14).map("".join)


@settings(max_examples=300, deadline=None)
@given(ANY)
@example("&#38" * 400 + ";amp;lt;")
@example("\\u005cu005cu005cu0041")
@example('"""a"""')
@example("&ampampamp;lt;")
def test_a_clean_text_stays_as_it_is(raw: str) -> None:
    made = texts.clean(raw)
    assert texts.clean(made) == made
    made.encode()  # no surrogate is left


@settings(max_examples=300, deadline=None)
@given(ANY)
@example("</3xD")
def test_nothing_is_lost_between_the_pieces(raw: str) -> None:
    text = texts.clean(raw)
    found = texts.pieces(text)
    assert "".join(piece.text for piece in found) == "".join(text.split())
    assert [piece.text for piece in found] == texts.find_pieces(text)
    assert [piece.kind for piece in found] == [texts.kind_of(piece.text) for piece in found]


@settings(max_examples=100, deadline=None)
@given(st.lists(ANY, max_size=5))
def test_a_text_is_the_same_tokens_alone_and_among_others(raws: list[str]) -> None:
    def said(raw: list[str]) -> list[list[tuple[str, bool]]]:
        batch = TABLE.encode(raw)
        words = [TABLE.words[i] for i in batch.ids]
        pairs = list(zip(words, batch.negated.tolist(), strict=True))
        return [pairs[a:b] for a, b in zip(batch.starts[:-1], batch.starts[1:], strict=True)]

    together = said(raws)
    assert together == [said([raw])[0] for raw in raws]
    for raw, tokens in zip(raws, together, strict=True):
        assert bool(tokens) == bool(texts.clean(raw)) and len(tokens) <= MAX_TOKENS


TABLE = TokenTable(load_lexicons())


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("I\\u2019m SOOOO happy &amp; can't wait!!! :-)", "i 'm so happy & can n't wait_ !! <emo+>"),
        ("Not a good day but ok \U0001f602", "not a_ good_ day_ but ok \U0001f602 <emoji+> face with tears of"),
        ("RT @you: http://t.co/x 3.5 #GoodDay #gooddaysunshine", "rt <user> : <url> <num> #goodday good day "
         "#gooddaysunshine good day sunshine"),
        ('"He said \\"\\"yes\\"\\" ..."', 'he said " yes " ...'),
        ("a@b.com dont </3 \u2764\ufe0f", "<email> do n't <emo->_ \u2764_ <emoji+>_ red_ heart_"),
        ("never mind. it is ok", "never mind_ . it is ok"),
        ("", ""),
    ],
)  # fmt: skip
def test_what_becomes_of_a_text(raw: str, expected: str) -> None:
    batch = TABLE.encode([raw])
    assert " ".join(
        TABLE.words[i] + ("_" if turned else "") for i, turned in zip(batch.ids, batch.negated, strict=True)
    ) == expected  # fmt: skip


def test_long_texts_end_and_a_full_table_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "&" + "amp;" * 25_000
    assert texts.clean(long) == "&"
    assert texts.clean("\\u005c" + "u005c" * 20_000 + "u0041") == "A"
    batch = TABLE.encode(["word " * 20_000, "b"])
    assert batch.lengths.tolist() == [MAX_TOKENS, 1]
    monkeypatch.setattr("builders.label.tokens.MOST_PIECES", 10)
    table = TokenTable(load_lexicons())
    for start in range(0, 300, 30):
        batch = table.encode([f"w{i} good" for i in range(start, start + 30)])
        assert len(table.words) <= 31 and [table.words[i] for i in batch.ids[:2]] == [f"w{start}", "good"]
        assert table.values[batch.ids[1], 0] == np.float32(1.9)


def test_lexicons_say_where_they_are_from() -> None:
    lexicons = load_lexicons()
    assert lexicons.vader["good"] == 1.9 and lexicons.tags["the"] == "DT" and lexicons.polarity["able"][0] == 0.5
    assert lexicons.emoji["\U0001f602"] == pytest.approx((6845 - 3614) / (3614 + 4163 + 6845 + 3))
    for source in lexicons.fingerprint().values():
        assert source["license"] in ("MIT", "Apache-2.0", "CC-BY", "PDDL-1.0")
        assert len(source["sha256"]) == 64 and source["version"]


def test_happiness_and_communities_are_those_of_the_files() -> None:
    lexicons = load_lexicons()
    folder = Path(str(distribution("shifterator").locate_file("shifterator/lexicons")))
    rated = dict(line.split("\t") for line in (folder / "labMT/labMT_English.tsv").read_text().splitlines())
    assert lexicons.happiness["laughter"] == float(rated["laughter"]) - 5 == 3.5
    assert "the" in rated and "the" not in lexicons.happiness  # about neutral
    files = sorted((folder / "SocialSent-Reddit").glob("*.tsv"))
    found = [line.split("\t") for file in files for line in file.read_text().splitlines()]
    lovely = [float(value) for word, value in found if word == "lovely"]
    assert lexicons.community["lovely"] == pytest.approx(sum(lovely) / (len(lovely) + COMMUNITY_SMOOTHING))
    assert lexicons.community["shitty"] < -1 < 1 < lexicons.community["lovely"]
    both = b"".join(file.read_bytes() for file in files)
    assert lexicons.fingerprint()["community"]["sha256"] == hashlib.sha256(both).hexdigest()


def test_every_lexicon_reaches_the_features() -> None:
    table = TABLE.encode(["lovely laughter"])
    values = table.table.values[table.ids]
    happiness, community = LEXICON_COLUMNS.index("happiness"), LEXICON_COLUMNS.index("community")
    assert values[1, happiness] == np.float32(3.5) and values[0, community] > 1
    assert len(LEXICON_SCALE) == len(LEXICON_COLUMNS) == table.table.values.shape[1]
    turned = dense(TABLE.encode(["not lovely"]))[0] - dense(TABLE.encode(["so lovely"]))[0]
    assert turned[DENSE.index("community sum")] < 0 and turned[DENSE.index("happiness sum")] < 0
