"""`examples/convert.py` as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from examples import convert
from examples.models.folder import load_model

# isort: split
from tests.caffe_helpers import digits_files, mean_bytes, pictures, small, tar_of

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tar_of(tmp_path_factory.mktemp("archive") / "hybrid.tar.gz", digits_files(small("smoke", 64, 0.5)))


def run(*arguments: object) -> int:
    return convert.main([str(one) for one in arguments])


def test_archive_to_folder_to_archive_to_folder(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(archive, "--out", tmp_path / "a") == 0
    said = capsys.readouterr().out
    assert "classes   negative, neutral, positive" in said and "mean      image (image, mean.binaryproto)" in said
    assert f"predict.py IMAGES... --model {tmp_path / 'a'}" in said
    assert run("export", tmp_path / "a", "--out", tmp_path / "back.tar.gz", "--name", "mine") == 0
    assert run("show", tmp_path / "back.tar.gz") == 0
    assert "name              mine" in capsys.readouterr().out
    assert run(tmp_path / "back.tar.gz", "--out", tmp_path / "b") == 0
    a, b = load_model(tmp_path / "a"), load_model(tmp_path / "b")
    rgb = pictures(64).to(torch.uint8)
    with torch.no_grad():
        assert torch.equal(a.network(a.prepare()(rgb)), b.network(b.prepare()(rgb)))
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    assert (a.classes, a.input) == (b.classes, b.input)


def test_the_authors_file_is_known_by_its_name(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "hybrid_finetuned_fc6+.tar.gz"
    theirs.write_bytes(archive.read_bytes())
    assert run(theirs, "--out", tmp_path / "a") == 0 and run(archive, "--out", tmp_path / "b") == 0
    assert "Hybrid-T4SA FT-F, by the file's name" in capsys.readouterr().out
    assert load_model(tmp_path / "a").source["system"] == "Hybrid-T4SA FT-F"
    assert "system" not in load_model(tmp_path / "b").source


def test_loose_files_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in digits_files(small("smoke", 64, 0.5)).items():
        (tmp_path / name).write_bytes(data)
    deploy, weights = tmp_path / "deploy.prototxt", tmp_path / "snapshot_iter_34560.caffemodel"
    named = ("--labels", "positive,neutral,negative")
    assert run(deploy, weights, "--mean", "t4sa", *named, "--out", tmp_path / "a") == 0
    model = load_model(tmp_path / "a")
    assert model.classes == ("positive", "neutral", "negative") and model.input.mean == (116.8007, 121.2751, 130.4602)
    mean, labels = tmp_path / "other.binaryproto", tmp_path / "labels.txt"
    mean.write_bytes(mean_bytes(np.full((3, 80, 80), 7.0)))
    assert run(deploy, weights, "--mean", mean, "--labels", labels, "--view", "center", "--out", tmp_path / "b") == 0
    other = load_model(tmp_path / "b")
    assert other.mean_image is not None and other.mean_image.unique().tolist() == [7]
    assert (other.input.view, other.input.stream_px) == ("center", 80)
    capsys.readouterr()
    assert run("show", deploy, weights) == 0
    assert "cannot be read: no mean.binaryproto" in capsys.readouterr().out
    assert run("show", deploy) == 0
    assert "no snapshot file" in capsys.readouterr().out


def test_another_resize_mode_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = digits_files(small("smoke", 64, 0.5), info__json=b'{"image resize mode": "half_crop"}')
    assert run(tar_of(tmp_path / "x.tar.gz", files), "--out", tmp_path / "a") == 0
    assert "trained on pictures resized by 'half_crop'; here they are squashed" in capsys.readouterr().out


def test_mistakes_are_one_line_and_status_2(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.tar.gz").write_bytes(b"<html>401</html>")
    for arguments, words in [
        ((tmp_path / "absent.tar.gz", "--out", tmp_path / "a"), "no such archive"),
        ((tmp_path / "page.tar.gz", "--out", tmp_path / "a"), "a web page, no model"),
        ((archive, "--mean", tmp_path / "absent", "--out", tmp_path / "a"), "no such file"),
        ((archive, "--labels", "cat,dog,bird", "--out", tmp_path / "a"), "each once, got cat"),
        ((archive, "--model", "googlenet", "--out", tmp_path / "a"), "weights of a network are missing"),
        (("show", tmp_path / "page.tar.gz"), "a web page"),
        (("export", tmp_path, "--out", tmp_path / "x.tar.gz"), "no model folder"),
    ]:
        assert run(*arguments) == 2
        said = capsys.readouterr()
        assert said.err.startswith("error: ") and said.err.count("\n") == 1 and words in said.err
    assert not (tmp_path / "a").exists() and not (tmp_path / "x.tar.gz").exists()
    with pytest.raises(SystemExit) as stop:
        run(archive)
    assert stop.value.code == 2 and "--out" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("examples/convert.py",), ("-m", "examples.convert")])
def test_runs_as_a_script_from_any_directory(archive: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    """The first by path from elsewhere; the second as a module, where the checkout is on the path."""
    as_module = words[0] == "-m"
    command = [
        sys.executable,
        *(words if as_module else [str(ROOT / words[0])]),
        str(archive),
        "--out",
        str(tmp_path / "a"),
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT if as_module else tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert load_model(tmp_path / "a").classes == ("negative", "neutral", "positive")
