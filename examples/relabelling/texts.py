"""What a text model says of samples by their tweets' texts: a sequence classifier of `transformers`.

No code of the model's folder is run. A folder is read as it lies; only a name that is no folder is asked of the Hub.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from examples.errors import ModelFileError
from examples.relabelling.samples import Found, Samples, labels_of
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption, ConfigUnavailable, InputMissing, MissingDependency
from t4sa_data.files import sha256_file
from t4sa_data.reading import OpenRelease
from t4sa_data.reading.local import LocalRelease
from t4sa_data.streaming import Where, select

KNOWN = {
    **dict.fromkeys(("negative", "neg", "label_0"), "negative"),
    **dict.fromkeys(("neutral", "neu", "label_1"), "neutral"),
    **dict.fromkeys(("positive", "pos", "label_2"), "positive"),
}
"""What a model may call the classes, in any capitals; others are named by `--classes`."""
TEXT_LAYERS = ("t4sa-text", "raw-text")
"""Layers of tweets, of the Parquet release, where the images' own column is empty."""
MAX_TOKENS = 512
"""Of a text, at most; a tweet has at most a few hundred."""
OWN_POSITIONS = 2
"""That the RoBERTa family keeps for itself: a limit of 514 means 512 tokens."""
_OF_THE_HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_NAME, _LINK = re.compile(r"(?<!\w)@\w+"), re.compile(r"https?://\S+")


def read_texts(release: OpenRelease, samples: Samples) -> list[str | None]:
    """The tweet's text of each sample; None where the release does not hold it.

    Raises:
        ConfigUnavailable: it holds none at all.
    """
    columns = [
        select(release, samples.config, split, where=Where(), columns=("text",)).extra["text"]
        for split in samples.splits
    ]
    found = pa.concat_arrays([pa.array(column).cast(pa.string()) for column in columns])
    if found.null_count:
        found = pc.coalesce(found, _of_layers(release, samples))
    if found.null_count == len(found):
        raise ConfigUnavailable(
            "the release holds no texts",
            expected=f"column text of {samples.config}, or a layer {' | '.join(TEXT_LAYERS)} of the Parquet release",
            where=release.where,
            hint="With the texts in a file: `t4sa label run FOLDER raw_tweets_text.csv --out labels.parquet`, then "
            "relabel.py --predictions labels.parquet.",
        )
    return [text if text and text.strip() else None for text in found.to_pylist()]


def _of_layers(release: OpenRelease, samples: Samples) -> pa.Array:
    """Texts by tweet, of the layers that hold nothing else."""
    texts = pa.nulls(len(samples), pa.string())
    if not isinstance(release, LocalRelease):
        return texts
    for layer in TEXT_LAYERS:
        for file in release.manifest.files:
            if file.layer != layer or not file.name.endswith(".parquet"):
                continue
            table = pq.read_table(
                release.manifest.path(release.folder, file), columns=["tweet_id", "text"], partitioning=None
            )
            ids = table["tweet_id"].combine_chunks()
            place = pc.index_in(pa.array(samples.tweet_id).cast(ids.type), value_set=ids)
            texts = pc.coalesce(texts, table["text"].combine_chunks().cast(pa.string()).take(place))
    return texts


def clean(text: str, *, mask_names: bool = False) -> str:
    """A tweet as a model reads it: entities of HTML undone; names and links masked where asked for.

    >>> clean("RT @you &amp; me https://t.co/x", mask_names=True)
    'RT @user & me http'
    """
    text = html.unescape(text)
    return _LINK.sub("http", _NAME.sub("@user", text)) if mask_names else text


def columns_of(names: Sequence[str], classes: Sequence[str] | None, where: object) -> list[int]:
    """Which of a model's outputs are negative, neutral and positive.

    Args:
        names: of its outputs, in order.
        classes: what the user says they are, in order; None: by their names.
        where: the model, for messages.

    Raises:
        BadOption: that cannot be told.

    >>> columns_of(["POS", "neg", "Neutral"], None, "m"), columns_of(["A", "B", "C"], ["neutral", "negative",
    ... "positive"], "m")
    ([1, 2, 0], [1, 0, 2])
    """
    meant = [KNOWN.get(str(name).lower()) for name in names] if classes is None else list(classes)
    if len(meant) != len(names) or sorted(map(str, meant)) != sorted(CLASSES):
        raise BadOption(
            "which output of the model is which class",
            expected=f"{', '.join(CLASSES)}, each once (or neg, neu, pos, or LABEL_0, LABEL_1, LABEL_2)",
            got=", ".join(map(str, names if classes is None else classes)) + f" for {len(names)} outputs",
            where=where,
            hint="--classes names them in the order of the outputs, as the model's page says.",
        )
    return [meant.index(name) for name in CLASSES]


class TextModel:
    """A sequence classifier and its tokenizer.

    Args:
        name: a folder as `save_pretrained` wrote it, or a model of the Hub.
        classes: see `columns_of`.
        device: see `find_device`.

    Raises:
        MissingDependency: transformers is not installed.
        InputMissing: a path with nothing there.
        ModelFileError: it cannot be loaded, or weights are missing from it.
        BadOption: its classes are not the three.
    """

    def __init__(self, name: str, *, classes: Sequence[str] | None = None, device: str = "auto") -> None:
        try:
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ImportError as error:
            raise MissingDependency("--text-model needs transformers", hint="pip install transformers") from error
        from examples.evaluation.predicting import find_device

        folder = Path(name)
        if not folder.is_dir() and not _OF_THE_HUB.fullmatch(name):
            raise InputMissing(
                "no folder of a text model", expected="what save_pretrained wrote, or OWNER/NAME of the Hub", where=name
            )
        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": folder.is_dir()}
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name, **options)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                name, output_loading_info=True, **options
            )
        except Exception as error:  # of many kinds: missing or broken files, unknown architectures, no network
            first = str(error).splitlines()[0] if str(error) else ""
            raise ModelFileError(
                "transformers cannot load the text model", got=f"{type(error).__name__}: {first}", where=name
            ) from error
        if missing := sorted(report["missing_keys"]):  # filled with random numbers, and only warned of
            raise ModelFileError("weights are missing from the text model", got=", ".join(missing[:3]), where=name)
        outputs = model.config.id2label
        self.names = [str(outputs[number]) for number in range(len(outputs))]
        self.columns = columns_of(self.names, classes, name)
        self.device = find_device(device)
        self.model = model.to(self.device).eval()
        positions = getattr(model.config, "max_position_embeddings", None) or MAX_TOKENS + OWN_POSITIONS
        self.max_tokens = min(MAX_TOKENS, self.tokenizer.model_max_length, positions - OWN_POSITIONS)
        revision = getattr(model.config, "_commit_hash", None)
        self.digest = folder_digest(folder) if folder.is_dir() else f"of the Hub, revision {revision}"

    @property
    def mapping(self) -> str:
        """Which output is which class, for people."""
        return ", ".join(f"{self.names[at]} = {name}" for at, name in zip(self.columns, CLASSES, strict=True))

    def probabilities(self, texts: Sequence[str], batch_size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Probabilities of texts, shape (n, 3), classes in the catalog's order.

        Texts of one length make a batch: nothing is padded, so that a text's numbers do not hang on its neighbours.
        """
        import torch
        from tqdm import tqdm

        made = np.full((len(texts), len(CLASSES)), np.nan)
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens) if texts else {}
        lengths = np.array([len(ids) for ids in encoded.get("input_ids", [])], dtype=np.int64)
        batches = [
            rows[start : start + batch_size]
            for length in np.unique(lengths[lengths > 0])
            for rows in [np.flatnonzero(lengths == length)]
            for start in range(0, len(rows), batch_size)
        ]
        with torch.inference_mode():
            for rows in tqdm(batches, desc="texts", unit="batch", disable=None):
                given = {
                    name: torch.tensor([values[row] for row in rows.tolist()], device=self.device)
                    for name, values in encoded.items()
                }
                logits_BK = self.model(**given).logits.double()[:, self.columns]
                made[rows] = torch.softmax(logits_BK, dim=1).cpu().numpy()
        return made


def from_text_model(
    model: TextModel,
    name: str,
    texts: Sequence[str | None],
    samples: Samples,
    *,
    batch_size: int = 32,
    mask_names: bool = False,
) -> Found:
    """What a text model says of every sample that has a text; each text is read once.

    Args:
        model: to ask.
        name: of it, for the report.
        texts: of `read_texts`.
        samples: to label.
        batch_size: texts of a forward pass.
        mask_names: see `clean`.
    """
    cleaned = [None if text is None else clean(text, mask_names=mask_names) for text in texts]
    unique = sorted({text for text in cleaned if text is not None})
    said = dict(zip(unique, model.probabilities(unique, batch_size), strict=True))
    nothing = np.full(len(CLASSES), np.nan)
    probabilities = np.array([nothing if text is None else said[text] for text in cleaned]).astype(np.float32)
    missing = int(np.isnan(probabilities[:, 0]).sum())
    folder = Path(name)
    return Found(
        label=labels_of(probabilities),
        probabilities=probabilities,
        about={
            "text model": folder.name if folder.is_dir() else name,
            "sha256": model.digest,
            "classes": model.mapping,
            "names and links": "masked" if mask_names else "as they are",
        },
        notes=[f"{missing:,} of {len(samples):,} samples have no text in the release"] if missing else [],
    )


def folder_digest(folder: Path) -> str:
    """sha256 over names and sha256 of a folder's files, sorted; folders in it, and hidden files, do not count."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    lines = "".join(f"{file.name} {sha256_file(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()
