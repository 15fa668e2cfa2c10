"""`t4sa build` gives the same bytes whatever is killed on the way: the command, its workers, a cluster's node.

Real processes, killed with SIGKILL. The undisturbed build ran in one process.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from t4sa_data.files import TEMPORARY

from tests.build_helpers import Stream, command, kept_images, ledger_of, make_stream, run  # isort: skip
from tests.deaths import assert_nothing_half  # isort: skip
from tests.helpers_release import assert_sound, differences, digests  # isort: skip
from tests.image_host import image  # isort: skip

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes in /proc")

RESULTS = ("t4sa", "t4sa-wds", "quarantine", "build/ledger.parquet")
SEED = 2016
LASTS_SECONDS = {"collect": 0.6, "select": 0.4, "fetch": 1.0, "inspection": 2.0, "split": 0.4, "write": 2.0}
"""Stage at whose end the clock starts -> how long what follows may take."""


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    made = make_stream(tmp_path_factory.mktemp("raw"))
    yield made
    made.host.__exit__()


@pytest.fixture(scope="module")
def undisturbed(stream: Stream, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(stream, folder / "out", stream.config(folder))
    assert_sound(folder / "out")
    return digests(folder / "out", *RESULTS)


def finish(running: subprocess.Popen[str]) -> str:
    told, _ = running.communicate(timeout=120)
    assert running.returncode == 0, told
    return told


def kill(running: subprocess.Popen[str]) -> bool:
    running.send_signal(signal.SIGKILL)
    told, _ = running.communicate()
    assert running.returncode in (0, -signal.SIGKILL), told
    return running.returncode != 0


def began(out: Path, stage: str) -> bool:
    return any((out / "build" / "state").glob(f"{stage}-*.json"))


def temporaries(out: Path) -> list[str]:
    return [path.name for path in out.rglob(f"*{TEMPORARY}*")]


def kill_at_random(stream: Stream, folder: Path, expected: dict[str, str], *, num_kills: int) -> Counter[str]:
    """Kill builds at random moments until so many were hit, each three times before it may end; stages hit."""
    chance, hits, number = random.Random(SEED), Counter[str](), 0
    while hits.total() < num_kills:
        number += 1
        assert number < 2 * num_kills + 4, f"kills come too late: {hits}"
        out, config = folder / str(number) / "out", stream.config(folder / str(number))
        asked = Counter(stream.host.counts)
        num_here = 0
        for stage in chance.sample(list(LASTS_SECONDS), 3):
            running = command(stream, out, config, "--workers", str(chance.choice((1, 2))))
            end = time.monotonic() + 60
            while running.poll() is None and not began(out, stage) and time.monotonic() < end:
                time.sleep(0.005)
            time.sleep(chance.random() * LASTS_SECONDS[stage])
            if kill(running):
                hits[stage] += 1
                num_here += 1
                assert_nothing_half(out)
            if hits.total() == num_kills:
                break
        finish(command(stream, out, config, "--workers", "2"))
        assert differences(digests(out, *RESULTS), expected) == []
        assert temporaries(out) == []
        # A picture under way when its process died is asked for once more; none that was kept is.
        more = stream.host.counts - asked
        for key, path in ((key, stream.raw.paths[key]) for key in kept_images(stream)):
            assert more[path] <= 2 + num_here, key
    return hits


def test_killed_and_run_again(stream: Stream, undisturbed: dict[str, str], tmp_path: Path) -> None:
    hits = kill_at_random(stream, tmp_path, undisturbed, num_kills=1)
    assert hits.total() == 1


@pytest.mark.slow
def test_killed_at_30_random_moments(stream: Stream, undisturbed: dict[str, str], tmp_path: Path) -> None:
    start = time.monotonic()
    hits = kill_at_random(stream, tmp_path, undisturbed, num_kills=30)
    print(f"\n{hits.total()} kills after {dict(hits)}, same bytes each time, {time.monotonic() - start:.0f} s")
    assert set(hits) == set(LASTS_SECONDS)


# A picture of which every process dies that decodes it.

POISON = """
import os, signal
from PIL import Image
opened = Image.open
def poisoned(fp, *args, **kwargs):
    if hasattr(fp, "getbuffer") and bytes(fp.getbuffer()).startswith(bytes.fromhex(os.environ["T4SA_TEST_POISON"])):
        with open(os.environ["T4SA_TEST_DEATHS"], "ab") as file:
            file.write(b"x")
        os.kill(os.getpid(), signal.SIGKILL)
    return opened(fp, *args, **kwargs)
Image.open = poisoned
"""
"""A `sitecustomize`: what a fault of a decoder does."""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_picture_that_kills_its_process_is_set_aside(tmp_path: Path, workers: int) -> None:
    stream = make_stream(tmp_path / "raw", faults=False, num_tweets=60)
    try:
        paired = {key for pair in stream.raw.near_duplicates for key in pair}
        key = [key for key in kept_images(stream) if key not in paired][7]
        poison = bytes.fromhex("ffd8ffe000104a464946000102") + os.urandom(200)
        stream.host.routes[stream.raw.paths[key]] = image(poison)
        site = tmp_path / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(textwrap.dedent(POISON))
        environment = {
            "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "T4SA_TEST_POISON": poison[:13].hex(),
            "T4SA_TEST_DEATHS": str(tmp_path / "deaths"),
        }
        out = tmp_path / "out"
        finish(command(stream, out, stream.config(tmp_path), "--workers", str(workers), **environment))
        ledger = ledger_of(out)
        assert ledger["image", key]["reason"] == "inspection/killed-its-process"
        lost = [one for (kind, one), row in ledger.items() if kind == "image" and row["reason"]]
        assert lost == [key]
        assert (out / "quarantine" / f"{key}.jpg").read_bytes() == poison
        # With its task; where others were under way, with its task while no other was; alone. Three times each.
        assert (tmp_path / "deaths").stat().st_size == (6 if workers == 1 else 9)
        assert_sound(out)
        told = finish(command(stream, out, stream.config(tmp_path), "--workers", "1"))
        assert "nothing to do" in told
    finally:
        stream.host.__exit__()


# A cluster of Ray: a head and a node on this machine, started as a cluster is.


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray")
    from tests.cluster_double import Cluster

    with Cluster(2) as made:
        yield made


def on_cluster(cluster: Any, stream: Stream, out: Path, config: Path) -> subprocess.Popen[str]:
    return command(
        stream, out, config, "--engine", "ray", "--address", cluster.address, **cluster.environment
    )  # fmt: skip


@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes(
    cluster: Any, stream: Stream, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    finish(on_cluster(cluster, stream, tmp_path / "out", stream.config(tmp_path)))
    assert differences(digests(tmp_path / "out", *RESULTS), undisturbed) == []


@pytest.mark.slow
def test_workers_and_a_node_of_a_cluster_are_killed(
    stream: Stream, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    from tests.cluster_double import Cluster

    chance = random.Random(SEED)
    with Cluster(2) as cluster:
        for number in range(3):
            out, config = tmp_path / f"workers-{number}" / "out", stream.config(tmp_path / f"workers-{number}")
            running = on_cluster(cluster, stream, out, config)
            killed = 0
            while running.poll() is None and killed < 2:
                for victim in cluster.workers()[:1]:
                    time.sleep(chance.random() / 10)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                        killed += 1
                time.sleep(0.01)
            finish(running)
            assert killed, "no worker was seen"
            assert differences(digests(out, *RESULTS), undisturbed) == []
        out, config = tmp_path / "node" / "out", stream.config(tmp_path / "node")
        running = on_cluster(cluster, stream, out, config)
        while running.poll() is None and not began(out, "select"):
            time.sleep(0.01)
        assert running.poll() is None
        cluster.kill_node(1)
        finish(running)
        assert differences(digests(out, *RESULTS), undisturbed) == []
        # The command itself: its tasks end with it, and it goes on.
        out, config = tmp_path / "driver" / "out", stream.config(tmp_path / "driver")
        running = on_cluster(cluster, stream, out, config)
        while running.poll() is None and not began(out, "fetch"):
            time.sleep(0.01)
        assert kill(running)
        finish(on_cluster(cluster, stream, out, config))
        assert differences(digests(out, *RESULTS), undisturbed) == []


def test_no_cluster_answers(stream: Stream, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    running = command(
        stream, tmp_path / "out", stream.config(tmp_path), "--engine", "ray", "--address", "127.0.0.1:9"
    )  # fmt: skip
    told, _ = running.communicate(timeout=60)
    assert running.returncode == 1
    assert told.strip().splitlines()[-1].startswith("error: no cluster of Ray answers: expected HOST:PORT")
