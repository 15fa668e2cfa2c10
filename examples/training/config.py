"""The whole configuration of a run: one frozen dataclass, TOML recipes beside it, and the command line over both.

Defaults are the paper's settings; where each comes from, and how sure that is, stands in `catalog.TRAINING` and under
the field. `published`, `inferred` and `unknown` mean what they mean there.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from t4sa_data.catalog import TABLE_1
from t4sa_data.errors import BadOption

RECIPES = Path(__file__).resolve().parent.parent / "recipes"

ModelName = Literal["alexnet", "caffenet", "hybrid", "vgg19", "googlenet", "you_cnn", "convnext_tiny", "smoke"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that a run depends on."""

    # The network.
    model: ModelName = "vgg19"
    """Network; hybrid is AlexNet with other initial weights. Published."""
    width: float = 1.0
    """Factor on all numbers of channels; 1 for the real networks, less for tests."""
    finetune: Literal["all", "fc6+"] = "all"
    """all: every layer learns (FT-A); fc6+: convolutions stay as they are (FT-F). Published."""
    init: str = "imagenet"
    """Initial weights: imagenet, scratch, caffe:deploy.prototxt,weights.caffemodel, or a file (safetensors, caffemodel,
    DIGITS tar.gz, numpy-pickle .pth, torch .pt). Published: ILSVRC12 for VGG-19, ILSVRC12 + Places205 for Hybrid."""
    new_head: bool = False
    """Begin with a fresh last layer also where the file of initial weights has one of the same name."""

    # The data.
    data: str = "t4sa"
    """A release: t4sa (where `t4sa where` looks), a folder, or a URL."""
    config: str = "b-t4sa"
    """Config of the release; b-t4sa-256 reads a fifth of the bytes."""
    train_split: str = "train"
    """Split to learn from; never test."""
    eval_split: str = "validation"
    """Split to look at after each epoch and to choose the best weights by."""
    test_split: str = "test"
    """Split of the report at the end; none to leave it out."""
    min_confidence: float = 0.0
    """Learn only from pictures whose tweet was labelled with at least this confidence (0 to 1), by the release's own
    labeller. Ours; the paper: 0."""
    keep: str = "all"
    """Learn only from the pictures whose keys stand in this file, one a line; or all. Ours: for PCNN's second round
    (examples/systems/progressive.py)."""
    labels: str = "release"
    """Learn these labels in place of the release's: a Parquet or CSV file of `examples/relabel.py`, or any that
    `stream(labels=)` takes. For the split to learn from and the one to choose the best weights by, so that they are
    chosen by the same kind of label; pictures that it does not name are left out of both. The report on the test split
    is of the release's own labels, always. Ours; T4SA 2.0's gain came from such labels."""
    resize_px: int = 256
    """Side of the squashed picture that training crops are cut from, px. DIGITS' default; unknown for T4SA."""
    crop_px: int = 0
    """Side of the network's input, px; 0: the network's own (224 for the paper's nets, inferred from their code)."""
    flip: bool = True
    """Mirror every other picture. DIGITS' default; unknown for T4SA."""
    eval_crop: Literal["squash", "center"] = "squash"
    """squash: straight to the input's size (the authors' predict.py, published); center: the middle of the squash to
    resize_px (DIGITS' validation)."""
    shuffle: Literal["full", "block"] = "full"
    """block for releases that are read over a network."""

    # Targets.
    label_smoothing: float = 0.0
    """Share of the target spread over all classes (Szegedy et al. 2016): labels of the text are wrong for many
    pictures. Ours, 0 is the paper's."""
    soft_labels: bool = False
    """Learn the text labeller's three probabilities in place of its decision: they say how sure it was. Ours."""
    confidence_weight: bool = False
    """Weigh each picture's loss by the labeller's confidence, so that doubtful labels pull less. Ours."""

    # The optimiser.
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd is Caffe's solver, published; adamw for networks of today."""
    batch_size: int = 32
    """Pictures of a micro-batch. Published second-hand."""
    accumulate: int = 2
    """Micro-batches whose gradients make one step: 64 pictures. Published second-hand."""
    epochs: int = 15
    """Inferred from a reproduction."""
    learning_rate: float = 1e-3
    """Base rate. Published second-hand."""
    lr_policy: Literal["step", "cosine"] = "step"
    """step is DIGITS' default."""
    lr_step_percent: float = 33.0
    """Percent of all steps between drops; DIGITS' default: 28,512 of 86,400 steps. Inferred."""
    lr_gamma: float = 0.1
    """Factor of each drop; DIGITS' default. Inferred."""
    warmup_steps: int = 0
    """Steps over which the rate rises from 0; the paper's solver has none."""
    momentum: float = 0.9
    """DIGITS: fixed. Inferred."""
    weight_decay: float = 1e-5
    """DIGITS: base rate / 100. Inferred."""
    bias_lr_mult: float = 2.0
    """Factor on the rate of biases, which have no weight decay, as in DIGITS' networks. Inferred."""
    head_lr_mult: float = 1.0
    """Factor on the rate of the last layer; DIGITS' networks have 1."""
    caffe_momentum: bool = True
    """Keep Caffe's velocity at a drop of the rate: torch's would shrink with the rate at once."""
    seed: int = 0
    """Of order, crops, mirrors, dropout and fresh weights."""

    # The machine.
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """auto: cuda, else mps, else cpu."""
    amp: Literal["auto", "bf16", "fp16", "none"] = "auto"
    """Mixed precision; auto: bf16 on GPUs of compute capability 8.0 and above, fp16 on older ones, else none."""
    compile: bool = False
    """torch.compile the network."""
    channels_last: bool = True
    """Memory format of the network and its input."""
    workers: int = 0
    """Decoding threads of each process; 0: its share of the cores."""
    eval_batch_size: int = 256
    """Pictures of a batch in evaluation, all processes together."""

    # The run.
    out: Path = Path("runs/latest")
    """Folder of the run: checkpoints, metrics, figures, report."""
    max_steps: int = 0
    """Stop after so many steps in all, and report; 0: all epochs."""
    max_hours: float = 0.0
    """Save and stop after so many hours of this process; 0: no limit."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; there is one after each epoch, too."""
    log_every: int = 20
    """Steps between lines."""
    tensorboard: bool = False
    """Write events for TensorBoard below the run folder."""
    paper_row: str = ""
    """System of the paper's table 1 that this run reproduces; empty: none."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        hints = get_type_hints(type(self))
        for name, kind in hints.items():
            value = getattr(self, name)
            if get_origin(kind) is Literal and value not in get_args(kind):
                raise BadOption(f"{name}: no such choice", expected=" | ".join(get_args(kind)), got=value)
        positive = ("batch_size", "accumulate", "epochs", "learning_rate", "width", "log_every", "checkpoint_every")
        for name in (*positive, "eval_batch_size", "resize_px", "lr_step_percent"):
            if not getattr(self, name) > 0:
                raise BadOption(f"{name} is more than 0", got=getattr(self, name))
        if not 0 <= self.label_smoothing < 1 or not 0 <= self.min_confidence <= 1:
            raise BadOption("label_smoothing and min_confidence lie between 0 and 1")
        known = [row.system for row in TABLE_1]
        if self.paper_row and self.paper_row not in known:
            raise BadOption("no such row of table 1", expected=" | ".join(known), got=self.paper_row)

    @property
    def global_batch(self) -> int:
        """Pictures of one step, all processes together."""
        return self.batch_size * self.accumulate

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {name: str(v) if isinstance(v, Path) else v for name, v in dataclasses.asdict(self).items()}


_MACHINE = ("data", "device", "amp", "compile", "channels_last", "workers", "eval_batch_size")
_RUN = ("out", "max_steps", "max_hours", "checkpoint_every", "log_every", "tensorboard", "paper_row", "test_split")
FREE = frozenset((*_MACHINE, *_RUN, "eval_crop"))
"""Fields that may change when a run goes on: none decides which pictures a step sees, or what it does with them."""


def from_values(values: dict[str, Any], where: object, base: Config | None = None) -> Config:
    """A configuration with some fields set.

    Args:
        values: field -> value, as TOML or JSON gives them.
        where: they come from, for messages.
        base: the other fields; None: the defaults.

    Raises:
        BadOption: a field that there is none of, or a value of another type.
    """
    fields = {one.name: one for one in dataclasses.fields(Config)}
    hints = get_type_hints(Config)
    clean: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise BadOption("no such field", expected=", ".join(fields), got=name, where=where)
        kind = hints[name]
        wanted = str if kind is Path or get_origin(kind) is Literal else kind
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise BadOption(f"{name}: other type", expected=wanted.__name__, got=repr(value), where=where)
        clean[name] = Path(value) if kind is Path else value
    return dataclasses.replace(base or Config(), **clean)


def recipe_names() -> list[str]:
    """The recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name: str) -> Config:
    """A recipe by name, or a TOML file of the user's.

    Raises:
        BadOption: there is no such recipe, it is no TOML, or a field is wrong.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        raise BadOption("no such recipe", expected=f"a TOML file, or {', '.join(recipe_names())}", got=name)
    try:
        values = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadOption("a recipe is no TOML", got=str(error), where=path) from error
    return from_values(values, path)


def to_toml(config: Config) -> str:
    """A configuration as TOML: `load_recipe` reads it back."""
    lines = []
    for name, value in config.to_json().items():
        shown = str(value).lower() if isinstance(value, bool) else repr(value)
        if isinstance(value, str):
            shown = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        lines.append(f"{name} = {shown}")
    return "\n".join(lines) + "\n"


def require_same_run(now: Config, then: dict[str, Any], where: object) -> None:
    """Refuse to go on with a run whose steps would be others.

    Raises:
        BadOption: names the fields and both values.
    """
    mine = now.to_json()
    other = [name for name, value in mine.items() if name not in FREE and then.get(name, value) != value]
    if other:
        raise BadOption(
            "this run was begun with other settings",
            expected=", ".join(f"{name}={then[name]}" for name in other),
            got=", ".join(f"{name}={mine[name]}" for name in other),
            where=where,
            hint="Take the same ones (--resume --out RUN does), or another --out.",
        )
