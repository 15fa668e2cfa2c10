"""An archive that passes by: cut, killed or whole, it leaves what `prepare` makes of the stored one, to the byte."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import passing
from builders.engine import Local
from builders.givingback import GivingBack
from builders.passing import run_pass
from builders.prepare import prepare, stands
from builders.run import PrepareConfig
from builders.sources.passed import PassedArchive, Wanted
from t4sa_data.catalog import OFFICIAL_LISTS, SPLITS
from t4sa_data.downloading.site import Limits, Site
from t4sa_data.errors import (
    ArchiveError,
    ConflictingRows,
    CredentialsRefused,
    DuplicateMember,
    InputMissing,
    ServerFault,
    SourceChanged,
    T4SAError,
    WrongContent,
)
from t4sa_data.manifest import load_manifest
from t4sa_data.reading.passing import PassingFile
from t4sa_data.shards import Forward, walk, walk_on
from t4sa_data.testing import OfficialArchive, make_official_archive
from t4sa_data.testing.archive import IMAGES_NAME, SENTIMENT_NAME, TEXT_NAME, member_name, write_tar

from tests.helpers_release import RELEASE_FOLDERS, assert_sound, differences, digests  # isort: skip
from tests.site_double import Fault, OfficialSite  # isort: skip

SMALL = "b-t4sa-256"
NUM_IMAGES = 66
QUICK = Limits(
    connect_seconds=5, stall_seconds=5, attempts=3, backoff_seconds=0.001, max_backoff_seconds=0.002, progress_bytes=1
)
PIECE_IMAGES = 7
WANTED = Wanted(small=True, originals=False)
SECRET = "pass word/%"


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> OfficialArchive:
    """The packages, the split lists at the archive's end."""
    return make_official_archive(tmp_path_factory.mktemp("official"), NUM_IMAGES, lists_inside=True)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "CHUNK_IMAGES", PIECE_IMAGES)


class Case:
    """A site with the archive, and a RAW that has the tables only."""

    def __init__(self, official: OfficialArchive, folder: Path, archive: bytes | None = None) -> None:
        self.raw, self.folder = folder / "raw", folder
        self.raw.mkdir()
        for name in (SENTIMENT_NAME, TEXT_NAME):
            (self.raw / name).write_bytes((official.folder / name).read_bytes())
        self.archive = (official.folder / IMAGES_NAME).read_bytes() if archive is None else archive
        self.site = OfficialSite({IMAGES_NAME: self.archive}, password=SECRET)
        self.passed = PassedArchive(self.raw / f"{IMAGES_NAME}.passed")
        self.said: list[str] = []

    def __enter__(self) -> Case:
        self.site.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.site.__exit__(*error)

    def let_pass(self, wanted: Wanted = WANTED, *, workers: int = 1, lists: dict[str, bytes] | None = None) -> None:
        site = Site(self.site.url, auth=("user", SECRET), limits=QUICK)
        with PassingFile(site, site.url(IMAGES_NAME)) as file, Local(workers) as engine:
            run_pass(file, self.passed, wanted, lists=lists or {}, engine=engine, say=self.said.append)

    def config(self, **choices: Any) -> PrepareConfig:
        made = {"raw": self.raw, "out": self.folder / "out", "configs": (SMALL,), "shard_bytes": 20_000}
        return PrepareConfig(**(made | choices))

    def build(self, **choices: Any) -> dict[str, str]:
        prepare(self.config(**choices))
        return digests(self.folder / "out", *RELEASE_FOLDERS)

    def archive_bytes_sent(self) -> int:
        return sum(request.num_bytes for request in self.site.requests())


@pytest.fixture
def case(official: OfficialArchive, tmp_path: Path) -> Iterator[Case]:
    with Case(official, tmp_path) as made:
        yield made


def of_stored(official: OfficialArchive, out: Path, **choices: Any) -> dict[str, str]:
    """What `prepare` makes of the stored archive."""
    prepare(PrepareConfig(raw=official.folder, out=out, shard_bytes=20_000, **choices))
    return digests(out, *RELEASE_FOLDERS)


NOT_ALIKE = ("manifest.json", "README.md", "croissant.json")
"""They say of the archive what nobody knows who never had it whole: its sha256."""


def assert_same_data(one: dict[str, str], other: dict[str, str]) -> None:
    assert one.keys() == other.keys()
    assert {name for name in one if one[name] != other[name]} <= {
        f"{folder}/{name}" for folder in RELEASE_FOLDERS for name in NOT_ALIKE
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_small_pictures_of_an_archive_that_was_never_stored(
    case: Case, official: OfficialArchive, tmp_path: Path, workers: int
) -> None:
    case.let_pass(workers=workers)
    assert case.archive_bytes_sent() <= len(case.archive) and not (case.raw / IMAGES_NAME).exists()
    assert len(case.passed.pieces()) == -(-NUM_IMAGES // PIECE_IMAGES), case.said
    waiting = list(case.passed.folder.glob("*.piece"))
    assert 0 < len(waiting) <= len(official.broken), "only pieces with a picture that does not decode are kept"
    found = case.build()
    expected = of_stored(official, tmp_path / "stored", configs=(SMALL,))
    assert_same_data(found, expected)
    one, other = (load_manifest(tmp_path / name / "t4sa-wds") for name in ("out", "stored"))
    assert one.content_digest == other.content_digest and one.files[0].name == other.files[0].name
    (told,) = [item for item in one.layers[SMALL].provenance["inputs"] if item["name"] == IMAGES_NAME]
    assert told["bytes"] == len(case.archive) and told["sha256"] is None and len(told["members_sha256"]) == 64
    assert told["members_sha256"] in (tmp_path / "out/t4sa-wds/README.md").read_text()
    assert_sound(tmp_path / "out")


def test_originals_of_some_splits(case: Case, official: OfficialArchive, tmp_path: Path) -> None:
    """The lists stand at the end: they are looked for there before the images pass."""
    wanted = Wanted(small=True, originals=True, splits=("test", "validation"))
    case.let_pass(wanted)
    choices = {"configs": ("b-t4sa", SMALL), "splits": ("test", "validation")}
    num_test = sum(split != "train" for split in official.splits.values())
    assert sum(piece.note["num_kept"] for piece in case.passed.pieces()) == num_test < NUM_IMAGES
    assert_same_data(case.build(**choices), of_stored(official, tmp_path / "stored", **choices))
    assert_sound(tmp_path / "out")
    with pytest.raises(InputMissing, match=r"expected splits train, got splits test, validation"):
        prepare(case.config(splits=("train",), out=tmp_path / "other"))


def in_order(official: OfficialArchive, where: str) -> dict[str, bytes]:
    """Members of the archive, the lists at its front, in its middle, or without some."""
    images = {member_name(key): official.images[key] for key in sorted(official.images)}
    lines: dict[str, bytes] = dict.fromkeys(SPLITS, b"")
    for key, split in official.splits.items():
        lines[split] += f"{member_name(key)} {official.labels[key]}\n".encode()
    lists = {f"lists/{OFFICIAL_LISTS[split]}": data for split, data in lines.items()}
    half = dict(itertools.islice(images.items(), 30))
    return {"front": lists | images, "middle": half | lists | images, "back": images | lists, "none": images}[where]


def tar_of(members: dict[str, bytes], folder: Path) -> bytes:
    write_tar(folder / "made.tar", members)
    return (folder / "made.tar").read_bytes()


@pytest.mark.parametrize("where", ["front", "back"])
def test_lists_at_either_end(official: OfficialArchive, tmp_path: Path, where: str) -> None:
    with Case(official, tmp_path, tar_of(in_order(official, where), tmp_path)) as case:
        case.let_pass(Wanted(small=False, originals=True, splits=("test",)))
        found = case.build(configs=("b-t4sa",), splits=("test",), formats=("wds",))
        assert any("b-t4sa/test-" in name for name in found)
        assert_sound(tmp_path / "out")


def test_lists_far_from_both_ends_or_nowhere(
    official: OfficialArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "LOOK_BYTES", 4096)
    members = in_order(official, "middle")
    with Case(official, tmp_path, tar_of(members, tmp_path)) as case:
        wanted = Wanted(small=True, originals=False, splits=("test",))
        with pytest.raises(InputMissing, match=r"b-t4sa_test\.txt.*leave out --split"):
            case.let_pass(wanted)
        data = members[f"lists/{OFFICIAL_LISTS['test']}"]
        case.let_pass(wanted, lists={OFFICIAL_LISTS["test"]: data})
        case.build(splits=("test",))
        assert_sound(tmp_path / "out")


@pytest.fixture(scope="module")
def undisturbed(official: OfficialArchive, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The release of a pass that nothing happened to."""
    with Case(official, tmp_path_factory.mktemp("undisturbed")) as case:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(passing, "CHUNK_IMAGES", PIECE_IMAGES)
            case.let_pass()
        return case.build()


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(at=20_000), Fault(at=30_000), Fault("reset"), Fault(at=9_000), Fault("wrong_range")],
        [
            Fault("status", method="HEAD"),
            Fault(at=1),
            Fault(at=511),
            Fault("chunked", at=50_000),
            Fault("torn", at=700),
        ],
        [Fault("date_only", method="HEAD"), Fault("date_only", at=9_000), Fault("date_only")],
    ],
)
def test_cuts_in_one_run(case: Case, undisturbed: dict[str, str], faults: list[Fault]) -> None:
    case.site.faults = list(faults)
    case.let_pass()
    assert case.site.faults == []
    assert differences(case.build(), undisturbed) == []


def test_given_up_again_and_again(case: Case, undisturbed: dict[str, str]) -> None:
    """Each run brings some of it, and goes on behind the last whole member that came."""
    runs, asked = 0, []
    while not case.passed.is_done:
        runs += 1
        case.site.faults = [Fault(at=60_000), *[Fault("status")] * 3]
        seen = len(case.site.log)
        try:
            case.let_pass()
        except ServerFault as error:
            assert "gave up after 3" in str(error)
        asked.append(next(r.range for r in case.site.log[seen:] if r.method == "GET" and r.status in (200, 206)))
    assert runs > 2 and not any("starting over" in line for line in case.said)
    members = [member.end for member in walk_on_bytes(case.archive)]
    starts = [int(one.removeprefix("bytes=").split("-")[0]) for one in asked[1:]]
    came = 0
    for start in starts:
        came += 60_000
        assert start in members and start == max(end for end in members if end <= came), "the last whole member"
        came = start
    assert differences(case.build(), undisturbed) == []


def walk_on_bytes(archive: bytes) -> list[Any]:
    return list(walk_on(Forward(iter([archive]), 0), "archive", len(archive)))


def test_the_file_is_replaced(case: Case, undisturbed: dict[str, str]) -> None:
    case.site.faults = [Fault(at=60_000), *[Fault("status")] * 3]
    with pytest.raises(ServerFault):
        case.let_pass()
    case.site.change(IMAGES_NAME, same_bytes=True)
    case.let_pass()
    assert any("starting over, its version is another" in line for line in case.said)
    assert differences(case.build(), undisturbed) == []
    case.passed.begin(case.passed.head)
    case.site.faults = [Fault(at=60_000), Fault("new_validator")]
    with pytest.raises(SourceChanged, match="replaced on the site"):
        case.let_pass()


def test_a_site_that_names_no_version(case: Case, undisturbed: dict[str, str]) -> None:
    nameless = [Fault("no_validator", method="HEAD")]
    case.site.faults = [*nameless, Fault("no_validator", at=60_000)]
    with pytest.raises(ServerFault, match=r"names no version.*t4sa download"):
        case.let_pass()
    case.site.faults = [*nameless, Fault("no_validator")]
    case.let_pass()
    assert any("starting over, the site names no version" in line for line in case.said)
    assert differences(case.build(), undisturbed) == []


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (Fault("login", method="HEAD"), WrongContent, "web page"),
        (Fault("chunked", method="HEAD"), WrongContent, "how long"),
        (Fault("range_ignored"), None, ""),
    ],
)
def test_answers_that_are_no_archive(case: Case, fault: Fault, error: type[T4SAError] | None, says: str) -> None:
    case.site.faults = [fault]
    if error is None:
        case.let_pass()
        return
    with pytest.raises(error, match=says):
        case.let_pass()
    assert not case.passed.folder.exists()


def test_wrong_password(case: Case) -> None:
    site = Site(case.site.url, auth=("user", "wrong"), limits=QUICK)
    with pytest.raises(CredentialsRefused):
        PassingFile(site, site.url(IMAGES_NAME))


def test_damaged_archives(official: OfficialArchive, tmp_path: Path) -> None:
    archive = (official.folder / IMAGES_NAME).read_bytes()
    members = walk_on_bytes(archive)
    at = members[20].header_offset
    images = in_order(official, "back")
    twice = {**images, "./" + next(iter(images)): b"again"}
    damaged = {
        "not a tar header": archive[:at] + b"\xff" * 100 + archive[at + 100 :],
        "ends early": archive[: members[40].offset + 3],
        "a link|a symlink|climbs": archive[:at] + tar_of({"../x.jpg": b"1"}, tmp_path)[512:],
    }
    for number, (says, data) in enumerate(damaged.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Case(official, folder, data) as case:
            for _ in range(2):  # again, it ends alike
                with pytest.raises(ArchiveError, match=says):
                    case.let_pass()
            assert not case.passed.is_done
    folder = tmp_path / "twice"
    folder.mkdir()
    with Case(official, folder, tar_of(twice, tmp_path)) as case:
        case.let_pass()
        with pytest.raises(DuplicateMember):
            case.build()


def test_lists_that_are_twice_or_differ(official: OfficialArchive, tmp_path: Path) -> None:
    name = OFFICIAL_LISTS["test"]
    members = in_order(official, "back")
    (tmp_path / "a").mkdir()
    twice = tar_of({**members, f"again/{name}": b"x"}, tmp_path)
    with Case(official, tmp_path / "a", twice) as case, pytest.raises(DuplicateMember, match=r"list stands .* twice"):
        case.let_pass()
    (tmp_path / "b").mkdir()
    with Case(official, tmp_path / "b", tar_of(members, tmp_path)) as case:
        case.let_pass()
        (case.raw / name).write_bytes(b"data/76772/767724493873516544-1.jpg 2\n")
        with pytest.raises(ConflictingRows):
            case.build()


def test_bytes_are_given_back(case: Case) -> None:
    case.let_pass()
    first = case.build()
    assert stands(case.config())
    case.passed.clear()
    assert not [*case.passed.folder.glob("*.jpgs"), *case.passed.folder.glob("*.piece")]
    assert stands(case.config()) and case.build() == first
    asked = len(case.site.log)
    assert not stands(case.config(formats=("wds",))) and asked == len(case.site.log)
    with pytest.raises(InputMissing, match="got nothing any more"):
        prepare(case.config(formats=("wds",)))
    case.let_pass()
    assert any("given back" in line for line in case.said)
    case.build(formats=("wds",))


def test_the_disk_holds_them_about_once(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in a shard is cut off where it waited."""
    case.let_pass()
    total = sum(path.stat().st_size for path in case.passed.folder.glob("*.jpgs"))
    left: list[int] = []
    real = GivingBack.done

    def done(self: GivingBack) -> None:
        real(self)
        left.append(sum(path.stat().st_size for path in case.passed.folder.glob("*.jpgs")))

    monkeypatch.setattr(GivingBack, "done", done)
    case.build(shard_bytes=total // 12)
    assert len(left) >= 12 and left[-1] == 0 and left == sorted(left, reverse=True)
    assert left[len(left) // 2] < 0.7 * total
    assert_sound(case.folder / "out")


@pytest.mark.parametrize("num_done", [0, 1, 4])
def test_killed_between_shards(
    case: Case, official: OfficialArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_done: int
) -> None:
    """With bytes given back already: the rest is there, the shards that are there are not asked for again."""
    choices = {"configs": ("b-t4sa", SMALL), "splits": ("train", "test")}
    case.let_pass(Wanted(small=True, originals=True, splits=("train", "test")))
    real, calls = GivingBack.done, itertools.count()

    def done(self: GivingBack) -> None:
        if next(calls) == num_done:
            raise KeyboardInterrupt
        real(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(GivingBack, "done", done)
        case.build(**choices)
    found = case.build(**choices)
    assert_same_data(found, of_stored(official, tmp_path / "stored", **choices))
    assert_sound(tmp_path / "out")
    next((tmp_path / "out/t4sa/b-t4sa-256").glob("train-*")).unlink()
    with pytest.raises(InputMissing, match=r"given back.*Remove .*\.passed and run"):
        case.build(**choices)


def test_other_choices_begin_anew(case: Case) -> None:
    case.let_pass()
    case.let_pass(replace(WANTED, originals=True))
    assert any("other splits or pictures" in line for line in case.said)
    case.build(configs=("b-t4sa", SMALL))


SCRIPT = """
import sys
from builders import passing
passing.CHUNK_IMAGES = int(sys.argv.pop(1))
from builders.get import app
app(sys.argv[1:])
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("num_kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_get_killed_at_any_moment(
    official: OfficialArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_kills: int
) -> None:
    """`t4sa get --configs b-t4sa-256`, killed while the archive passes and while it builds, and run again."""
    for name in ("NETRC", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    files = {name: (official.folder / name).read_bytes() for name in (IMAGES_NAME, SENTIMENT_NAME, TEXT_NAME)}
    with OfficialSite(files, password=SECRET) as site:
        env = {"HOME": str(tmp_path), "T4SA_USER": "user", "T4SA_PASSWORD": SECRET, "T4SA_BASE_URL": site.url}

        def start(home: Path) -> subprocess.Popen[str]:
            workers = "2" if num_kills > 1 else "1"
            command = [sys.executable, "-c", SCRIPT, "3", "--yes", "--workers", workers, "--configs", SMALL]
            where = {**os.environ, **env, "T4SA_HOME": str(home)}
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=where)

        def finish(home: Path) -> str:
            process = start(home)
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0 and SECRET not in output, output
            return output

        finish(tmp_path / "whole")
        expected = digests(tmp_path / "whole", *RELEASE_FOLDERS)
        site.piece_seconds = 0.02
        home, killed = tmp_path / "killed", 0
        for number in range(num_kills):
            process = start(home)
            folder = home / "raw" / f"{IMAGES_NAME}.passed"
            until = time.monotonic() + 60
            wanted = 1 + number * 20 // num_kills + 9 // num_kills  # pieces that are there when it dies
            while len(list(folder.glob("*.json"))) < wanted and process.poll() is None and time.monotonic() < until:
                time.sleep(0.003)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
        assert killed == num_kills
        site.piece_seconds = 0.0
        output = finish(home)
        assert differences(digests(home, *RELEASE_FOLDERS), expected) == []
        assert not (home / "raw" / IMAGES_NAME).exists() and not list(folder.glob("*.jpgs"))
        assert_sound(home)
        assert f"t4sa get --configs {SMALL} --formats wds" in output and "pass by" in output
        asked = len(site.log)
        assert "Nothing to do" in finish(home) and len(site.log) == asked
        assert site.leaked() == []


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_stream_is_walked_as_the_file_is(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("walked")
    names = data.draw(st.lists(st.text("ab/c.", min_size=1, max_size=20), max_size=8, unique=True))
    members = {name: bytes(data.draw(st.integers(0, 1500))) for name in names}
    archive = tar_of(members, folder)
    expected = list(walk(folder / "made.tar"))
    begin = data.draw(st.integers(0, len(expected)))
    last = expected[begin - 1] if begin else None
    start = last.end if last else 0
    sizes = data.draw(st.lists(st.integers(1, 900), min_size=1, max_size=5))
    cuts = list(itertools.accumulate(itertools.islice(itertools.cycle(sizes), len(archive)), initial=start))
    pieces = (archive[a:b] for a, b in itertools.pairwise(cuts) if a < len(archive))
    stream = Forward(pieces, start)
    found = []
    for member in walk_on(stream, "x", len(archive), last):
        if data.draw(st.booleans()):
            stream.seek(member.offset)
            assert stream.read(member.length) == archive[member.offset : member.offset + member.length]
        found.append(member)
    assert found == expected[begin:]


def test_the_head_says_what_passes(case: Case) -> None:
    case.let_pass()
    head = json.loads((case.passed.folder / "head.json").read_text())
    assert head["num_bytes"] == len(case.archive) and head["wanted"]["splits"] == list(SPLITS)
    assert SECRET not in "".join(path.read_text() for path in case.passed.folder.glob("*.json"))
