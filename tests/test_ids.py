"""Names of tests are the same in every process: with an address in one, xdist's workers collect different tests."""

from __future__ import annotations

import re

import pytest


def test_no_name_of_a_test_holds_an_address(request: pytest.FixtureRequest) -> None:
    """Of all that were collected with this one."""
    names = [item.nodeid for item in request.session.items]
    assert not [name for name in names if re.search(r"\bat 0x[0-9a-f]+", name)]
