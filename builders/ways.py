"""Ways from the site to a release, and what each takes: what is fetched, what of the disk, how many hours.

An estimate from the published sizes; the site's speed is not known before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from builders import small
from builders.givingback import share_disk
from builders.run import PrepareConfig
from builders.sources.official import IMAGES_NAME
from builders.sources.passed import SUFFIX, PassedArchive, Wanted
from t4sa_data import catalog
from t4sa_data.catalog import CONFIGS, SPLITS
from t4sa_data.downloading import listing
from t4sa_data.downloading import plan as packages_of
from t4sa_data.errors import ConfigUnavailable
from t4sa_data.summary import size, table

MB_PER_SECOND = (2, 10, 50)
"""Rates that hours are told for."""
SECONDS_PER_IMAGE = 0.01
"""Processor time that `prepare` takes for an image, as benchmarks/RESULTS.md has it, rounded up."""
SHARDS_AHEAD = 0.15
"""Of a release, what is written before its pictures are given back where they waited: a few shards of 16 or more."""
IMAGES = catalog.PACKAGES["b-t4sa"]
TABLES = tuple(name for name in catalog.PREPARE_PACKAGES if name != IMAGES.name)


def wanted_of(config: PrepareConfig) -> Wanted | None:
    """What an archive that passes by would leave for a build; None: it is fetched whole, as usual.

    It passes by where little of it is wanted: only small pictures, or some splits. An archive that is here is used.
    """
    originals = has_originals(config)
    is_whole = originals and set(config.splits) == set(SPLITS)
    if config.in_place or not has_images(config) or is_whole or (config.raw / IMAGES_NAME).is_file():
        return None
    return Wanted(small=small.LAYER in config.configs, originals=originals, splits=config.splits)


def has_images(config: PrepareConfig) -> bool:
    """Whether a build needs the image archive."""
    return not config.configs or any(CONFIGS[name].kind == "image" for name in config.configs)


def has_originals(config: PrepareConfig) -> bool:
    """Whether a build holds images as they are."""
    return not config.configs or any(CONFIGS[name].kind == "image" for name in config.configs if name != small.LAYER)


def require_possible(config: PrepareConfig) -> None:
    """Refuse before anything is fetched what the site's packages do not give.

    Raises:
        ConfigUnavailable: a config with images that the site does not offer; small pictures in place; texts in tar.
    """
    for name in config.configs:
        is_text, needs = CONFIGS[name].kind == "text", CONFIGS[name].needs
        if is_text and "parquet" not in config.formats:
            raise ConfigUnavailable("text configs are Parquet only", got=name, hint="Add parquet to --formats.")
        if not is_text and (name not in ("b-t4sa", small.LAYER) or (config.in_place and name == small.LAYER)):
            raise ConfigUnavailable("cannot be built from the site's packages", got=name, hint=needs)


def passed_of(config: PrepareConfig) -> PassedArchive:
    """Where the archive leaves what is wanted of it."""
    return PassedArchive(config.raw / f"{IMAGES_NAME}{SUFFIX}")


@dataclass(frozen=True, kw_only=True)
class Way:
    """What one way takes."""

    options: str
    """Of `t4sa get`."""
    config: PrepareConfig
    fetched_bytes: int
    """Still to come from the site."""
    raw_bytes: int
    """Still to be written into RAW, at most at a time."""
    out_bytes: int
    """To be written into DIR, at most at a time."""
    release_bytes: int
    """Of the release."""
    kept_bytes: int
    """Of both, when all is done: the archive among them, where it was fetched."""
    build_hours: float

    @property
    def fits(self) -> bool:
        """Whether the disks have room for it."""
        raw_free, out_free = (listing.free_bytes(folder) for folder in (self.config.raw, self.out))
        if share_disk(self.config.raw, self.out):
            return self.raw_bytes + self.out_bytes <= raw_free
        return self.raw_bytes <= raw_free and self.out_bytes <= out_free

    @property
    def out(self) -> Path:
        """Where the release comes to be."""
        return self.config.raw / "t4sa-inplace" if self.config.in_place else self.config.out

    @property
    def hours(self) -> str:
        """Of the fetching, at several rates, in words."""
        return ", ".join(f"{self.fetched_bytes / rate / 3.6e9:.1f} h at {rate} MB/s" for rate in MB_PER_SECOND)


def way_of(config: PrepareConfig, options: str = "") -> Way:
    """What a build from the site takes.

    Args:
        config: the build.
        options: of `t4sa get` that ask for it.
    """
    wanted, archive_bytes = wanted_of(config), IMAGES.num_bytes or 0
    share = sum(catalog.SPLIT_SIZES[split] for split in config.splits) / sum(catalog.SPLIT_SIZES.values())
    if (config.raw / IMAGES_NAME).is_file():
        archive_bytes = (config.raw / IMAGES_NAME).stat().st_size
    small_bytes = int(archive_bytes * share * small.SHARE) if small.LAYER in config.configs else 0
    image_bytes = (int(archive_bytes * share) if has_originals(config) else 0) + small_bytes
    tables, _ = listing.missing_bytes(packages_of(TABLES), config.raw)
    if not has_images(config):
        missing, raw, waiting, left = 0, tables, 0, 0
    elif wanted is not None:
        missing, raw = max(0, archive_bytes - _passed_bytes(config)), tables + image_bytes
        waiting, left = 0, 0
    else:
        missing, _ = listing.missing_bytes([IMAGES], config.raw)
        raw, waiting, left = tables + missing, small_bytes, archive_bytes
    release = 0 if config.in_place else image_bytes * len(config.formats)
    given_back = image_bytes if wanted is not None and share_disk(config.raw, config.out) else 0
    num_images = catalog.PUBLISHED["balanced"].total * share
    return Way(
        options=options,
        config=config,
        fetched_bytes=tables + missing,
        raw_bytes=raw,
        out_bytes=int((release - given_back) + SHARDS_AHEAD * image_bytes) if given_back else release + waiting,
        release_bytes=release,
        kept_bytes=left + release,
        build_hours=num_images * SECONDS_PER_IMAGE / config.workers / 3600,
    )


def _passed_bytes(config: PrepareConfig) -> int:
    passed = passed_of(config)
    pieces = passed.pieces() if passed.head and not passed.is_cleared else []
    return pieces[-1].last.end if pieces else 0


def all_ways(config: PrepareConfig) -> list[Way]:
    """The usual ways, for the same splits, by the disk that they take."""
    split = "" if set(config.splits) == set(SPLITS) else f" --split {','.join(config.splits)}"
    base = replace(config, configs=(), in_place=False)
    ways = [
        way_of(
            replace(base, configs=(small.LAYER,), formats=("wds",)), f"--configs {small.LAYER} --formats wds{split}"
        ),
        way_of(replace(base, in_place=True), f"--in-place{split}"),
        way_of(replace(base, formats=("parquet",)), f"--formats parquet{split}"),
        way_of(replace(base, formats=("parquet", "wds")), f"--formats parquet,wds{split}"),
    ]
    return sorted(ways, key=lambda way: way.raw_bytes + way.out_bytes)


def plan_words(config: PrepareConfig) -> str:
    """What `t4sa get` will fetch and write, on which disk, in what time; and the other ways."""
    way, wanted = way_of(config), wanted_of(config)
    formats = " and ".join(config.formats)
    if way.fetched_bytes == 0:
        fetch = "all packages are here"
    elif wanted is None:
        fetch = f"about {size(way.fetched_bytes)} ({way.hours})"
    else:
        kept = " and ".join(
            words for words, is_so in (("small pictures", wanted.small), ("originals", wanted.originals)) if is_so
        )
        fetch = f"about {size(way.fetched_bytes)} pass by ({way.hours}), of which {kept} stay: {size(way.raw_bytes)}"
    what = "a table beside the archive" if config.in_place else f"{size(way.release_bytes)} ({formats})"
    lines = [
        f"1. fetch: {fetch}",
        f"   into {config.raw}, {size(listing.free_bytes(config.raw))} free",
        f"2. build: {what}, about {way.build_hours:.1f} h with {config.workers} worker(s)",
        f"   into {way.out}, {size(listing.free_bytes(way.out))} free",
        f"   at most {size(way.raw_bytes + way.out_bytes)} more of disk at a time, {size(way.kept_bytes)} in the end",
    ]
    ways = all_ways(config)
    lines += ["", "Ways to a release:", *_table(ways), ""]
    cheapest = next((one for one in ways if one.fits), None)
    if not way.fits:
        lines.append("What is asked for takes MORE DISK THAN IS FREE.")
    if cheapest is not None:
        lines.append(f"The cheapest that fits: t4sa get {cheapest.options}")
    elif not way.fits:
        lines.append("None of them fits: give --to or --out on another disk, or fewer splits with --split.")
    return "\n".join(lines)


def _table(ways: Sequence[Way]) -> list[str]:
    hours = [f"h, {rate} MB/s" for rate in MB_PER_SECOND]
    rows = [
        (
            way.options,
            size(way.fetched_bytes),
            size(way.raw_bytes + way.out_bytes),
            size(way.kept_bytes),
            *(f"{way.fetched_bytes / rate / 3.6e9 + way.build_hours:.1f}" for rate in MB_PER_SECOND),
            "fits" if way.fits else "too large",
        )
        for way in ways
    ]
    return table(("t4sa get", "fetched", "disk", "in the end", *hours, ""), rows)
