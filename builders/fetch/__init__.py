"""Images by URL, at scale, politely and safely: see `builders.fetch.stage`."""

from builders.fetch.config import FetchConfig
from builders.fetch.reasons import TRANSIENT
from builders.fetch.stage import FETCHED, Fetched, fetch
from t4sa_data.errors import FetchIncomplete

__all__ = ["FETCHED", "TRANSIENT", "FetchConfig", "FetchIncomplete", "Fetched", "fetch"]
