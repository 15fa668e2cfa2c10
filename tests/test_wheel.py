"""What `pip install t4sa-data` gives: the wheel, installed outside the checkout, does the main job."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("LICENSE", "README.md", "pyproject.toml", "builders", "examples", "hub_scripts", "t4sa_data", "tests")
MIN_SETUPTOOLS = 77  # build-system.requires of pyproject.toml


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command with no trace of this environment; its output. The command's own words are in the failure."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV", "T4SA_HOME")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def has_setuptools() -> bool:
    try:
        return int(version("setuptools").split(".")[0]) >= MIN_SETUPTOOLS
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves folders behind, and takes up those of an earlier one."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    # With a setuptools at hand nothing has to be fetched; else pip fetches one as it is configured to.
    isolation = ["--no-isolation"] if has_setuptools() else []
    run(sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", source / "dist", source, cwd=source)
    (found,) = (source / "dist").glob("t4sa_data-*.whl")
    return found


def test_wheel_holds_the_three_packages_and_neither_examples_nor_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"builders", "hub_scripts", "t4sa_data"}
    assert {"t4sa_data/py.typed", "t4sa_data/cli.py", "builders/cli.py", "hub_scripts/__init__.py"} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    ours = {f"{path.relative_to(ROOT)}".replace(os.sep, "/") for path in (ROOT / "t4sa_data").rglob("*.py")}
    assert ours <= set(names), "a folder below t4sa_data is no package"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an empty environment with the wheel. Dependencies, gigabytes of them, are borrowed from
    this one; t4sa_data is not: a line of a .pth file adds a folder, and does not run the .pth files in it."""
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / ("python.exe" if os.name == "nt" else "python")
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--no-deps", "--no-index", "--quiet", wheel, cwd=folder.parent)
    purelib = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder.parent).strip()
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(purelib) / "borrowed.pth").write_text("".join(f"{path}\n" for path in sorted(borrowed)))
    return scripts


def test_installed_wheel_prepares_a_miniature_from_a_foreign_folder(installed: Path, tmp_path: Path) -> None:
    python, t4sa = (installed / (f"{name}.exe" if os.name == "nt" else name) for name in ("python", "t4sa"))
    where = "import t4sa_data, builders.cli; print(t4sa_data.__file__); print(builders.cli.__file__)"
    for line in run(python, "-c", where, cwd=tmp_path).splitlines():
        assert Path(line).is_relative_to(installed.parent), line
    shown = run(t4sa, "--help", cwd=tmp_path)
    for command in ("prepare", "check", "info", "where", "cite"):
        assert command in shown
    make = "from t4sa_data.testing import make_official_archive; make_official_archive('raw', 45)"
    run(python, "-c", make, cwd=tmp_path)
    run(t4sa, "prepare", "raw", "--out", "out", "--workers", "1", cwd=tmp_path)
    assert (tmp_path / "out/t4sa/manifest.json").is_file()
    assert (tmp_path / "out/t4sa-wds/manifest.json").is_file()
    assert run(t4sa, "check", "out", "--deep", cwd=tmp_path).startswith("ok")
