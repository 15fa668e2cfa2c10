"""Parts of a Hub dataset's files: the token goes to the Hub, the bytes come from where its signed URLs point."""

from __future__ import annotations

import re
import threading
import time
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from t4sa_data import places
from t4sa_data.downloading.replies import TRANSIENT, read_reply
from t4sa_data.downloading.site import MAX_REDIRECTS, Answer, Limits, Site
from t4sa_data.errors import InsecureTransport, ReleaseNotFound
from t4sa_data.loading.hub_errors import explain_hub_errors
from t4sa_data.origins import origin_of
from t4sa_data.reading import transport
from t4sa_data.reading.transport import Fault, RemoteFile, range_headers, replaced, require_plain_path

_URL = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<folder>.*))?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OUTDATED = frozenset({400, 401, 403, 404, 410})
"""What stores answer to a signature that has expired."""


def parse_url(url: str) -> tuple[str, str, str]:
    """Repository, revision and folder of an `hf://` URL.

    >>> parse_url("hf://datasets/o/n@refs%2Fpr%2F1/t4sa/")
    ('o/n', 'refs/pr/1', 't4sa')

    Raises:
        ReleaseNotFound: not of this form.
    """
    if (match := _URL.fullmatch(url)) is None:
        raise ReleaseNotFound("not a dataset on the Hub", expected="hf://datasets/OWNER/NAME[@REVISION]", got=url)
    return match["repo"], unquote(match["revision"] or "") or places.revision(), (match["folder"] or "").strip("/")


class HubTransport:
    """A dataset repository at one commit.

    Args:
        url: see `parse_url`; its revision is resolved to a commit when it is first needed.
        token: the user's; None: as logged in.
        limits: patience; None: `transport.READING`.
    """

    def __init__(self, url: str, token: bool | str | None = None, limits: Limits | None = None) -> None:
        from huggingface_hub import constants

        self._repo_id, self._revision, self._folder = parse_url(url)
        self._token, self.limits = token, limits or transport.READING
        self._endpoint = origin_of(constants.ENDPOINT)
        # Asked for nothing with credentials: the one header with the token is added in `_ask`.
        self._site = Site(constants.ENDPOINT, limits=self.limits, takes_credentials=False, keep_alive=True)
        self._locations: dict[str, str] = {}
        self._commit: str | None = None
        self._asking = threading.Lock()

    @property
    def where(self) -> str:
        """The folder at the commit, once that is known."""
        folder = f"/{self._folder}" if self._folder else ""
        return f"hf://datasets/{self._repo_id}@{self._commit or self._revision}{folder}"

    def url(self, path: str) -> str:
        """See `Transport`: an `hf://` URL."""
        return f"hf://datasets/{self._repo_id}@{self._commit or self._revision}/{self._in_repository(path)}"

    def _in_repository(self, path: str) -> str:
        joined = require_plain_path(f"{self._folder}/{path}" if self._folder else path, self._repo_id)
        if joined.startswith("../"):
            raise ReleaseNotFound("an in-place release whose archive is not in its repository", where=self.where)
        return joined

    def open(self, file: RemoteFile, start: int, stop: int | None, validator: str | None) -> Answer:
        """See `Transport`. A signed URL is used until the store refuses it."""
        location = self._locations.get(file.path) or self._locate(file)
        answer = self._ask(location, range_headers(start, stop, validator))
        status = answer.reply.status
        if status not in (200, 206):
            with answer:
                pass
            with self._asking:
                if self._locations.get(file.path) == location:
                    del self._locations[file.path]
            if status in _OUTDATED:
                raise Fault(f"HTTP {status} for a signed URL", 0.0)
            if status != 416:
                raise Fault(f"HTTP {status}", answer.reply.retry_after if status in TRANSIENT else None)
        return answer

    def _locate(self, file: RemoteFile) -> str:
        """Ask the Hub where a file's bytes are; the first answer fixes the commit.

        Raises:
            HubError: the Hub does not give the file.
            Fault: it is overloaded.
        """
        with self._asking:
            if (known := self._locations.get(file.path)) is not None:
                return known
            found = self._metadata(self._in_repository(file.path))
            self._commit = self._commit or found.commit_hash
            if _SHA256.fullmatch(found.etag or "") and file.sha256 and found.etag != file.sha256:
                raise replaced(file, self.where, file.sha256, found.etag)
            self._locations[file.path] = found.location
            return str(found.location)

    def _metadata(self, path: str) -> Any:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError

        revision = self._commit or self._revision
        url = hf_hub_url(self._repo_id, path, repo_type="dataset", revision=revision)
        with explain_hub_errors(self._repo_id, revision):
            try:
                return get_hf_file_metadata(url, token=self._token, timeout=self.limits.connect_seconds)
            except HfHubHTTPError as error:
                if error.response is None or error.response.status_code not in TRANSIENT:
                    raise
                reply = read_reply(error.response.status_code, error.response.headers, time.time())
            raise Fault(f"the Hub answers HTTP {reply.status}", reply.retry_after)

    def _ask(self, location: str, headers: dict[str, str]) -> Answer:
        """Follow redirects; the token goes to the Hub's own origin only."""
        for _ in range(MAX_REDIRECTS + 1):
            response = self._site.ask("GET", location, {**headers, **self._authorization(location)})
            if response.status_code not in (301, 302, 303, 307, 308) or "Location" not in response.headers:
                return self._site.answer(response, time.time())
            response.close()
            target = urljoin(location, response.headers["Location"])
            if urlsplit(location).scheme == "https" and urlsplit(target).scheme != "https":
                raise InsecureTransport("the Hub sends us from https to plain http", where=origin_of(location))
            location = target
        raise Fault("redirected again and again")

    def _authorization(self, location: str) -> dict[str, str]:
        if origin_of(location) != self._endpoint:
            return {}
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        made = build_hf_headers(token=self._token)
        return {name: value for name, value in made.items() if name.lower() == "authorization"}

    def close(self) -> None:
        """See `Transport`."""
        self._site.close()
