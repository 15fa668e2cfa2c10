"""Credentials: where they are looked for, where they may go, and that they are seen nowhere."""

from __future__ import annotations

import base64
import copy
import logging
import netrc
import os
import pickle
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t4sa_data import cli, credentials
from t4sa_data.credentials import Credentials, find, login, logout, look
from t4sa_data.downloading.site import Site
from t4sa_data.errors import (
    CredentialsError,
    CredentialsInURL,
    CredentialsMissing,
    CredentialsRefused,
    InsecureTransport,
    NetrcError,
)
from t4sa_data.origins import Origin, origin_of

from tests.site_double import OfficialSite  # isort: skip
from tests.terminal import Terminal  # isort: skip

BASE = "http://data.example.org/dataset/"
ORIGIN = origin_of(BASE)
SECRET = 'p w/"d\\ä#%+'
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pseudo-terminals of Linux")
posix = pytest.mark.skipif(os.name != "posix", reason="modes and terminals of POSIX")


def forms(secret: str, user: str = "someone") -> list[str]:
    """A secret as it could show up somewhere."""
    coded = [base64.b64encode(text.encode()).decode() for text in (secret, f"{user}:{secret}")]
    return [secret, quote(secret), quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1], *coded]


def assert_no_secret(text: str, secret: str = SECRET) -> None:
    for form in forms(secret):
        assert form not in text


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own, nothing in the environment, a keyring that forgets."""
    for name in ("T4SA_USER", "T4SA_PASSWORD", "T4SA_BASE_URL", "NETRC", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")  # of child processes
    try:
        import keyring
        from keyring.backends import null
    except ImportError:
        yield tmp_path
        return
    before = keyring.get_keyring()
    keyring.set_keyring(null.Keyring())
    yield tmp_path
    keyring.set_keyring(before)


@pytest.fixture
def ring() -> dict[tuple[str, str], str]:
    """The content of a real keyring backend that holds it in memory."""
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend
    from keyring.errors import PasswordDeleteError

    kept: dict[tuple[str, str], str] = {}

    class Memory(KeyringBackend):
        priority = 1

        def get_password(self, service, username):
            return kept.get((service, username))

        def set_password(self, service, username, password):
            kept[service, username] = password

        def delete_password(self, service, username):
            if kept.pop((service, username), None) is None:
                raise PasswordDeleteError

    keyring.set_keyring(Memory())
    return kept


def write_netrc(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


# Sources, in order.


def test_the_first_source_that_has_them_counts(nowhere, ring, monkeypatch) -> None:
    monkeypatch.setenv("T4SA_USER", "env")
    monkeypatch.setenv("T4SA_PASSWORD", "1")
    login("ring", "3", base_url=BASE, store="keyring")
    write_netrc(nowhere / ".netrc", "machine data.example.org login net password 2\n")
    colab = types.ModuleType("google.colab")
    colab.userdata = types.SimpleNamespace(get={"T4SA_USER": "colab", "T4SA_PASSWORD": "4"}.get)
    for name, module in (("google", types.ModuleType("google")), ("google.colab", colab)):
        monkeypatch.setitem(sys.modules, name, module)
    kaggle = types.ModuleType("kaggle_secrets")
    kaggle.UserSecretsClient = lambda: types.SimpleNamespace(get_secret=lambda name: f"kaggle {name}")
    monkeypatch.setitem(sys.modules, "kaggle_secrets", kaggle)

    def found(**given) -> tuple[str, str, str]:
        one = find(ORIGIN, interactive=False, **given)
        return one.user, one.password, one.source.partition(" (")[0]

    assert found(explicit=("arg", "0")) == ("arg", "0", "argument")
    assert found() == ("env", "1", "environment")
    assert found(user="ring") == ("ring", "3", "keyring"), "of this user only"
    monkeypatch.delenv("T4SA_PASSWORD")
    assert found() == ("net", "2", "netrc")
    (nowhere / ".netrc").unlink()
    assert found() == ("ring", "3", "keyring")
    ring.clear()
    assert found() == ("colab", "4", "notebook secrets")
    monkeypatch.delitem(sys.modules, "google.colab")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert found()[0] == "kaggle T4SA_USER"
    kaggle.UserSecretsClient = None  # a secret that is not there, or not granted
    with pytest.raises(CredentialsMissing) as error:
        found()
    message = str(error.value)
    places = ("T4SA_PASSWORD not set", f"no {nowhere / '.netrc'}", f"nothing for {ORIGIN}", "neither Colab nor Kaggle")
    assert all(words in message for words in places), message
    assert "http://www.t4sa.it" in message and "None" not in message and "t4sa login" in message


def test_later_sources_are_not_asked(nowhere, monkeypatch) -> None:
    monkeypatch.setenv("T4SA_USER", "u")
    monkeypatch.setenv("T4SA_PASSWORD", "p")
    write_netrc(nowhere / ".netrc", "not a netrc", 0o644)
    assert find(ORIGIN, interactive=False).user == "u"


# netrc.


@pytest.mark.parametrize(
    ("base", "text", "user"),
    [
        ("http://h.org/", "machine h.org login u password p", "u"),
        ("http://h.org:80/", "machine h.org login u password p", "u"),
        ("https://h.org/x", "machine h.org login u password p", "u"),
        ("http://h.org:8080/", "machine h.org:8080 login u password p", "u"),
        ("http://h.org:8080/", "machine h.org login u password p", None),
        ("http://h.org/", "machine h.org:8080 login u password p", None),
        ("http://h.org/", "machine www.h.org login u password p", None),
        ("http://h.org/", "default login u password p", None),
        ("http://h.org/", "machine h.org login u", None),
        ("http://h.org/", "machine h.org password p", None),
        ("http://h.org/", "machine h.org login u account a password p\nmachine x login y password z", "u"),
        ("http://[::1]:81/", "machine ::1:81 login u password p", "u"),
    ],
)
def test_machine_of_a_netrc(nowhere, monkeypatch, base: str, text: str, user: str | None) -> None:
    monkeypatch.setenv("NETRC", str(write_netrc(nowhere / "elsewhere", text)))
    write_netrc(nowhere / ".netrc", "machine h.org login wrong password wrong")
    asked = {looked.source: looked for looked in look(origin_of(base))}
    found = asked["netrc"].found
    assert (found and found.user) == user
    assert str(nowhere / "elsewhere") in asked["netrc"].what


@posix
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_netrc_that_others_may_read_is_refused(nowhere, mode: int) -> None:
    path = write_netrc(nowhere / ".netrc", f"machine data.example.org login u password {SECRET}", mode)
    for act in (lambda: find(ORIGIN), lambda: login("u", "p", base_url=BASE), lambda: logout(base_url=BASE)):
        with pytest.raises(NetrcError, match="other users can read") as error:
            act()
        assert f"chmod 600 {path}" in str(error.value)
    assert path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(
    "text",
    [
        "machine data.example.org login u password {}\n{}\n",
        "{}\n",
        "machine data.example.org login u passwd {}\n",
        b"machine data.example.org login u password \xff{}\nxx {}\n",
    ],
)
def test_a_netrc_that_does_not_parse_is_not_quoted(nowhere, text: str | bytes) -> None:
    secret = "Sesame1"
    text = text.replace(b"{}", secret.encode()) if isinstance(text, bytes) else text.format(secret, secret)
    write_netrc(nowhere / ".netrc", text)
    with pytest.raises(NetrcError, match="line") as error:
        find(ORIGIN)
    assert secret not in str(error.value)
    assert error.value.__cause__ is None and error.value.__suppress_context__


ODD = [
    *('a"b', "a\\b", 'a\\"b', "#abc", "a #b", " lead and trail ", "\t", "ä€😀", "'", "machine", "end\\", '"', "%41+&"),
    "\x0b\x0c\x1c\x85\u2028\u2029",  # line ends to `str.splitlines`
    "#t4sa-data:end",
]


@pytest.mark.parametrize("password", ODD)
def test_odd_passwords_go_through_netrc(nowhere, password: str) -> None:
    user = f"user {password}"
    path = nowhere / ".netrc"
    assert login(user, password, base_url=BASE, store="netrc") == f"netrc ({path}, machine {ORIGIN.host})"
    found = find(ORIGIN, interactive=False)
    assert (found.user, found.password) == (user, password)
    known = netrc.netrc(str(path)).authenticators(ORIGIN.host)
    assert known == (user, "", password), "other readers of netrc see the same"
    assert logout(base_url=BASE) and path.read_bytes() == b""


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_password_goes_through_netrc(nowhere, password: str) -> None:
    login("u", password, base_url=BASE, store="netrc")
    assert find(ORIGIN, interactive=False).password == password


@pytest.mark.parametrize("password", ["a\nb", "a\rb"])
def test_a_line_break_does_not_go_into_a_netrc(nowhere, password: str) -> None:
    with pytest.raises(NetrcError, match="line break") as error:
        login("u", password, base_url=BASE, store="netrc")
    assert password not in str(error.value) and not (nowhere / ".netrc").exists()


THEIRS = [
    b"",
    b"machine a login b password c",
    b"# mine\r\nmachine a\r\n\tlogin b\r\n\tpassword c\r\n",
    b"machine a login \xe4 password \xff\n\n\n",
    b"machine a login b password c\nmacdef init\nls\nmachine data.example.org\n\n",
    b"#t4sa-data:http://data.example.org\nmachine x login y password z\n",  # an end mark is missing: not ours
    b"machine data.example.org login old password old\ndefault login d password e\n",
    "machine a login b password \u2028\x85\n".encode(),
]


@posix
@pytest.mark.parametrize("theirs", THEIRS)
def test_only_our_own_lines_of_a_netrc_are_touched(nowhere, theirs: bytes) -> None:
    real = write_netrc(nowhere / "real", theirs)
    (nowhere / ".netrc").symlink_to(real)
    login("u", "first", base_url=BASE, store="netrc")
    login("u", "other", base_url="https://data.example.org/", store="netrc")
    login("u", SECRET, base_url=BASE, store="netrc")
    assert find(ORIGIN, interactive=False).password == SECRET, "ours counts, not another entry of the machine"
    assert find(origin_of("https://data.example.org"), interactive=False).password == "other"
    assert real.read_bytes().endswith(theirs) and b"first" not in real.read_bytes()
    assert real.stat().st_mode & 0o777 == 0o600 and (nowhere / ".netrc").is_symlink()
    assert len(logout(base_url=BASE)) == 1 and logout(base_url=BASE) == []
    assert logout(base_url="https://data.example.org/")
    assert real.read_bytes() == theirs
    assert sorted(path.name for path in nowhere.iterdir()) == [".netrc", "real"]


@posix
def test_a_new_netrc_is_private(nowhere) -> None:
    mask = os.umask(0)
    try:
        login("u", "p", base_url=BASE, store="netrc")
    finally:
        os.umask(mask)
    assert (nowhere / ".netrc").stat().st_mode & 0o777 == 0o600


def test_our_entry_that_was_changed_by_hand_is_a_netrc_entry_like_others(nowhere) -> None:
    login("u", "p", base_url=BASE, store="netrc")
    path = nowhere / ".netrc"
    write_netrc(path, path.read_text().replace('login "u"\npassword "p"', 'login me password "q r"'))
    assert find(ORIGIN, interactive=False).password == "q r"


@pytest.mark.parametrize("store", ["netrc", "keyring"])
def test_what_login_stored_is_for_its_origin_only(ring, store: str) -> None:
    login("u", "p", base_url="https://h.org/a/b", store=store)
    assert find(origin_of("https://h.org/c"), interactive=False).password == "p"
    for other in ("http://h.org/", "https://h.org:444/", "https://www.h.org/", "http://h.org:443/"):
        with pytest.raises(CredentialsMissing):
            find(origin_of(other), interactive=False)


# Keyring.


def test_keyring_is_preferred_and_netrc_is_cleared(nowhere, ring) -> None:
    login("u", "old", base_url=BASE, store="netrc")
    assert login("u", SECRET, base_url=BASE) == f"keyring (t4sa-data, {ORIGIN})"
    assert find(ORIGIN, interactive=False).password == SECRET
    assert "old" not in (nowhere / ".netrc").read_text()
    assert logout(base_url=BASE) == [f"keyring (t4sa-data, {ORIGIN})"] and ring == {}


def test_keyrings_that_do_not_work(nowhere) -> None:
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend
    from keyring.backends import fail, null
    from keyring.errors import KeyringLocked

    for useless in (fail.Keyring(), null.Keyring()):
        keyring.set_keyring(useless)
        assert login("u", "p", base_url=BASE).startswith("netrc (")
        with pytest.raises(CredentialsMissing, match="no keyring"):
            login("u", "p", base_url=BASE, store="keyring")
    logout(base_url=BASE)

    class Locked(KeyringBackend):
        priority = 1

        def get_password(self, service, username):
            raise KeyringLocked(SECRET)

        def set_password(self, service, username, password):
            raise KeyringLocked(password)

    class Forgetful(null.Keyring):
        priority = 1

    for broken in (Locked(), Forgetful()):
        keyring.set_keyring(broken)
        with pytest.raises(CredentialsMissing, match="--store netrc") as error:
            login("u", SECRET, base_url=BASE)
        assert_no_secret(str(error.value))
        with pytest.raises(CredentialsMissing) as missing:
            find(ORIGIN, interactive=False)
        assert_no_secret(str(missing.value))
    keyring.set_keyring(Locked())
    with pytest.raises(CredentialsMissing, match="KeyringLocked"):
        logout(base_url=BASE)


def test_without_the_package_keyring(nowhere, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert {looked.source: looked.what for looked in look(ORIGIN)}["keyring"].startswith("no keyring here (pip")
    assert login("u", "p", base_url=BASE).startswith("netrc (")
    assert logout(base_url=BASE)


# Prompts.


def test_a_pipe_is_never_asked(nowhere) -> None:
    for code in ("login()", "find(origin_of('http://127.0.0.1/'))"):
        done = subprocess.run(
            [sys.executable, "-c", f"from t4sa_data.credentials import *; {code}"],
            input="someone\npassword\n",
            capture_output=True,
            text=True,
        )
        assert "CredentialsMissing" in done.stderr and "User:" not in done.stderr + done.stdout, done.stderr
    assert not (nowhere / ".netrc").exists()


def test_a_notebook_can_be_asked(monkeypatch) -> None:
    ipython = types.ModuleType("IPython")
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    for name, expected in (("ZMQInteractiveShell", True), ("Shell", True), ("TerminalInteractiveShell", False)):
        ipython.get_ipython = type(name, (), {})
        assert credentials.in_notebook() is expected
        if expected:
            assert credentials.can_prompt()
    ipython.get_ipython = lambda: None
    assert not credentials.in_notebook()


@pytest.mark.parametrize(("user", "password"), [("", SECRET), ("u", ""), (EOFError(), ""), ("u", EOFError())])
def test_nothing_typed(monkeypatch, capsys, user, password) -> None:
    def answer(value):
        def act(*_):
            if isinstance(value, EOFError):
                raise value
            return value

        return act

    monkeypatch.setattr("builtins.input", answer(user))
    monkeypatch.setattr("getpass.getpass", answer(password))
    with pytest.raises(CredentialsMissing, match="nothing was typed"):
        find(ORIGIN, interactive=True)
    assert capsys.readouterr().out == ""


@on_linux
def test_a_terminal_is_asked_and_the_password_not_shown(nowhere) -> None:
    with Terminal("login", "--base-url", BASE) as terminal:
        shown = terminal.read_until(b"User: ")
        terminal.type(b"someone\n")
        shown += terminal.read_until(b"Password (not shown): ")
        terminal.type(f"{SECRET}\n".encode())
        shown += terminal.read_until(None)
    assert terminal.process.returncode == 0, shown
    text = shown.decode()
    assert "asks for the user name and password that came by mail" in text and f"stored in netrc ({nowhere}" in text
    assert_no_secret(text)
    found = find(ORIGIN, interactive=False)
    assert (found.user, found.password) == ("someone", SECRET)


@on_linux
def test_ctrl_c_at_the_prompt_of_a_download_ends_it(nowhere) -> None:
    with OfficialSite({"raw_tweets_text.csv": b"id,text\n"}) as double:
        words = ("download", "raw-text", "--base-url", double.url, "--to", str(nowhere / "raw"))
        with Terminal(*words) as terminal:
            terminal.read_until(b"User: ")
            terminal.type(b"someone\n")
            terminal.read_until(b"Password (not shown): ")
            terminal.type(b"\x03")
            shown = terminal.read_until(None)
    assert terminal.process.returncode == 130 and b"Traceback" not in shown and b"interrupted" in shown, shown
    assert not [request for request in double.log if request.authorization]


# Origins and URLs.


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://h.org/a/b?c#d", Origin("http", "h.org", 80)),
        ("HTTPS://H.ORG", Origin("https", "h.org", 443)),
        ("http://h.org:443", Origin("http", "h.org", 443)),
        ("http://[::1]:8080/", Origin("http", "::1", 8080)),
        ("http://h.org/a@b", Origin("http", "h.org", 80)),
    ],
)
def test_origin_of_a_url(url: str, origin: Origin) -> None:
    assert origin_of(url) == origin == origin_of(str(origin))


@pytest.mark.parametrize(
    "url",
    [
        "http://someone:{}@h.org/",
        "https://{}@h.org/",
        "http://someone:{}/x@h.org/",
        "http://someone:{}@ss@h.org/",
        "http://someone:{}@[::1/",
        "ftp://someone:{}@h.org/",
        "someone:{}@h.org/dataset/",
        "//someone:{}@h.org/",
        "http://:{}@h.org/",
    ],
)
def test_a_password_in_a_url_is_refused_unseen(url: str) -> None:
    secret = "Sesame1"
    for act in (origin_of, Site, lambda base: login("u", "p", base_url=base), lambda base: logout(base_url=base)):
        with pytest.raises(CredentialsInURL) as error:
            act(url.format(secret))
        assert secret not in f"{error.value} {error.value!r} {error.value.__cause__!r}", error.value
        assert "t4sa login" in str(error.value)


@pytest.mark.parametrize("url", ["", "h.org/x", "ftp://h.org", "file:///etc", "http://", "http://h:x/", "http://[::1/"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InsecureTransport):
        origin_of(url)


@pytest.mark.parametrize(
    ("url", "is_safe"),
    [
        ("https://h.org", True),
        ("http://127.0.0.1:1", True),
        ("http://127.9.9.9", True),
        ("http://[::1]", True),
        ("http://localhost:8000", True),
        ("http://h.org", False),
        ("http://localhost.h.org", False),
        ("http://10.0.0.1", False),
        ("http://0.0.0.0", False),
        ("http://2130706433", False),
    ],
)
def test_plain_http_is_for_this_machine_only(url: str, is_safe: bool) -> None:
    origin = origin_of(url)
    credentials.require_safe(origin, allow_insecure_http=True)
    if is_safe:
        credentials.require_safe(origin, allow_insecure_http=False)
        return
    with pytest.raises(InsecureTransport, match="--allow-insecure-http") as error:
        credentials.require_safe(origin, allow_insecure_http=False)
    assert "Anybody on the way can read it" in str(error.value) and "not the password" in str(error.value)


# Nothing shows them.


def test_no_object_shows_a_secret(nowhere, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    one = Credentials("someone", SECRET, "netrc (x)")
    login("someone", SECRET, base_url=BASE, store="netrc")
    looked = [each for each in look(ORIGIN, ("someone", SECRET)) if each.found]
    assert len(looked) == 2
    shown = [f"{each} {each!r} {each!s:>5}" for each in (one, *looked, [one], {"a": one}, copy.copy(one))]
    with OfficialSite({"x": b"1"}) as double:
        site = Site(double.url, auth=("someone", SECRET))
        with pytest.raises(CredentialsRefused) as refused:
            site.open(f"{double.url}x", now=0.0)
        assert double.log[-1].authorization == one.header(), "it was sent"
    errors: list[Exception] = [refused.value]
    with pytest.raises(CredentialsMissing) as missing:
        find(ORIGIN, user="another", interactive=False)
    errors.append(missing.value)
    for error in errors:
        again = pickle.loads(pickle.dumps(error))
        shown += [f"{error} {error!r} {error.args} {vars(error)}", f"{again} {vars(again)}"]
    shown += [repr(site), str(site), caplog.text]
    for text in shown:
        assert_no_secret(text)
    assert "someone" in str(refused.value) and "HTTP 401" in str(refused.value)


def test_bytes_of_the_environment_that_are_no_utf8_are_sent_as_they_are() -> None:
    one = Credentials("u", b"p\xff".decode("utf-8", "surrogateescape"))
    assert base64.b64decode(one.header().removeprefix("Basic ")) == b"u:p\xff"


# Commands.


def command(monkeypatch, capsys, *args: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["t4sa", *args])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0), *capsys.readouterr()


def test_login_check_names_the_source_and_not_the_secret(nowhere, monkeypatch, capsys) -> None:
    monkeypatch.setenv("T4SA_BASE_URL", BASE)
    status, out, err = command(monkeypatch, capsys, "login", "--check")
    assert status == 3 and [line.split()[0] for line in out.splitlines()] == [
        *("environment", "netrc", "keyring", "notebook")
    ]
    login("someone", SECRET, store="netrc")
    status, out, err = command(monkeypatch, capsys, "login", "--check")
    assert status == 0 and "user someone, this is used" in out.splitlines()[-1] and "t4sa login" in out
    assert_no_secret(out + err)
    monkeypatch.setenv("T4SA_USER", "other")
    monkeypatch.setenv("T4SA_PASSWORD", SECRET)
    status, out, err = command(monkeypatch, capsys, "login", "--check")
    assert status == 0 and out.startswith("environment") and "user other" in out and out.count("\n") == 1
    assert_no_secret(out + err)
    status, out, err = command(monkeypatch, capsys, "login", "--check", "--user", "someone")
    assert status == 0 and "of another user" in out and out.splitlines()[-1].startswith("netrc")


def test_login_and_logout(nowhere, monkeypatch, capsys) -> None:
    monkeypatch.setattr(credentials, "can_prompt", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda _prompt: SECRET)
    args = ("--base-url", BASE)
    status, out, err = command(monkeypatch, capsys, "login", "--user", "someone", *args)
    assert (status, out) == (0, f"stored in netrc ({nowhere / '.netrc'}, machine data.example.org)\n")
    assert_no_secret(out + err)
    monkeypatch.setenv("T4SA_USER", "other")
    monkeypatch.setenv("T4SA_PASSWORD", "x")
    status, out, _ = command(monkeypatch, capsys, "login", "--user", "someone", *args)
    assert status == 0 and "note: environment comes first" in out
    status, out, _ = command(monkeypatch, capsys, "logout", *args)
    assert status == 0 and out == f"removed from netrc ({nowhere / '.netrc'}, machine data.example.org)\n"
    assert command(monkeypatch, capsys, "logout", *args)[:2] == (0, "nothing was stored\n")
    status, out, err = command(monkeypatch, capsys, "login", "--base-url", "http://u:Sesame1@h.org/")
    assert status == 3 and "Sesame1" not in out + err and err.count("\n") == 1
    assert issubclass(CredentialsInURL, CredentialsError)
