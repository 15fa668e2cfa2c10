"""Who publishes a release: what a card says only of a copy that others can ask for."""

from __future__ import annotations

from dataclasses import dataclass

RESPONSE_DAYS = 30
"""Until a removal is answered, where nobody promised less: the month of GDPR, Art. 12 (3)."""


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """The maintainers of a published copy."""

    namespace: str | None = None
    """Account or organisation on the Hub; None: not told."""
    contact: str
    """Where people ask for a removal."""
    response_days: int = RESPONSE_DAYS
    """Days within which they get an answer."""
    previews: bool = False
    """Whether the Hub may show pictures on the dataset's page."""

    @property
    def address(self) -> str:
        """The contact in one line."""
        return " ".join(self.contact.split())
