"""`collect`: raw tweets in, the tweets that the published rules keep out. The work is `builders.collecting`'s."""

from __future__ import annotations

from typing import Any

from builders.build_config import settings_of
from builders.building import Build
from builders.collect import Rules
from builders.collecting import CollectConfig
from builders.collecting import run as collect
from builders.sources.tweets import Seen, expand
from builders.state import stamp

NAME = "collect"
VERSION = 1


def settings(build: Build) -> list[Any]:
    """See `Stage`. The names, sizes and times of the files stand for what is in them."""
    stamps = [stamp(path) for path in expand(build.tweets, Seen())]
    return [settings_of(build.config.collect), stamps, needs_authors(build)]


def needs_authors(build: Build) -> bool:
    """Whether the authors' ids are kept, inside the state only: for splits by author."""
    return "author" in build.config.split.by


def run(build: Build) -> dict[str, Any]:
    """See `Stage`. Writes `tweets.parquet`, `ledger.parquet`, `kept_ids.txt`, `collect.json`."""
    chosen = build.config.collect
    outcome = collect(
        CollectConfig(
            files=build.tweets,
            out=build.path(NAME, "collect.json").parent,
            rules=Rules(drop_rt_text=chosen.drop_rt_text, wrapped_ids=chosen.wrapped_ids),
            drop_deleted=chosen.drop_deleted,
            max_bad_share=chosen.max_bad_share,
            with_authors=needs_authors(build),
        ),
        build.progress("collect", 0),
    )
    dropped = {reason: num for reason, num in outcome.by_reason.items() if num}
    return {"in": outcome.num_candidates, "kept": outcome.num_kept, "dropped": dropped, "told": outcome.as_json()}
