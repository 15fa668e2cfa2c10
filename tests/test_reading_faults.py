"""Random scripts of faults between a source and its server: right bytes or a named error, never anything else."""

from __future__ import annotations

import hashlib
import random
import warnings
from pathlib import Path

import pytest

from t4sa_data.errors import T4SAError
from t4sa_data.manifest import load_manifest

from tests.reading_helpers import QUICK, files_below, open_source, ranges_of  # isort: skip
from tests.site_double import Fault, OfficialSite  # isort: skip

NUM_SCRIPTS, NUM_ALWAYS = 200, 10
# What a request may meet. `changed`: the release is replaced; `flip`: a byte is damaged on the server for good.
KINDS = (
    *("status", "reset", "drip", "stall", "length_long", "chunked", "torn", "gzip", "login", "login_lying"),
    *("redirect_same", "redirect_other", "changed", "weak", "no_validator", "date_only", "wrong_range"),
    *("range_ignored", "no_range_total", "unsatisfiable", "unasked_206", "multipart", "until_close", "none"),
)
FATAL = ("changed", "new_validator")
WRONG = ("lying_range", "changed_quietly")
"""Wrong bytes under right heads: only the images' own sha256 tells, which the loader checks."""


def a_fault(rng: random.Random, kinds: tuple[str, ...] = KINDS) -> Fault:
    kind = rng.choice(kinds)
    return Fault(
        kind,
        at=rng.randrange(20_000) if kind == "stall" or rng.random() < 0.4 else None,
        status=rng.choice([408, 429, 500, 502, 503, 504]),
        retry_after=rng.choice([None, "0", "Thu, 01 Jan 2015 00:00:00 GMT"]),
        seconds={"drip": 0.00001, "stall": 0.01}.get(kind, 0.0),
    )


@pytest.mark.parametrize(
    "number",
    [pytest.param(n, marks=[] if n < NUM_ALWAYS else [pytest.mark.slow]) for n in range(NUM_SCRIPTS)],
)
def test_right_bytes_or_a_named_error(releases: Path, tmp_path: Path, number: int) -> None:
    """At the source; every second script also through the loader, and there with bytes that are wrong."""
    rng = random.Random(number)
    folder = releases / "t4sa-wds"
    files = files_below(folder)
    ranges = ranges_of(folder)
    rng.shuffle(ranges)
    faults = [a_fault(rng) for _ in range(rng.randrange(1, 12))]
    may_change = any(fault.kind in FATAL for fault in faults)  # the server uses them up
    replaced = {name: bytes(255 - byte for byte in data) for name, data in files.items()}
    site = OfficialSite(dict(files), next_files=dict(replaced), faults=faults, password=f"secret-{number}")
    with site, pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        patch.setenv("T4SA_USER", site.user)
        patch.setenv("T4SA_PASSWORD", site.password)
        limit = rng.choice([None, 100_000, 40_000])
        source = open_source(site.url, folder, tmp_path, keeps=rng.random() < 0.7, limit=limit)
        said, num_right = "", 0
        try:
            source.announce([wanted for wanted, _ in ranges])
            for wanted, sha256 in ranges:
                data = source.read(wanted)
                if may_change and data == replaced_part(replaced, wanted):
                    continue  # its first request came after the change: the images' own sha256 tells the loader
                assert hashlib.sha256(data).hexdigest() == sha256
                num_right += 1
        except T4SAError as error:
            said = str(error)
        finally:
            source.close()
        assert said or num_right or may_change
        assert not site.leaked()
        assert site.password not in said
        assert_cache_is_right(tmp_path, folder)


@pytest.mark.parametrize(
    "number",
    [pytest.param(n, marks=[] if n < NUM_ALWAYS else [pytest.mark.slow]) for n in range(1, NUM_SCRIPTS, 2)],
)
def test_right_batches_or_a_named_error(releases: Path, tmp_path: Path, number: int) -> None:
    """Damaged, swapped and misplaced bytes too: what is checked is what a training would see."""
    torch = pytest.importorskip("torch")
    from t4sa_data import stream
    from t4sa_data.reading import transport

    rng = random.Random(number)
    files = files_below(releases / "t4sa-wds")
    damaged = {name: damage(data, rng) for name, data in files.items()}
    site = OfficialSite(files, next_files=damaged, password=f"secret-{number}")
    options = {"batch_size": 8, "size": 16, "workers": 2, "seed": number, "shuffle": rng.choice(["full", "block"])}
    whole = [(batch["key"], batch["image"]) for batch in stream(releases / "t4sa-wds", **options)]
    with site, pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        patch.setenv("T4SA_USER", site.user)
        patch.setenv("T4SA_PASSWORD", site.password)
        patch.setattr(transport, "READING", QUICK)
        limit = rng.choice([None, 100_000, 40_000])
        loader = stream(site.url, cache=tmp_path, cache_bytes=limit, **options)
        site.faults += [a_fault(rng, (*KINDS, *WRONG * 3)) for _ in range(rng.randrange(1, 12))]
        said, taken = "", []
        try:
            for batch in loader:
                taken.append((batch["key"], batch["image"]))
        except T4SAError as error:
            said = str(error)
        assert said or len(taken) == len(whole)
        for (keys, images), (right, pixels) in zip(taken, whole, strict=False):
            assert keys == right and torch.equal(images, pixels)
        assert not site.leaked()
        assert site.password not in said + repr(loader)
        assert_cache_is_right(tmp_path, releases / "t4sa-wds")


def damage(data: bytes, rng: random.Random) -> bytes:
    """The same number of bytes, some thirty of them flipped."""
    made = bytearray(data)
    for _ in range(min(30, len(made))):
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


def replaced_part(files: dict[str, bytes], wanted: tuple[str, int, int]) -> bytes:
    name, offset, length = wanted
    return files[name][offset : offset + length]


def assert_cache_is_right(cache: Path, folder: Path) -> None:
    """What has its final name is a shard of the release, byte for byte."""
    known = {f"{file.sha256}-{file.bytes}" for file in load_manifest(folder).files}
    for path in (cache / "shards").glob("*"):
        if ".part" not in path.name:
            assert path.name in known
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name[:64]
