"""Doubles of the Hub on loopback, for its real clients.

`Hub` with `Repository` serves folders to readers and changes nothing (`reading.py`). `WritableHub` is written to as the
Hub is: repositories, gates, requests, uploads, commits, tags, squashing and deletion, with faults on request.
"""

from tests.hub_double.calls import Fault, Request
from tests.hub_double.reading import Hub, Repository
from tests.hub_double.server import WritableHub
from tests.hub_double.state import AccessRequest, Door, Moment, Repo

__all__ = ["AccessRequest", "Door", "Fault", "Hub", "Moment", "Repo", "Repository", "Request", "WritableHub"]
