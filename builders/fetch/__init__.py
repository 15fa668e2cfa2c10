"""Images by URL, at scale, politely and safely: see `builders.fetch.stage`."""

from builders.fetch.config import FetchConfig
from builders.fetch.reasons import TRANSIENT
from builders.fetch.stage import FETCH_VERSION, FETCHED, Fetched, fetch
from t4sa_data.errors import FetchIncomplete

__all__ = ["FETCHED", "FETCH_VERSION", "TRANSIENT", "FetchConfig", "FetchIncomplete", "Fetched", "fetch"]
