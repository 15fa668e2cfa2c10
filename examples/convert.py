"""Models of Caffe and DIGITS to folders that evaluate.py and predict.py read, and back.

    python examples/convert.py vgg19_finetuned_all.tar.gz --out models/vgg19         # archive -> model folder
    python examples/convert.py deploy.prototxt x.caffemodel mean.binaryproto labels.txt --out DIR
    python examples/convert.py hybrid_finetuned_all.pth --model hybrid --out DIR     # the authors' PyTorch files
    python examples/convert.py deploy.prototxt x.caffemodel --any-classes --mean MEAN --out DIR   # of other classes
    python examples/convert.py show vgg19_finetuned_all.tar.gz                       # what it says of itself
    python examples/convert.py export RUN/best --out mine.tar.gz                     # model folder -> DIGITS archive

Neither Caffe nor protobuf is needed. Nothing is unpacked to disk, and no code in any file is run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # as a script, the checkout is not on the path, and this folder would shadow libraries
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from examples.terminal import run
from t4sa_data import catalog
from t4sa_data.errors import InputMissing, T4SAError

if TYPE_CHECKING:
    from examples.models.folder import Model


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; 0, or 2 with a message where it cannot be done."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"show": show, "export": export}
    command = commands.get(given[0]) if given else None
    try:
        return command(given[1:]) if command else convert(given)
    except T4SAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def convert(given: Sequence[str]) -> int:
    """Archive, folder or loose files -> model folder."""
    from examples.caffe.importing import MEANS, import_archive, import_weights
    from examples.models import NAMES
    from examples.models.folder import save_model
    from examples.models.inputs import VIEWS

    parser = argparse.ArgumentParser(
        prog="convert.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="+", type=Path, help="an archive, a folder, or the files themselves")
    parser.add_argument("--out", required=True, type=Path, help="the model folder")
    parser.add_argument("--mean", help=f"{', '.join(MEANS)}, or a mean.binaryproto; default: what the files say")
    parser.add_argument("--labels", help="labels.txt, or names in the order of the outputs: negative,neutral,positive")
    parser.add_argument("--view", choices=VIEWS, default="squash", help="how pictures become the square in evaluation")
    parser.add_argument(
        "--any-classes",
        action="store_true",
        help="the outputs are other classes (ImageNet, adjective-noun pairs): for features.py and as initial weights",
    )
    parser.add_argument("--model", choices=NAMES, help="the network, for a file that has weights only")
    asked = parser.parse_args(given)

    files: list[Path] = list(asked.source)
    mean, labels = asked.mean, asked.labels
    if mean is not None and mean not in MEANS:
        files, mean = [*files, _present(mean)], "image"
    if labels is not None and "," not in labels:
        files, labels = [*files, _present(labels)], None
    names = labels.split(",") if labels else None
    if asked.model:
        model = import_weights(files[0], asked.model, labels=names)
    else:
        model = import_archive(
            files[0] if len(files) == 1 else files,
            mean=mean,
            labels=names,
            view=asked.view,
            any_classes=asked.any_classes,
        )
    if system := system_of(files[0].name):
        model.source = {**model.source, "system": system}
    print(describe(model))
    path = save_model(asked.out, model)
    print(f"\nwritten to {path.parent}; next:")
    if asked.any_classes:
        print(f"  python examples/features.py --model {path.parent} --blob NAME --data DIR --out scores.npz")
        print(f'  python examples/benchmark_table.py --table 2 --data DIR --out RUN --init "ROW={path.parent}"')
        return 0
    print(f"  python examples/predict.py IMAGES... --model {path.parent}")
    print(f"  python examples/evaluate.py --model {path.parent} --data DIR")
    return 0


def system_of(filename: str) -> str | None:
    """Row of the paper's table that a file of the authors is, by its name; evaluate.py compares with that row.

    >>> system_of("vgg19_finetuned_fc6+.tar.gz"), system_of("hybrid_finetuned_all.pth"), system_of("mine.tar.gz")
    ('VGG-T4SA FT-F', 'Hybrid-T4SA FT-A', None)
    """
    return next((package.system for package in catalog.PACKAGES.values() if package.filename == filename), None)


def _present(name: str) -> Path:
    """A file named by an option."""
    path = Path(name)
    if not path.is_file():
        raise InputMissing("no such file", where=path)
    return path


def describe(model: Model) -> str:
    """What was read, in short lines."""
    given, source = model.input, model.source
    mean = "image" if model.mean_image is not None else " ".join(f"{one:.7g}" for one in given.mean)
    rows = [
        ("network", f"{model.architecture}, {sum(p.numel() for p in model.network.parameters()):,} parameters"),
        ("input", f"{given.side_px} x {given.side_px} {given.channels}, pictures by {given.view}"),
        ("mean", f"{mean} ({source.get('mean', 'default')})"),
        ("classes", ", ".join(model.classes) if len(model.classes) < 10 else f"{len(model.classes):,} of others"),
    ]
    if source.get("system"):
        rows.append(("paper", f"{source['system']}, by the file's name: evaluate.py sets it beside that row"))
    if source.get("unused weights"):
        rows.append(("unused", ", ".join(source["unused weights"])))
    mode = source.get("image resize mode")
    if mode not in (None, "squash"):
        rows.append(("note", f"trained on pictures resized by {mode!r}; here they are squashed"))
    return "\n".join(f"{name:<10}{text}" for name, text in rows)


def show(given: Sequence[str]) -> int:
    """Print what an archive says of itself."""
    from examples.caffe.digits import read_archive
    from examples.caffe.showing import show_archive

    parser = argparse.ArgumentParser(prog="convert.py show", description=show.__doc__)
    parser.add_argument("source", nargs="+", type=Path, help="an archive, a folder, or the files themselves")
    source = parser.parse_args(given).source
    print(show_archive(read_archive(source[0] if len(source) == 1 and not _is_loose(source[0]) else source)))
    return 0


def _is_loose(path: Path) -> bool:
    """Whether a file is no archive by its name."""
    return path.suffix in (".prototxt", ".caffemodel")


def export(given: Sequence[str]) -> int:
    """Model folder -> DIGITS archive."""
    from examples.caffe.exporting import export_archive
    from examples.models.folder import load_model

    parser = argparse.ArgumentParser(prog="convert.py export", description=export.__doc__)
    parser.add_argument("model", type=Path, help="a model folder, RUN/best of a training run too")
    parser.add_argument("--out", required=True, type=Path, help="the archive, .tar.gz")
    parser.add_argument("--name", help="shown by DIGITS")
    asked = parser.parse_args(given)
    path = export_archive(load_model(asked.model), asked.out, name=asked.name)
    print(f"written to {path}, {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    run(main)
