"""The responsible-AI part of croissant.json: every property of the vocabulary (version 1.0), with what is known.

mlcroissant 1.1 spells two of them in its own way and passes over those of the specification: both spellings are
written.
"""

from __future__ import annotations

from typing import Any

from t4sa_data import catalog
from t4sa_data.card.collection import summary
from t4sa_data.card.people import MINORS, PROCEDURE, SENSITIVE, SUBJECTS, WARNING, has_text, removed
from t4sa_data.card.publisher import Publisher
from t4sa_data.manifest import Manifest

_SPELLINGS = {
    "rai:dataCollectionTimeframe": "rai:dataCollectionTimeFrame",
    "rai:dataManipulationProtocol": "rai:dataDataManipulationProtocol",
}
"""The specification's word -> mlcroissant's (its `core/constants.py`, version 1.1.1)."""


def responsible_ai(manifest: Manifest, publisher: Publisher | None) -> dict[str, Any]:
    """All of it, in the order of the specification."""
    made = {**_collection(manifest), **_processing(manifest), **_annotation(manifest), **_use(manifest, publisher)}
    return made | {other: made[name] for name, other in _SPELLINGS.items()}


def _collection(manifest: Manifest) -> dict[str, Any]:
    facts = catalog.COLLECTION
    first, last = facts["period"].value
    return {
        "rai:dataCollection": f"{facts['api'].value}. {facts['api'].note} {' '.join(catalog.COLLECTION_RULES)} "
        f"(The rules are {facts['rules'].certainty}.) {facts['tweets'].value:,} tweets and "
        f"{facts['images'].value:,} images: {facts['tweets'].note[:1].lower()}{facts['tweets'].note[1:]}"
        + summary(manifest),
        "rai:dataCollectionType": ["Web API", "User-generated content data"],
        "rai:dataCollectionMissingData": "Images that do not decode are left out and counted; texts and probabilities "
        f"that are unknown are null. {catalog.TWEETS_GONE.note}",
        "rai:dataCollectionRawData": f"Public tweets and their images, as {facts['api'].value} gave them. The files "
        f"that the authors distribute: {catalog.DATASET_URL}",
        "rai:dataCollectionTimeframe": [f"{first}-01", f"{last}-31"],
        "rai:dataImputationProtocol": "None: what is missing is null.",
    }


def _processing(manifest: Manifest) -> dict[str, Any]:
    near, small = catalog.COLLECTION["near_duplicates"], "b-t4sa-256"
    texts = {None: [], True: ["Texts are as posted."], False: ["Texts were left out."]}
    originals = [name for name, layer in manifest.layers.items() if layer.kind == "image" and name != small]
    return {
        "rai:dataPreprocessingProtocol": [
            f"Near-duplicate images were removed for t4sa-unique and B-T4SA. {near.note}",
            f"B-T4SA: {catalog.PUBLISHED['balanced'].note}",
            "Images that do not decode were left out.",
            *(["Images are the original bytes."] if originals == _images(manifest) and originals else []),
            *texts[has_text(manifest)],
        ],
        "rai:dataManipulationProtocol": f"{catalog.CONFIGS[small].description} Encoded again as JPEG."
        if small in manifest.layers
        else "None: images are neither resized nor encoded again.",
    }


def _images(manifest: Manifest) -> list[str]:
    return [name for name, layer in manifest.layers.items() if layer.kind == "image"]


def _annotation(manifest: Manifest) -> dict[str, Any]:
    cut, noise, labeller = catalog.COLLECTION["confidence_cut"], catalog.LABEL_NOISE, catalog.COLLECTION["labeller"]
    by_people = "twitter-testing" in manifest.layers
    return {
        "rai:dataAnnotationProtocol": [
            f"The text of a tweet was classified; its images bear the text's class. {noise['kind'].note}",
            f"Kept: the most confident predictions. Cut {cut.value}, {cut.certainty}.",
            *(["twitter-testing: five workers looked at each image."] if by_people else []),
        ],
        "rai:dataAnnotationPlatform": ["None for T4SA: no person annotated it."],
        "rai:dataAnnotationAnalysis": [_noise()],
        "rai:annotationsPerItem": "One, by a classifier" + ("; five in twitter-testing." if by_people else "."),
        "rai:annotatorDemographics": [
            "None for T4SA: no person annotated it.",
            *(["twitter-testing: unknown."] if by_people else []),
        ],
        "rai:machineAnnotationTools": [f"{labeller.value}: {labeller.source}. {labeller.note}"],
    }


def _noise() -> str:
    noise = catalog.LABEL_NOISE
    again = ", ".join(f"{count:,} {name}" for name, count in noise["relabelled"].value.items())
    return (
        f"Labels are noisy: another labeller ({noise['relabelled'].source}) gave about {again}. "
        f"{noise['negative_changed'].note}"
    )


def _use(manifest: Manifest, publisher: Publisher | None) -> dict[str, Any]:
    contact = "Ask the maintainers of this copy." if publisher is None else f"Write to {publisher.address}; you get an "
    contact += "" if publisher is None else f"answer within {publisher.response_days} days."
    gone = sum(entry["rows"] for entry in removed(manifest).values())
    return {
        "rai:dataBiases": [
            "English tweets of half a year, chosen for a classifier's confidence: no sample of people or of pictures.",
            catalog.CONTRADICTIONS["retweets"].note,
        ],
        "rai:dataUseCases": [
            "Research on image and cross-media sentiment analysis, and on learning from noisy labels.",
            "Not for judging, profiling or finding individuals.",
        ],
        "rai:dataLimitations": [
            _noise(),
            "A label is what a text was taken to express, not what anybody in the picture felt.",
            f"Split by tweet: {catalog.COLLECTION['split_by_tweet'].note}",
        ],
        "rai:dataSocialImpact": "Models trained on it guess moods from pictures; used on individuals they profile and "
        "can harm. The data lets label noise, biases and their effects be studied.",
        "rai:personalSensitiveInformation": [SUBJECTS, MINORS, SENSITIVE, WARNING.replace("*", "")],
        "rai:dataReleaseMaintenancePlan": "Versions X.Y.Z, each a tag that never moves; releases.json says which is "
        f"current and which was withdrawn. {contact} {PROCEDURE}" + (f" Removed so far: {gone} rows." if gone else ""),
    }
