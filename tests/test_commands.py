"""`t4sa download`, `login` and `logout` as commands: what they print, how they exit, what they send."""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from t4sa_data import catalog, cli, credentials
from t4sa_data.testing import make_official_archive
from t4sa_data.testing.archive import write_tar

from tests.site_double import Fault, OfficialSite  # isort: skip

SECRET = "pass word/%"
DEFAULT = [catalog.PACKAGES[name].filename for name in catalog.PREPARE_PACKAGES]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every package of the catalog, in miniature."""
    folder = tmp_path_factory.mktemp("site")
    make_official_archive(folder, 12, lists_inside=True)
    made = {name: (folder / name).read_bytes() for name in DEFAULT}
    for name in catalog.MODELS:
        write_tar(folder / "model.tar", {f"{name}.prototxt": name.encode()})
        made[catalog.PACKAGES[name].filename] = gzip.compress((folder / "model.tar").read_bytes(), mtime=0)
    for name in catalog.MODELS_PYTORCH:
        made[catalog.PACKAGES[name].filename] = b"\x80\x03" + name.encode()
    return made


@pytest.fixture
def site(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OfficialSite]:
    """The site, and a machine that knows of it but its credentials."""
    for name in ("T4SA_USER", "T4SA_PASSWORD", "NETRC", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "user"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.setattr(credentials, "keyring_module", lambda: None)
    monkeypatch.setenv("T4SA_HOME", str(tmp_path / "home"))
    with OfficialSite(dict(files), user="someone", password=SECRET) as double:
        monkeypatch.setenv("T4SA_BASE_URL", double.url)
        yield double


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T4SA_USER", "someone")
    monkeypatch.setenv("T4SA_PASSWORD", SECRET)


@pytest.fixture
def t4sa(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a command; (exit status, standard output, standard error)."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["t4sa", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        assert SECRET not in out + err and "Traceback" not in err
        return int(end.value.code or 0), out, err

    return run


def test_the_packages_that_prepare_needs(site: OfficialSite, known: None, t4sa, tmp_path: Path) -> None:
    raw = tmp_path / "home" / "raw"
    status, out, err = t4sa("download", "--dry-run")
    assert status == 0 and out == "" and site.log == [] and not raw.exists()
    assert f"to fetch into {raw}" in err and "b-t4sa_imgs.tar: about 63.0 GB, not here" in err and " free" in err
    status, out, err = t4sa("download")
    assert status == 0, err
    sums = {name: hashlib.sha256(site.files[name]).hexdigest() for name in DEFAULT}
    assert out.splitlines() == [f"{sums[name]}  {raw / name}" for name in DEFAULT]
    assert "recorded, not published" in err
    assert {path.name: path.read_bytes() for path in raw.iterdir() if path.name in site.files} == {
        name: site.files[name] for name in DEFAULT
    }
    assert sorted(path.name for path in raw.glob("*") if not path.name.startswith(".")) == sorted(
        [*DEFAULT, "checksums.json"]
    )
    asked = len(site.log)
    status, again, _ = t4sa("download")
    assert (status, again) == (0, out) and len(site.log) == asked, "nothing is asked when all is here"
    status, out, _ = t4sa("download", "--list")
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert all("here and verified" in rows[name] for name in catalog.PREPARE_PACKAGES)
    assert rows["hybrid-ft-a"].split()[1:4] == ["210.9", "MB", "-"] and "unknown" in rows[catalog.MODELS_PYTORCH[0]]
    assert "groups: models = " in out and str(raw) in out and len(site.log) == asked
    (raw / "raw_tweets_text.csv").write_bytes(b"id,text\n1,x\n")
    status, out, _ = t4sa("download", "--list")
    assert status == 0 and "here, changed since it was verified" in out
    status, _, err = t4sa("download", "raw-text")
    assert status == 1 and "not the file that was recorded" in err and err.splitlines()[-1].startswith("error: ")


def test_names_groups_and_all(site: OfficialSite, known: None, t4sa, tmp_path: Path) -> None:
    status, out, err = t4sa("download", "models", "raw-text", "--to", tmp_path / "some")
    assert status == 0, err
    assert out.count("\n") == 5
    assert {path.name for path in (tmp_path / "some").glob("*.tar.gz")} == {
        catalog.PACKAGES[name].filename for name in catalog.MODELS
    }
    status, out, _ = t4sa("download", "--all", "--to", tmp_path / "all", "--base-url", site.url.rstrip("/"))
    assert status == 0 and out.count("\n") == len(catalog.PACKAGES)
    assert all((tmp_path / "all" / name).read_bytes() == data for name, data in site.files.items())


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["b-t4s", "raw-text", "modles"], 2, "| models-pytorch, got b-t4s, modles"),
        (["--all", "b-t4sa"], 2, "either --all or names"),
        (["--config", "b-t4sa"], 2, "--config cannot be used with --from site"),
        (["--split", "test", "--revision", "v1"], 2, "--split, --revision cannot"),
        (["--from", "hub", "b-t4sa"], 2, "PACKAGE cannot be used with --from hub"),
        (["--from", "hub", "--probe", "--all", "--list"], 2, "--all, --list, --probe cannot"),
        (["--from", "ftp"], 2, "hub"),
        (["--nonsense"], 2, "nonsense"),
        (["raw-text"], 3, "http://www.t4sa.it"),
        (["raw-text", "--base-url", "http://a:b@127.0.0.1/"], 3, "user name or password in it"),
        (["raw-text", "--base-url", "ftp://127.0.0.1/"], 3, "not an http"),
    ],
)
def test_exit_statuses_without_credentials(site: OfficialSite, t4sa, args, status: int, words: str) -> None:
    found, out, err = t4sa("download", *args)
    assert (found, out) == (status, "")
    assert words in " ".join(err.replace("│", " ").split()), err
    assert not [request for request in site.log if request.authorization]


def test_exit_statuses_with_credentials(site: OfficialSite, known: None, t4sa, monkeypatch, tmp_path: Path) -> None:
    del site.files["raw_tweets_text.csv"]
    status, _, err = t4sa("download", "raw-text")
    assert status == 1 and "the site has no such file" in err and "--base-url" in err
    monkeypatch.setenv("T4SA_PASSWORD", "wrong")
    status, _, err = t4sa("download")
    assert status == 3 and "does not take this user name and password" in err and "someone" in err
    refused = [request for request in site.log if request.status == 401 and request.authorization]
    assert len(refused) <= 2, "a refusal is not tried again: at most one for each file under way"
    monkeypatch.setenv("T4SA_PASSWORD", SECRET)
    (tmp_path / "file").write_bytes(b"")
    status, _, err = t4sa("download", "--to", tmp_path / "file")
    assert status == 1 and "cannot write" in err
    status, _, err = t4sa("download", "--user", "another", "text-sentiment")
    assert status == 3 and "of another user" in err


def test_plain_http_to_another_machine_needs_a_word(site: OfficialSite, known: None, t4sa, monkeypatch) -> None:
    monkeypatch.setattr(credentials.Origin, "is_loopback", False)
    status, _, err = t4sa("download", "raw-text")
    assert status == 3 and "Anybody on the way can read it" in err and "--allow-insecure-http" in err
    assert not [request for request in site.log if request.authorization]
    status, _, err = t4sa("download", "raw-text", "--allow-insecure-http")
    assert status == 0, err


def test_no_proxy_stands_between_two_ends_on_this_machine(site: OfficialSite, known: None, t4sa, monkeypatch) -> None:
    """A proxy would read the password that plain http takes to loopback only."""
    with OfficialSite({}) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        status, _, err = t4sa("download", "raw-text")
        assert status == 0 and proxy.log == [], err


def test_probe_is_a_report_without_credentials(site: OfficialSite, known: None, t4sa, monkeypatch) -> None:
    status, out, _ = t4sa("download", "--probe")
    assert status == 0 and not [request for request in site.log if request.authorization]
    assert len(site.log) == 2 * len(catalog.PACKAGES)
    assert out.count("HTTP 401; WWW-Authenticate: Basic realm") == 2 * len(catalog.PACKAGES)
    assert all(package.filename in out for package in catalog.PACKAGES.values()) and site.url[:-1] in out
    monkeypatch.setenv("T4SA_BASE_URL", "http://127.0.0.1:1/")
    status, out, _ = t4sa("download", "--probe", "b-t4sa")
    assert status == 0 and out.count("ConnectionError") == 2
    status, _, err = t4sa("download", "--probe", "nothing")
    assert status == 2 and "no such package" in err


def test_a_prompt_comes_once_and_in_the_main_thread(site: OfficialSite, t4sa, monkeypatch) -> None:
    asked = []

    def getpass(_prompt: str) -> str:
        asked.append(threading.current_thread() is threading.main_thread())
        return SECRET

    monkeypatch.setattr(credentials, "can_prompt", lambda: True)
    monkeypatch.setattr("getpass.getpass", getpass)
    monkeypatch.setattr("builtins.input", lambda *_: "someone")
    status, out, err = t4sa("download")
    assert status == 0 and asked == [True] and "asks for the user name" in err and out.count("\n") == 3
    asked.clear()
    assert t4sa("download")[0] == 0 and asked == [], "all is here"


def test_ctrl_c_on_the_way_ends_it(site: OfficialSite, known: None, tmp_path: Path) -> None:
    site.files["b-t4sa_imgs.tar"] += bytes(1 << 20)
    site.faults = [Fault("stall", at=300_000, seconds=60)]
    raw = tmp_path / "raw"
    part = raw / "b-t4sa_imgs.tar.part"
    command = [sys.executable, "-m", "t4sa_data.cli", "download", "b-t4sa", "--to", str(raw)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        limit = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size) and time.monotonic() < limit:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.endswith("interrupted\n") and "Traceback" not in err, err
    assert time.monotonic() - started < 15 and part.stat().st_size > 0
    assert SECRET not in out + err


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks at processes in /proc")
def test_a_real_process_shows_no_secret(site: OfficialSite, known: None, tmp_path: Path) -> None:
    seen = b""
    command = [sys.executable, "-m", "t4sa_data.cli", "download", "--to", str(tmp_path / "raw")]
    environment = {**os.environ, "PYTHONWARNINGS": "error::ResourceWarning"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process:
        seen += Path(f"/proc/{process.pid}/cmdline").read_bytes()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    written = b"".join(path.read_bytes() for path in (tmp_path / "raw").iterdir() if path.name not in site.files)
    assert b"checksums" not in written and b'"sha256"' in written
    for form in (SECRET, credentials.Credentials("someone", SECRET).header().partition(" ")[2], "pass%20word%2F%25"):
        assert form.encode() not in seen + output + written
