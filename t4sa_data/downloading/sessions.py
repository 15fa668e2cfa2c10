"""Connections that are used again, and that can all be ended at once."""

from __future__ import annotations

import socket
import threading
import weakref
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter

MAX_IDLE = 32
"""Connections of one origin that are kept for later."""


def plain_session() -> requests.Session:
    """A session that takes nothing from the environment.

    Without this requests takes ~/.netrc for every host, in place of what it was given. Proxies and certificates, which
    it would take from the environment too, are handed over by hand.
    """
    session = requests.Session()
    session.trust_env = False
    return session


class LastingSession:
    """One session for several threads: connections are kept, cookies are not. Close it."""

    def __init__(self) -> None:
        self._adapter = _Adapter()
        self.session = plain_session()
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, self._adapter)

    def close(self) -> None:
        """End every connection: a read, or a wait for an answer, in another thread ends at once."""
        self._adapter.shut()
        self.session.close()


class _Adapter(HTTPAdapter):
    """Knows its connections (those through a proxy excepted, which end by their timeout)."""

    def __init__(self) -> None:
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._is_shut = False
        super().__init__(pool_connections=MAX_IDLE, pool_maxsize=MAX_IDLE)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        pools = self.poolmanager.pool_classes_by_scheme
        self.poolmanager.pool_classes_by_scheme = {scheme: self._pool_factory(kind) for scheme, kind in pools.items()}

    def _pool_factory(self, kind: Any) -> Callable[..., Any]:
        adapter = self

        class Connection(kind.ConnectionCls):  # type: ignore[misc]
            def connect(self) -> None:
                super().connect()
                adapter._add(self)

        class Pool(kind):  # type: ignore[misc]
            ConnectionCls = Connection

        return Pool

    def _add(self, connection: Any) -> None:
        with self._lock:
            self._connections.add(connection)
            if self._is_shut:
                _shut(connection)

    def shut(self) -> None:
        with self._lock:
            self._is_shut = True
            for connection in list(self._connections):
                _shut(connection)


def _shut(connection: Any) -> None:
    sock = connection.sock
    try:
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has ended already
        pass
