"""Configuration of the trainer: recipes, the command line, the paper's settings, what is refused by name."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

pytest.importorskip("torch")
pytest.importorskip("tyro")
import torch

from examples.errors import DeviceError, RunError
from examples.models import NAMES, default_input
from examples.training import machine as machines
from examples.training.command import CONFIG_NAME, parse
from examples.training.config import (
    FREE,
    Config,
    ModelName,
    load_recipe,
    recipe_names,
    require_same_run,
    to_toml,
)
from examples.training.data import require_learnable
from examples.training.machine import choose_amp, choose_device
from examples.training.optim import drop_steps, learning_rate
from t4sa_data import catalog
from t4sa_data.errors import BadOption

ROOT = Path(__file__).parents[1]
SLOW = pytest.mark.slow
FIELDS = dataclasses.fields(Config)
HINTS = get_type_hints(Config)
PAPER = {
    "vgg19-ft-a": ("vgg19", "all", "imagenet", "VGG-T4SA FT-A"),
    "vgg19-ft-f": ("vgg19", "fc6+", "imagenet", "VGG-T4SA FT-F"),
    "hybrid-ft-a": ("hybrid", "all", None, "Hybrid-T4SA FT-A"),
    "hybrid-ft-f": ("hybrid", "fc6+", None, "Hybrid-T4SA FT-F"),
}


def another(name: str) -> Any:
    """A value of a field that is neither the default nor one that is refused."""
    default, kind = getattr(Config(), name), HINTS[name]
    if name == "paper_row":
        return catalog.TABLE_1[-1].system
    if get_origin(kind) is not None:
        return next(one for one in get_args(kind) if one != default)
    if kind is bool:
        return not default
    if name in ("label_smoothing", "min_confidence"):
        return 0.25
    return kind(f"{default}-other") if kind in (str, Path) else default + kind(3)


def typed(name: str, value: Any) -> list[str]:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", str(value)]


def test_recipes_are_those_of_the_paper() -> None:
    assert set(recipe_names()) == {*PAPER, "alexnet", "googlenet", "smoke", "convnext-tiny", "you-cnn"}
    assert set(get_args(ModelName)) == set(NAMES)
    for name in recipe_names():
        config = load_recipe(name)
        if name in PAPER:
            model, finetune, init, row = PAPER[name]
            assert (config.model, config.finetune, config.paper_row) == (model, finetune, row)
            assert init is None or config.init == init
            changed = {one.name for one in FIELDS if getattr(config, one.name) != getattr(Config(), one.name)}
            assert changed <= {"model", "finetune", "init", "paper_row"}, "the rest is the paper's"
        given = default_input(config.model)
        assert config.resize_px >= (config.crop_px or given.side_px)


def test_defaults_are_what_the_catalog_says_of_the_paper() -> None:
    config, said = Config(), {name: fact.value for name, fact in catalog.TRAINING.items()}
    assert (config.batch_size, config.accumulate) == (said["batch_size"], said["accumulation"]) == (32, 2)
    assert (config.learning_rate, config.momentum) == (said["learning_rate"], said["momentum"]) == (1e-3, 0.9)
    assert (config.weight_decay, config.epochs) == (said["weight_decay"], said["epochs"]) == (1e-5, 15)
    assert said["bias_multipliers"] == {"learning_rate": config.bias_lr_mult, "weight_decay": 0}
    assert config.lr_gamma == said["learning_rate_drop"]
    for name in ("vgg19", "hybrid", "alexnet", "googlenet"):
        given = default_input(name)
        assert (given.channels, given.mean, given.scale) == ("BGR", said["mean_bgr"], (1.0, 1.0, 1.0))
        assert given.side_px == said["input_px"] == 224


def test_rate_drops_where_digits_drops_it() -> None:
    config = Config()
    steps = config.epochs * catalog.TRAINING["iterations_per_epoch"].value
    assert steps == 86_400 and drop_steps(config, steps) == 28_512
    rates = [learning_rate(step, config, steps) for step in range(steps)]
    drops = [step for step in range(1, steps) if rates[step] != rates[step - 1]]
    assert drops == [28_512, 57_024, 85_536]
    assert [rates[step] for step in (0, *drops)] == pytest.approx([1e-3, 1e-4, 1e-5, 1e-6])


def test_cosine_and_warmup() -> None:
    config = Config(lr_policy="cosine", warmup_steps=10)
    rates = [learning_rate(step, config, 110) for step in range(110)]
    assert rates[:10] == pytest.approx([1e-4 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(1e-3) and rates[60] == pytest.approx(5e-4) and 0 < rates[-1] < 1e-6


@pytest.mark.parametrize("name", [one.name for one in FIELDS])
def test_every_field_is_an_option_and_wins_over_the_recipe(name: str, tmp_path: Path) -> None:
    recipe, value = tmp_path / "mine.toml", another(name)
    other = {one.name: getattr(Config(), one.name) for one in FIELDS}
    recipe.write_text(to_toml(Config(**other)))
    command = parse("", ["--recipe", str(recipe), *typed(name, value)])
    assert command is not None
    assert dataclasses.asdict(command.config) == other | {name: value}


def test_help_shows_every_field_and_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse("Fine-tune.", ["--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0
    for field in FIELDS:
        assert f"--{field.name.replace('_', '-')}" in shown, field.name
    assert all(name in shown for name in (*recipe_names(), "--recipe", "--resume", "--print-config"))


def test_an_option_that_there_is_none_of(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse("", ["--learnin-rate", "1"])
    assert end.value.code == 2 and "--learnin-rate" in capsys.readouterr().err


def test_printed_configuration_is_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = tmp_path / 'a "quoted" \\ name'
    words = [word for one in FIELDS if one.name != "out" for word in typed(one.name, another(one.name))]
    assert parse("", [*words, "--out", str(odd), "--print-config"]) is None
    saved = tmp_path / "printed.toml"
    saved.write_text(capsys.readouterr().out)
    config = load_recipe(str(saved))
    assert config.out == odd
    assert all(getattr(config, one.name) == another(one.name) for one in FIELDS if one.name != "out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning_rate = 1.0", "no such field: expected .*learning_rate.* got lerning_rate"),
        ('learning_rate = "fast"', "learning_rate: other type: expected float, got 'fast'"),
        ("epochs = 1.5", "epochs: other type: expected int, got 1.5"),
        ("flip = 1", "flip: other type: expected bool, got 1"),
        ('model = "resnet"', "model: no such choice: expected alexnet .* got resnet"),
        ("batch_size = 0", "batch_size is more than 0: got 0"),
        ("label_smoothing = 1.0", "label_smoothing and min_confidence lie between 0 and 1"),
        ('paper_row = "VGG"', "no such row of table 1: expected .*VGG-T4SA FT-A.* got VGG"),
        ("model = vgg", "a recipe is no TOML: got .*mine.toml"),
        ("= 3", "a recipe is no TOML"),
    ],
)
def test_recipes_that_are_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text + "\n")
    with pytest.raises(BadOption, match=message):
        load_recipe(str(path))


def test_no_such_recipe(tmp_path: Path) -> None:
    for name in ("vgg", str(tmp_path / "none.toml")):
        with pytest.raises(BadOption, match=r"no such recipe: expected .*vgg19-ft-a"):
            load_recipe(name)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadOption, match="no TOML"):
        load_recipe(str(tmp_path / "bytes.toml"))


def test_whole_numbers_serve_as_floats(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("learning_rate = 1\n")
    assert load_recipe(str(tmp_path / "mine.toml")).learning_rate == 1.0


def test_going_on_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"no run to go on with: expected {CONFIG_NAME}"):
        parse("", ["--resume", "--out", str(tmp_path)])
    (tmp_path / CONFIG_NAME).write_text(to_toml(Config(model="smoke", epochs=3, out=Path("elsewhere"))))
    command = parse("", ["--resume", "--out", str(tmp_path), "--max-steps", "5"])
    assert command is not None and command.resume
    config = command.config
    assert (config.model, config.epochs, config.max_steps, config.out) == ("smoke", 3, 5, tmp_path)


@pytest.mark.parametrize("name", [one.name for one in FIELDS])
def test_a_run_goes_on_with_what_decides_its_steps(name: str) -> None:
    """Every field is either free, or refused by name and both values."""
    now = dataclasses.replace(Config(), **{name: another(name)})
    if name in FREE:
        require_same_run(now, Config().to_json(), "here")
        return
    with pytest.raises(BadOption, match="begun with other settings") as refused:
        require_same_run(now, Config().to_json(), "here")
    assert f"{name}={Config().to_json()[name]}" in str(refused.value)
    assert f"{name}={now.to_json()[name]}" in str(refused.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"train_split": "test"}, "training on a test split"),
        ({"config": "twitter-testing"}, "training on a test split"),
        ({"config": "twitter-testing", "train_split": "train"}, "training on a test split"),
        ({"eval_split": "test"}, "choosing weights by the test split"),
        ({"eval_split": "train"}, "the split to look at is the one that is learned from"),
    ],
)
def test_nothing_is_learned_from_test_pictures(more: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        require_learnable(Config(**more))
    require_learnable(Config())


@pytest.mark.parametrize(
    ("wanted", "device", "capability", "expected"),
    [
        ("auto", "cuda", (7, 0), "fp16"),
        ("auto", "cuda", (7, 5), "fp16"),  # a T4 says that it supports bf16
        ("auto", "cuda", (8, 0), "bf16"),
        ("auto", "cuda", (9, 0), "bf16"),
        ("auto", "cpu", None, "none"),
        ("auto", "mps", None, "none"),
        ("none", "cuda", (9, 0), "none"),
        ("bf16", "cpu", None, "bf16"),
        ("fp16", "cuda", (9, 0), "fp16"),
    ],
)
def test_precision_by_what_the_device_has(
    wanted: str, device: str, capability: tuple[int, int] | None, expected: str
) -> None:
    found, reason = choose_amp(wanted, torch.device(device), capability)
    assert found == expected and reason


def test_devices_and_precisions_that_are_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="fp16 needs a GPU: got --amp fp16 on the CPU"):
        choose_amp("fp16", torch.device("cpu"))
    monkeypatch.setattr(machines.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machines.torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(DeviceError, match=r"no cuda device here: expected cpu, got --device cuda.*--recipe smoke"):
        choose_device("cuda")
    monkeypatch.setattr(machines.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machines.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(DeviceError, match="more processes than GPUs: expected at most 2, got 3"):
        choose_device("auto")


@pytest.mark.parametrize(
    ("program", "is_elsewhere"),
    [((str(ROOT / "examples" / "train.py"),), True), pytest.param(("-m", "examples.train"), False, marks=SLOW)],
)
def test_the_script_runs_from_anywhere_and_as_a_module(
    program: tuple[str, ...], is_elsewhere: bool, tmp_path: Path
) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *program, "--print-config", "--recipe", "smoke"],
        cwd=tmp_path if is_elsewhere else ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == to_toml(load_recipe("smoke"))
