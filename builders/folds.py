"""Our folds of the Twitter Testing Dataset, where the published ones are not there, and what folds do to twins."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise

from builders.sources.twitter_testing import Picture

NUM_FOLDS = 5
FOLD_SEED = 2017
"""Another seed, other folds."""


def clean_folds(pictures: Sequence[Picture], *, seed: int = FOLD_SEED) -> dict[str, int]:
    """Folds 1 to 5: twins and pictures of one tweet stay together, classes are balanced, at every level of agreement.

    One assignment serves all levels, so that no image is in two folds. It depends on the lists alone: who has them has
    these folds, whatever else is in the folder, and whatever decodes.

    Args:
        pictures: the listed images, in any order.
        seed: of the order in which groups are dealt.

    Returns:
        File name -> fold.
    """
    group = groups_of(pictures)
    fold_of: dict[str, int] = {}
    counts = {(fold, label): 0 for fold in range(1, NUM_FOLDS + 1) for label in (0, 2)}
    for level in (5, 4, 3):
        members: dict[str, list[Picture]] = {}
        for picture in sorted((one for one in pictures if one.agreement == level), key=_place):
            members.setdefault(group[picture.key], []).append(picture)
        for name in sorted(
            members, key=lambda name: (name not in fold_of, -len(members[name]), _draw(members[name], seed))
        ):
            fold = fold_of.setdefault(name, _emptiest(counts, members[name][0].label))
            for picture in members[name]:
                counts[fold, picture.label] += 1
    return {picture.name: fold_of[group[picture.key]] for picture in pictures}


def _place(picture: Picture) -> tuple[int, int]:
    return picture.tweet_id, picture.image_index


def _draw(members: Sequence[Picture], seed: int) -> str:
    """What says when a group is dealt, among those of its size: twins that agree more come before all, then pairs, so
    that single images even out what these did."""
    return hashlib.sha256(f"{seed} {members[0].key}".encode()).hexdigest()


def _emptiest(counts: Mapping[tuple[int, int], int], label: int) -> int:
    """The fold with the fewest images of a class, then of both."""
    return min(range(1, NUM_FOLDS + 1), key=lambda fold: (counts[fold, label], counts[fold, 0] + counts[fold, 2], fold))


def groups_of(pictures: Sequence[Picture]) -> dict[str, str]:
    """Key -> a key of its group: pictures with a media key or a tweet in common are one."""
    ordered = sorted(pictures, key=_place)
    first = {picture.key: picture.key for picture in ordered}

    def root(key: str) -> str:
        while first[key] != key:
            key = first[key]
        return key

    for attribute in ("media_key", "tweet_id"):
        seen: dict[object, str] = {}
        for picture in ordered:
            one, other = root(seen.setdefault(getattr(picture, attribute), picture.key)), root(picture.key)
            first[max(one, other)] = min(one, other)
    return {picture.key: root(picture.key) for picture in ordered}


def twins_of(pictures: Sequence[Picture]) -> list[tuple[Picture, Picture]]:
    """Pairs of neighbours among the pictures that share a media key, by key."""
    by_media: dict[str, list[Picture]] = {}
    for picture in sorted(pictures, key=_place):
        by_media.setdefault(picture.media_key, []).append(picture)
    return [pair for same in by_media.values() for pair in pairwise(same)]


def split_twins(pairs: Sequence[tuple[Picture, Picture]], fold: Mapping[str, int]) -> list[tuple[Picture, Picture]]:
    """Pairs of which both have a fold, and not the same one."""
    return [(a, b) for a, b in pairs if a.name in fold and b.name in fold and fold[a.name] != fold[b.name]]
