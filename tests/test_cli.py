"""The command line: what it prints, how it exits, what it imports."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from t4sa_data import cli
from t4sa_data.catalog import CITATION
from t4sa_data.testing import make_release

HEAVY = (
    "torch",
    "torchvision",
    "sklearn",
    "datasets",
    "pyarrow",
    "pandas",
    "PIL",
    "numpy",
    "requests",
    "huggingface_hub",
)


def t4sa(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command as users do, in a process of its own."""
    command = [sys.executable, "-m", "t4sa_data.cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def run(*args: object) -> typer.testing.Result:
    return CliRunner().invoke(cli.app, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    make_release(folder, 30, shard_bytes=30_000)
    return folder


def test_help_is_light_and_names_every_command() -> None:
    code = (
        "import sys; sys.argv = ['t4sa', '--help']\n"
        "from t4sa_data.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print('exit', end.code)\n"
        f"print('heavy', [m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    for name in ("check", "cite", "download", "get", "info", "login", "logout", "prepare", "removals", "where"):
        assert f"  {name} " in done.stdout
    assert done.stdout.endswith("exit 0\nheavy []\n"), done.stdout
    assert seconds < 5  # half a second on an idle machine; this only catches a heavy import


def test_check_says_ok(made: Path) -> None:
    done = run("check", made, "--deep")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("ok: ") and "60 samples" in done.stdout and done.stdout.count("\n") == 1


def test_check_tells_each_fault_on_a_line(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "r")
    (tmp_path / "r" / "t4sa" / "README.md").unlink()
    (tmp_path / "r" / "t4sa-wds" / "x").write_text("")
    done = t4sa("check", tmp_path / "r")
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["t4sa/README.md: missing", "t4sa-wds/x: the manifest does not name it"]
    assert done.stderr.startswith("2 fault(s): ") and done.stderr.count("\n") == 1


def main_in_process(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    """`t4sa ARGS` through the entry point, errors and all; its exit status."""
    monkeypatch.setattr(sys, "argv", ["t4sa", *map(str, args)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize("command", ["check", "info"])
def test_no_release_is_one_line_and_exit_2(tmp_path: Path, monkeypatch, capsys, command: str) -> None:
    assert main_in_process(monkeypatch, command, tmp_path) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: no release here") and err.count("\n") == 1
    assert str(tmp_path) in err and "t4sa prepare" in err


def test_info_is_a_screen(made: Path) -> None:
    done = run("info", made)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert len(lines) < 50 and max(map(len, lines)) < 130
    row = next(line.split() for line in lines if line.split()[:2] == ["b-t4sa", "train"])
    assert int(row[2]) == sum(map(int, row[5:8])) > 0
    shards = sorted((made / "t4sa-wds" / "b-t4sa").glob("train-*.tar"))
    assert len(shards) > 1
    brace = f"t4sa-wds/b-t4sa/train-{{00000..{len(shards) - 1:05d}}}-of-{len(shards):05d}.tar"
    assert f"  {brace}" in lines
    expanded = subprocess.run(["bash", "-c", f"echo {brace}"], capture_output=True, text=True, check=True)
    assert expanded.stdout.split() == [f"t4sa-wds/b-t4sa/{path.name}" for path in shards]
    assert "content digest  " in done.stdout and "https://t.co" not in done.stdout
    one = run("info", made / "t4sa")
    assert one.exit_code == 0 and "t4sa-wds" not in one.stdout


def test_where_lists_places(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("T4SA_HOME", str(made))
    done = run("where")
    assert done.exit_code == 0, done.output
    line = next(line for line in done.stdout.splitlines() if str(made / "t4sa") in line)
    assert line.startswith("T4SA_HOME") and "found" in line and "kB" in line and "b-t4sa" in line
    monkeypatch.setenv("T4SA_HOME", str(tmp_path / "absent"))
    empty = run("where")
    assert empty.exit_code == 0 and str(tmp_path / "absent" / "t4sa") in empty.stdout and " found " not in empty.stdout


def test_cite_and_version() -> None:
    assert run("cite").stdout == CITATION.rstrip() + "\n"
    version = run("--version")
    assert version.exit_code == 0 and version.stdout.startswith("t4sa-data ") and version.stdout.count(".") >= 2


def test_no_arguments_shows_help_and_unknown_ones_exit_2() -> None:
    assert "Commands:" in run().output
    done = run("prepaer")
    assert done.exit_code == 2 and "prepaer" in done.stderr and "Traceback" not in done.stderr


# The wings, found by entry points.
WING = """
import typer
app = typer.Typer()

@app.command()
def fly(height: int, how: str = "high") -> None:
    \"\"\"Fly.\"\"\"
    {body}
"""


@pytest.fixture
def wing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install a wing: a module and its entry points."""

    def install(body: str = "print(how, height)", head: str = "", extra: str = " [build]") -> None:
        name = f"wing_{abs(hash((str(tmp_path), body, head)))}"
        (tmp_path / f"{name}.py").write_text(head + WING.format(body=body))
        points = EntryPoints(
            [
                EntryPoint("fly", f"{name}:app{extra}", cli.GROUP),
                EntryPoint("absent", "absent_wing:app [train]", cli.GROUP),
            ]
        )
        monkeypatch.setattr(cli, "entry_points", points.select)
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


def test_a_wings_command(wing) -> None:
    wing()
    assert run("fly", 7, "--how", "low").stdout == "low 7\n"
    usage = run("fly").output
    assert "Usage:" in usage and "HEIGHT" in usage.upper()
    listed = [" ".join(line.split()) for line in run("--help").stdout.splitlines()]
    assert {
        "fly Fly.",
        'absent Not installed: pip install "t4sa-data[train]"',
        "cite Print the paper's BibTeX entry.",
    } <= {*listed}


def test_only_the_asked_command_is_loaded(wing) -> None:
    wing(head="raise SystemExit('loaded')\n")
    assert run("cite").exit_code == 0
    assert run("fly").exit_code != 0


@pytest.mark.parametrize("args", [["absent"], ["absent", "x", "--flag", "3"], ["absent", "--help"]])
def test_a_missing_wing_says_how_to_install_it(wing, args: list[str]) -> None:
    wing()
    done = run(*args)
    assert done.exit_code == 2
    assert done.stderr == (
        "error: `t4sa absent` needs the package absent_wing, which is not installed. Install it with: "
        'pip install "t4sa-data[train]"\n'
    )


def test_a_package_missing_inside_a_command(wing) -> None:
    wing(body="import no_such_package_xyz")
    done = run("fly", 1)
    assert done.exit_code == 2
    assert "needs the package no_such_package_xyz" in done.stderr and 't4sa-data[build]"' in done.stderr
    wing(body="import t4sa_data.no_such_module")  # a fault of ours is not hidden behind a pip line
    assert isinstance(run("fly", 1).exception, ModuleNotFoundError)


_MAIN = """
import sys, time
from importlib.metadata import EntryPoint, EntryPoints
from t4sa_data import cli
cli.entry_points = EntryPoints([EntryPoint("fly", "wing:app", cli.GROUP)]).select
sys.argv = ["t4sa", "fly", "1"]
cli.main()
"""


def test_errors_and_interrupts_leave_no_traceback(tmp_path: Path) -> None:
    def main(body: str) -> subprocess.Popen[str]:
        (tmp_path / "wing.py").write_text(WING.format(body=body))
        env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(cli.__file__).parents[1]}"}
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-B", "-c", _MAIN], stdout=pipe, stderr=pipe, text=True, env=env)

    with main(
        "from t4sa_data.errors import T4SAError; raise T4SAError('a\\nfault', got=1, hint='Do this.')"
    ) as process:
        assert process.communicate(timeout=60) == ("", "error: a fault: got 1. Do this.\n") and process.returncode == 2
    if sys.platform != "win32":
        with main("import time; print('up', flush=True); time.sleep(60)") as process:
            assert process.stdout is not None and process.stdout.readline() == "up\n"
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60) == ("", "interrupted\n") and process.returncode == 130
