"""What a release says of itself: README.md (a Hugging Face dataset card) and croissant.json.

Both are pure functions of the manifest and the catalog (and, where it is published, of its publisher): equal releases
have equal cards, and a number stands in a card only if the manifest counted it or the catalog has a source for it.
"""

from t4sa_data.card.jsonld import croissant
from t4sa_data.card.metadata import features_yaml, front_matter, shard_pattern
from t4sa_data.card.publisher import Publisher
from t4sa_data.card.text import readme

__all__ = ["Publisher", "croissant", "features_yaml", "front_matter", "readme", "shard_pattern"]
