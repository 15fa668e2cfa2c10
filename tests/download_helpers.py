"""What the tests of downloads share: files of every kind, patience that is short, and a look for secrets."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from t4sa_data import downloading
from t4sa_data.downloading import Downloaded, Limits
from t4sa_data.shards.tar import END_MARK, padded, ustar_header

from tests.site_double import OfficialSite  # isort: skip

TAR, TSV, CSV, GZIP = "b-t4sa_imgs.tar", "t4sa_text_sentiment.tsv", "raw_tweets_text.csv", "hybrid_finetuned_all.tar.gz"
PACKAGES = {"b-t4sa": TAR, "text-sentiment": TSV, "raw-text": CSV, "hybrid-ft-a": GZIP}
USER, PASSWORD = "a-user", 'p@ss/w"ö rd+%41\\'
OVERLAP_BYTES = 1000
ROOT = Path(__file__).parents[1]

# What waits is short; what a slow machine must not hit is long.
QUICK = Limits(
    connect_seconds=20,
    stall_seconds=20,
    attempts=5,
    progress_bytes=2000,
    backoff_seconds=0.001,
    max_backoff_seconds=0.01,
    max_wait_seconds=5,
    checkpoint_bytes=40_000,
    overlap_bytes=OVERLAP_BYTES,
    spare_bytes=0,
)


def make_files(seed: int, num_bytes: int = 100_000) -> dict[str, bytes]:
    """Every file of `PACKAGES`; another seed, other bytes of the same sizes, but for the compressed one."""
    rng = random.Random(seed)
    tar = b"".join(
        ustar_header(f"data/{name}.jpg", size) + rng.randbytes(size) + bytes(padded(size) - size)
        for name, size in ((number, num_bytes // 10) for number in range(10))
    )
    rows = [f"{rng.randrange(10**17, 10**18)}\t0.1\t0.2\t0.7\n" for _ in range(num_bytes // 64)]
    texts = [f'"{rng.randrange(10**17, 10**18)}","tweet, {rng.randrange(10**8, 10**9)}"\n' for _ in range(500)]
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        info = tarfile.TarInfo("snapshot_iter_1.caffemodel")
        info.size = num_bytes // 2
        archive.addfile(info, io.BytesIO(rng.randbytes(info.size)))
    return {
        TAR: tar + END_MARK,
        TSV: ("TWID\tNEG\tNEU\tPOS\n" + "".join(rows)).encode(),
        CSV: ("id,text\n" + "".join(texts)).encode(),
        GZIP: gzip.compress(inner.getvalue(), 1, mtime=0),
    }


FILES, NEXT_FILES = make_files(1), make_files(2)


def make_site(**choices: Any) -> OfficialSite:
    """A site with both versions of every file, and a password that does not look like one."""
    given = {"files": dict(FILES), "next_files": dict(NEXT_FILES), "user": USER, "password": PASSWORD, **choices}
    return OfficialSite(**given)


def bring(site: OfficialSite, to: Path, *packages: str, **choices: Any) -> list[Downloaded]:
    """Download from the double."""
    given = {"base_url": site.url, "auth": (site.user, site.password), "limits": QUICK, **choices}
    return downloading.download(packages or ("b-t4sa",), to, **given)


def left(to: Path) -> set[str]:
    """Names of the files below a folder, without the lock and the record."""
    names = {path.name for path in to.rglob("*") if path.is_file()} if to.exists() else set()
    return names - {downloading.LOCK_NAME, "checksums.json"}


def assert_no_wrong_file(site: OfficialSite, to: Path) -> None:
    """Whatever has its final name is one of the site's versions of it, byte for byte."""
    for name in PACKAGES.values():
        if (to / name).exists():
            assert (to / name).read_bytes() in (site.files.get(name), site.next_files.get(name)), name


def forms_of(user: str, password: str) -> list[bytes]:
    """How a password may show up where it must not: plain, URL-quoted, base64."""
    basic = base64.b64encode(f"{user}:{password}".encode())
    # Base64 of the password alone, at each of the three offsets it may have in something longer.
    inside = {base64.b64encode(b"x" * pad + password.encode())[4 if pad else 0 : -4] for pad in range(3)}
    plain = {password, quote(password), quote(password, safe=""), quote_plus(password), repr(password)[1:-1]}
    return sorted({*(form.encode() for form in plain), basic, *inside})


def assert_no_secret(site: OfficialSite, *written: str | bytes | Path) -> None:
    """None of these texts, nor any file below these folders, holds the password; nor was it sent elsewhere."""
    assert not site.leaked()
    texts = []
    for one in written:
        if isinstance(one, Path):
            texts += [path.read_bytes() for path in one.rglob("*") if path.is_file()]
            texts += [str(path).encode() for path in one.rglob("*")]
        else:
            texts.append(one if isinstance(one, bytes) else one.encode())
    for form in forms_of(site.user, site.password):
        assert len(form) > 5
        assert not any(form in text for text in texts), "the password was written or printed"


CLIENT = """
import json, logging, resource, signal, sys
from dataclasses import replace
from t4sa_data import downloading
from t4sa_data.errors import T4SAError
choices = json.loads(sys.argv[1])
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
if choices.get("file_bytes"):  # as a full disk: a write behind this byte fails
    resource.setrlimit(resource.RLIMIT_FSIZE, (choices["file_bytes"],) * 2)
try:
    downloading.download(
        choices["packages"], choices["to"], base_url=choices["url"], interactive=False,
        limits=downloading.Limits(**choices["limits"]), say=lambda line: print(line, flush=True),
    )
except T4SAError as error:
    sys.exit(f"named: {type(error).__name__}: {error}")
"""
"""A download in a process of its own; user name and password come by the environment."""


def start_client(site: OfficialSite, to: Path, *packages: str, **choices: Any) -> subprocess.Popen[bytes]:
    """Start a download in another process; its output comes by pipes."""
    given = {"packages": packages or ("b-t4sa",), "to": str(to), "url": site.url, "limits": asdict(QUICK), **choices}
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", CLIENT, json.dumps(given)],
        cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT), "T4SA_USER": site.user, "T4SA_PASSWORD": site.password},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
