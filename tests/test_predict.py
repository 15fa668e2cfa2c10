"""examples/predict.py: pixels as in the stream, a table or JSON, bad pictures named."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
from examples import predict
from examples.evaluation.predicting import predict as predict_split
from examples.evaluation.predictions import probabilities_of
from examples.models.folder import load_model
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import InputMissing
from t4sa_data.reading import open_release
from t4sa_data.streaming import Where, select

# isort: split
from tests.evaluation_helpers import save_smoke

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_smoke(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pictures(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of the validation split as files, some in a folder below."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    release = open_release(releases)
    selection = select(release, "b-t4sa", "validation", where=Where())
    source = release.source()
    for k, one in enumerate(selection.ranges(np.arange(len(selection)))):
        place = folder / "more" if k % 2 else folder
        (place / f"{selection.keys[k]}.jpg").write_bytes(source.read(one))
    source.close()
    (folder / "notes.txt").write_text("no picture")
    return folder


def found_by(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[dict[str, object]]]:
    status = predict.main([*map(str, words), "--json", "--device", "cpu"])
    return status, json.loads(capsys.readouterr().out)


def test_a_folder_says_what_the_split_says(
    model: Path, pictures: Path, releases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = found_by(capsys, pictures, "--model", model)
    assert status == 0
    table = predict_split(load_model(model), releases, split="validation", workers=1)
    assert table is not None
    by_key = dict(zip(table["key"].to_pylist(), probabilities_of(table), strict=True))
    assert {Path(str(one["name"])).stem for one in found} == set(by_key)
    for one in found:
        assert list(one["probabilities"]) == list(CLASSES)  # type: ignore[call-overload]
        numbers = np.array(list(one["probabilities"].values()))  # type: ignore[attr-defined]
        assert np.abs(numbers - by_key[Path(str(one["name"])).stem]).max() < 1e-6  # equal pixels
        assert one["class"] == CLASSES[int(numbers.argmax())]


def test_bad_pictures_are_named_and_the_others_predicted(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = min(pictures.glob("*.jpg"))
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:200])
    status = predict.main([str(tmp_path / "cut.jpg"), str(good), str(tmp_path / "none.png"), "--model", str(model)])
    out, err = capsys.readouterr()
    assert status == 1
    assert [line.split()[0] for line in out.splitlines()] == ["name", str(good)]
    assert [line.partition(": ")[2].partition(":")[0] for line in err.splitlines()] == [
        str(tmp_path / "cut.jpg"),
        str(tmp_path / "none.png"),
    ]


def test_a_list_on_stdin_and_a_grid(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = sorted(pictures.rglob("*.jpg"))[:3]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(str, wanted)) + "\n\n"))
    status, found = found_by(capsys, "-", "--model", model, "--grid", tmp_path / "grid.png")
    assert (status, [one["name"] for one in found]) == (0, [str(path) for path in wanted])
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.format == "PNG"
        assert np.asarray(grid).std() > 5


def test_nothing_to_predict(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="no pictures"):
        predict.main([str(tmp_path), "--model", str(model)])


def test_the_script_from_another_folder(model: Path, pictures: Path, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    (tmp_path / "empty").mkdir()
    results = []
    for images in (pictures, tmp_path / "empty"):
        command = [sys.executable, str(ROOT / "examples" / "predict.py"), str(images), "--model", str(model)]
        results.append(subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False))
    done, empty = results
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1 + len(list(pictures.rglob("*.jpg")))
    assert (empty.returncode, empty.stdout) == (2, "")
    assert empty.stderr.startswith("error: no pictures")


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_a_reader_that_leaves_is_no_mistake() -> None:
    code = "from examples.terminal import run; run(lambda: [print('x' * 99) for _ in range(9999)])"
    script = f'"{sys.executable}" -c "{code}" | head -1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{'x' * 99}\n0\n", "")
