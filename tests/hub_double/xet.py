"""Xet without a store of its own: the real client writes chunks and indexes into a folder (`local://`).

An undocumented switch of hf_xet; a test that needs it asks `works()` first. Like the Hub's own store it keeps one copy
of equal chunks, whatever repository they are of, and forgets nothing when a repository's file is deleted.

Layout of an index (shard): a header of 48 bytes, then per file a header of 48, an entry of 48 per segment, as many
again when bit 31 of the flags is set, and 48 with the sha256 when bit 30 is; a name of 32 bytes of ones ends the files.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from tests.hub_double.calls import Answer, Call, Refused, as_json
from tests.hub_double.state import Repo, State, Stored

LIFETIME = 3600
"""Seconds that a token for the store is good for."""


PUT = """
import sys, hf_xet
store, path = sys.argv[1:]
with hf_xet.XetSession().new_upload_commit(endpoint=store) as commit:
    handle = commit.start_upload_file(path, sha256=hf_xet.COMPUTE_SHA256)
print(handle.result().xet_info.hash)
"""

GET = """
import sys, hf_xet
store, path, name, size = sys.argv[1:]
with hf_xet.XetSession().new_file_download_group(endpoint=store) as group:
    group.start_download_file(hf_xet.XetFileInfo(name, int(size)), path)
"""


def _run(script: str, *arguments: str, home: str) -> str:
    """In a process of its own: the library keeps a log in its home."""
    asked = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(asked, env={**os.environ, "HF_HOME": home}, capture_output=True, timeout=60, check=True)
    return done.stdout.decode().strip()


@cache
def works() -> bool:
    """Whether the client here can speak to a store in a folder: a file goes in and comes out."""
    with tempfile.TemporaryDirectory() as folder:
        store, before, after = f"local://{folder}/cas", Path(folder) / "before", Path(folder) / "after"
        before.write_bytes(b"probe" * 100)
        try:
            name = _run(PUT, store, str(before), home=folder)
            _run(GET, store, str(after), name, "500", home=folder)
        except subprocess.SubprocessError:
            return False
        return after.exists() and after.read_bytes() == before.read_bytes()


def stored_bytes(state: State) -> int:
    """What the store holds: compressed chunks, each once."""
    if state.cas is None:
        return 0
    chunks = state.cas.glob("**/xorbs/xorbs/*")
    return sum(file.stat().st_size for file in chunks if file.suffix != ".tagset")


def cas_url(state: State) -> str:
    return f"local://{state.cas}"


def headers(state: State, repo: str, oid: str, name: str) -> dict[str, str]:
    """What a large file's redirect says beside the URL: its name in the store and where tokens are given out."""
    token = f'<{state.url}/api/{repo}/xet-read-token/{oid}>; rel="xet-auth"'
    plan = f'<{cas_url(state)}/v1/reconstructions/{name}>; rel="xet-reconstruction-info"'
    return {"X-Xet-Hash": name, "Link": f"{token}, {plan}"}


def token(state: State, call: Call, kind: str, name: str, right: str, revision: str | None = None) -> Answer:
    from tests.hub_double.routes_repo import find

    if state.cas is None:
        raise Refused(404, None, "Xet is not enabled")
    find(state, call, kind, name, write=right == "write", content=right == "read")
    expires, said = int(time.time()) + LIFETIME, f"xet_{right}_{len(name)}"
    answer = as_json({"accessToken": said, "exp": expires, "casUrl": cas_url(state)})
    answer.headers.update(
        {"X-Xet-Cas-Url": cas_url(state), "X-Xet-Access-Token": said, "X-Xet-Token-Expiration": str(expires)}
    )
    return answer


def forget_client(state: State) -> None:
    """Drop what the client keeps beside the store of its own uploads: the next one comes from another machine."""
    for folder in list((state.cas or state.folder).glob("**/shard-cache")):
        shutil.rmtree(folder)


def keep_index(state: State) -> None:
    """Copy the store's index of chunks, before a client is killed: here the client is the store, and breaks it."""
    for index in (state.cas or state.folder).glob("**/global_dedup_lookup.redb"):
        shutil.copy(index, state.folder / "index")


def restore_index(state: State) -> None:
    """Put the copy back. Chunks that came since are in the store, but are not found for reuse."""
    kept = state.folder / "index"
    for index in (state.cas or state.folder).glob("**/global_dedup_lookup.redb"):
        index.unlink()
        if kept.exists():
            shutil.copy(kept, index)
    kept.unlink(missing_ok=True)


def ingested(state: State, repo: Repo, oid: str) -> Stored | None:
    """A large file that the client has put into the store, by sha256; None: it is not there."""
    if state.cas is None:
        return None
    for index in sorted(state.cas.glob("**/shards/*.mdb")):  # what lies elsewhere is the client's, not yet sent
        for sha256, name, size in parse_index(index.read_bytes()):
            if sha256 == oid:
                return Stored(size=size, xet=name, pushed=repo.date())
    return None


def parse_index(data: bytes) -> list[tuple[str, str, int]]:
    """Files of an index: sha256, name in the store, bytes."""
    found, at = [], 48
    while at + 48 <= len(data):
        name, flags, segments, _ = struct.unpack("<32sIIQ", data[at : at + 48])
        at += 48
        if name == b"\xff" * 32:
            break
        entries = [struct.unpack("<32sIIII", data[at + 48 * i : at + 48 * i + 48]) for i in range(segments)]
        at += 48 * segments * (2 if flags & 1 << 31 else 1)
        if flags & 1 << 30:
            found.append((_hex(data[at : at + 32]), _hex(name), sum(entry[2] for entry in entries)))
            at += 48
    return found


def _hex(name: bytes) -> str:
    """Xet's way of writing a hash: four little-endian numbers of 64 bits."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", name))


def read(state: State, stored: Stored) -> bytes:
    """A large file's bytes, put together by the client's own library; kept for the next time."""
    path = state.folder / "read" / str(stored.xet)
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        home = str(state.folder / "home")
        _run(GET, cas_url(state), str(path), str(stored.xet), str(stored.size), home=home)
    return path.read_bytes()
