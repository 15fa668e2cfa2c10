"""What a card says of how T4SA came about, and how far its labels can be trusted: the catalog's facts, no more."""

from __future__ import annotations

from t4sa_data import catalog
from t4sa_data.card.collection import collection
from t4sa_data.card.markup import LEGEND, source, statement
from t4sa_data.manifest import Manifest
from t4sa_data.schema import PROBABILITIES


def making(manifest: Manifest) -> list[str]:
    """Collection, labels, near-duplicates, splits."""
    facts, balanced = catalog.COLLECTION, catalog.PUBLISHED["balanced"]
    start, end = facts["period"].value
    rules = "\n".join(f"  - {rule}" for rule in catalog.COLLECTION_RULES)
    columns = ", ".join(f"`{name}`" for name in PROBABILITIES)
    tweets, images = facts["tweets"].value, facts["images"].value
    has_inputs = any(layer.provenance.get("inputs") for layer in manifest.layers.values())
    return [
        "\n".join(
            [
                statement(f"Collected from {start} to {end}", facts["period"]),
                statement(f"Source: {facts['api'].value}", facts["api"]),
                statement(f"Tweets and images collected: {tweets:,} and {images:,}", facts["tweets"]),
                statement("Rules of the collection", facts["rules"]),
                rules,
                statement(
                    f"Labeller: {facts['labeller'].value}, on the text; its probabilities are {columns}",
                    facts["labeller"],
                ),
                statement(
                    f"Cut on the labeller's confidence: {facts['confidence_cut'].value}", facts["confidence_cut"]
                ),
                statement("How near-duplicate images were found", facts["near_duplicates"]),
                f"- B-T4SA: {balanced.note} ({balanced.certainty}; {source(balanced.source)})",
                statement("Splits of B-T4SA", catalog.SPLIT_CERTAINTY),
                statement("Whether a tweet's images share a split", facts["split_by_tweet"]),
            ]
        ),
        ("This copy was made from the files that stand under Provenance; r" if has_inputs else "R")
        + "ows stand in a seeded order, so that every shard is a fair sample. "
        + LEGEND,
        *collection(manifest),
    ]


def limits() -> list[str]:
    """Label noise and biases."""
    noise = catalog.LABEL_NOISE
    again = ", ".join(f"{count:,} {name}" for name, count in noise["relabelled"].value.items())
    changed, retweets, gone = noise["negative_changed"], catalog.CONTRADICTIONS["retweets"], catalog.TWEETS_GONE
    return [
        "\n".join(
            [
                statement(f"What a label is: {noise['kind'].value}", noise["kind"]),
                statement(f"Another labeller gave about {again}", noise["relabelled"]),
                statement(f"Labels of the negative class that changed with it: {changed.value:.0%}", changed),
                statement(f"Texts that begin with `RT @`: {retweets.value} rows", retweets),
                statement(f"Images whose tweet was deleted since: {gone.value:.1%}", gone),
                statement(
                    f"Near-duplicates, where this copy had to find them: pHash distance up to "
                    f"{catalog.NEAR_DUPLICATE_BITS.value} of 64",
                    catalog.NEAR_DUPLICATE_BITS,
                ),
            ]
        ),
        "English tweets of half a year, chosen for a classifier's confidence, are no sample of people, of pictures or "
        "of feelings. A model trained on them predicts what a text next to a picture was taken to express, not what "
        "anybody in it felt.",
    ]
