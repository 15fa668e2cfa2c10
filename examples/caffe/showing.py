"""What an archive says of itself: the questions about the released nets that nobody has answered yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from examples.caffe.comparing import compare_graph
from examples.caffe.digits import Archive
from examples.caffe.importing import classes_of, lrn_and_pooling, mean_of
from examples.caffe.net import WEIGHTED
from examples.models import CAFFE_NAMES, layers_of
from t4sa_data.errors import T4SAError
from t4sa_data.files import sha256_file

UNKNOWN = "not said"


def show_archive(archive: Archive) -> str:
    """Aligned lines: what is asked, what the files say, and which file says so.

    A file that is missing or damaged takes its own line only.
    """
    rows = [row for part in _PARTS for row in _safely(part, archive)]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{text}" for name, text in rows)


Rows = Iterator[tuple[str, str]]


def _safely(part: Callable[[Archive], Rows], archive: Archive) -> list[tuple[str, str]]:
    """The rows of a part; where it fails, why."""
    rows: list[tuple[str, str]] = []
    try:
        rows.extend(part(archive))
    except T4SAError as error:
        rows.append((part.__name__.strip("_"), f"cannot be read: {error}"))
    return rows


def _archive(archive: Archive) -> Rows:
    yield "archive", archive.where.name
    if archive.where.is_file():
        yield "sha256", sha256_file(archive.where)
    for place, (name, data) in enumerate(sorted(archive.files.items())):
        yield "" if place else "files", f"{name}, {len(data):,} bytes"


def _digits(archive: Archive) -> Rows:
    info = archive.info
    for title, key in (("DIGITS version", "digits version"), ("caffe version", "caffe version"), ("name", "name")):
        yield title, str(info.get(key, UNKNOWN))
    dims = info.get("image dimensions")
    yield "dataset pictures", " x ".join(map(str, dims)) if isinstance(dims, list) else UNKNOWN
    yield "resize mode", str(info.get("image resize mode", UNKNOWN))


def _network(archive: Archive) -> Rows:
    layers, dims = archive.network
    yield "network input", " x ".join(map(str, dims)) if dims else "no dims in the deploy file"
    weighted = [layer for layer in layers if layer.kind in WEIGHTED]
    yield "layers", f"{len(layers)}, {len(weighted)} with weights, the last {weighted[-1].name if weighted else 'none'}"
    yield "LRN and pooling", lrn_and_pooling(layers)
    same = [name for name in CAFFE_NAMES if not compare_graph(layers, layers_of(name))]
    yield "same net as", ", ".join(same) or "none of " + ", ".join(CAFFE_NAMES)


def _weights(archive: Archive) -> Rows:
    weights = archive.weights()
    yield "parameters", f"{sum(tensor.numel() for tensor in weights.values()):,} in the snapshot"
    yield "iteration", str(archive.iteration() or UNKNOWN)


def _labels(archive: Archive) -> Rows:
    lines = archive.labels()
    yield (
        "labels",
        UNKNOWN if lines is None else ", ".join(lines[:10]) + (f", ... ({len(lines)})" if lines[10:] else ""),
    )
    if lines is not None:
        yield "read as", ", ".join(classes_of(lines, len(lines), archive.where.name))


def _mean(archive: Archive) -> Rows:
    image, told = archive.mean_image(), archive.training
    if image is None:
        yield "mean.binaryproto", "none"
    else:
        whole = "whole numbers" if bool((image == image.round()).all()) else "fractions"
        pixel = " ".join(f"{one:.4f}" for one in image.double().mean((1, 2)).tolist())
        yield "mean.binaryproto", f"{' x '.join(map(str, image.shape))}, {whole}; mean of B G R: {pixel}"
    values = " ".join(f"{one:.7g}" for one in told.mean_values)
    yield "train_val says", f"pixel {values}" if values else f"image {told.mean_file}" if told.mean_file else UNKNOWN
    yield "mean used", mean_of(archive).why


def _training(archive: Archive) -> Rows:
    told = archive.training
    yield "training crop", UNKNOWN if told.crop_size is None else f"{told.crop_size} px"
    yield "mirror", UNKNOWN if told.mirror is None else "yes" if told.mirror else "no"
    yield "batch", UNKNOWN if told.batch_size is None else str(told.batch_size)
    solver = archive.solver()
    named = (
        ("accumulation", "iter_size"),
        ("learning rate", "base_lr"),
        ("policy", "lr_policy"),
        ("step", "stepsize"),
        ("gamma", "gamma"),
        ("momentum", "momentum"),
        ("weight decay", "weight_decay"),
        ("iterations", "max_iter"),
    )
    for title, key in named:
        yield title, str(solver.get(key, UNKNOWN))


_PARTS = (_archive, _digits, _network, _weights, _labels, _mean, _training)
