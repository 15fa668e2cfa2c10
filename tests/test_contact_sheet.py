"""The sheet of pictures: balanced, seeded, whole or absent; texts only when asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from t4sa_data.cli import app
from t4sa_data.contact_sheet import CELL_PX, contact_sheet
from t4sa_data.errors import UnknownConfig


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_sheet_is_seeded_and_options_change_it(releases: Path, tmp_path: Path) -> None:
    def make(name: str, **options: object) -> np.ndarray:
        assert contact_sheet(releases, tmp_path / name, num=9, **options) == 9  # type: ignore[arg-type]
        return pixels(tmp_path / name)

    first = make("a.png")
    assert np.array_equal(first, make("b.png"))
    assert first.shape[1] > 3 * CELL_PX
    assert not np.array_equal(first, make("c.png", seed=1))
    blurred, texts = make("d.png", blur=True), make("e.png", texts=True)
    assert blurred.shape == first.shape
    assert np.abs(np.diff(blurred.astype(int), axis=0)).mean() < np.abs(np.diff(first.astype(int), axis=0)).mean()
    assert texts.shape[0] > first.shape[0]
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".png"]


def test_the_command(releases: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    done = CliRunner().invoke(
        app, ["info", str(releases), "--contact-sheet", str(out), "--num", "500", "--split", "test"]
    )
    assert done.exit_code == 0, done.output
    assert "pictures of b-t4sa/test" in done.output
    assert pixels(out).std() > 10
    with pytest.raises(UnknownConfig):
        contact_sheet(releases, tmp_path / "x.png", split="nothing")
    assert not (tmp_path / "x.png").exists()
