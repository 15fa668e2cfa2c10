"""Recorded requests of the real client, and how to ask for them again."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.hub_double.server import WritableHub

CAPTURED = Path(__file__).parents[3] / "shared" / "research" / "hub_captured.txt"
"""Beside the repository; most checkouts have none."""


@dataclass
class Captured:
    """A recorded request: its body as far as it was kept, and headers of its answer."""

    method: str
    path: str
    status: int
    authorised: bool
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def captured() -> list[Captured]:
    found: list[Captured] = []
    for line in CAPTURED.read_text().splitlines():
        if match := re.fullmatch(r"(\w+) (\S+)\s+-> (\d+)\s+\((\w+)\)", line):
            found.append(Captured(match[1], match[2], int(match[3]), match[4] == "auth"))
        elif line.startswith("    > "):
            found[-1].body += line[6:] + "\n"
        elif line.startswith("    < "):
            found[-1].headers = json.loads(line[6:])
    return found


def normal(text: str) -> str:
    """Without what differs from one run to the next."""
    text = re.sub("[0-9a-f]{64}", "<sha256>", text)
    text = re.sub(r"repo=[^&]*&", "", re.sub(r"(?i)(sig(?:nature)?)=[0-9a-f]{32}", r"\1=<sig>", text))
    return re.sub(r"Expires=\d+", "Expires=0", re.sub("[0-9a-f]{40}", "<sha1>", text))


def replay(hub: WritableHub) -> list[tuple[Captured, int, dict[str, str]]]:
    """Ask for all that was recorded; what was recorded, the status now, the headers now."""
    tar = b"x" * 2000
    digest, token, link, answers = hashlib.sha256(tar).hexdigest(), "hf_alice", "", []
    bodies = {"PUT /_storage": tar}
    for line in captured():
        body = line.body.replace("<sha256>", digest).rstrip("\n").encode()
        if line.method == "PUT" and "/_storage/" in line.path:
            body = bodies["PUT /_storage"]
        elif "/preupload/" in line.path:
            sample = json.dumps("eHh4" * 100)
            body = f'{{"files": [{{"path": "data/train-00000.tar", "sample": {sample}, "size": 2000}}]}}'.encode()
        is_placed = "<" in line.path
        token = "hf_bob" if line.status == 403 else "hf_alice"
        url = urlsplit(link if is_placed and link.startswith("http") else hub.url + (link if is_placed else line.path))
        connection = http.client.HTTPConnection(url.netloc, timeout=20)
        headers = {"Authorization": f"Bearer {token}"} if line.authorised else {}
        if "/paths-info/" in line.path:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(line.method, f"{url.path}?{url.query}" if url.query else url.path, body or None, headers)
        answer = connection.getresponse()
        got, said = dict(answer.getheaders()), answer.read()
        connection.close()
        if "/objects/batch" in line.path:
            link = json.loads(said)["objects"][0]["actions"]["upload"]["href"]
        link = got.get("Location", link)
        answers.append((line, answer.status, got))
    return answers


def ask(url: str, method: str = "GET", value: object = None, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    """One request without a client library."""
    split = urlsplit(url)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = None if value is None else json.dumps(value)
    with closing(http.client.HTTPConnection(split.netloc, timeout=20)) as connection:
        connection.request(method, f"{split.path}?{split.query}", body, named)
        with closing(connection.getresponse()) as answer:
            return answer, answer.read()
