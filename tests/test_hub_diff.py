"""`t4sa hub diff`: what two releases differ in, from folders and from the Hub."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hub_scripts.diff import describe, diff
from t4sa_data import rewriting
from t4sa_data.errors import BadOption
from t4sa_data.shards import read_table
from tests.hub_double import Hub, Repository
from tests.publish_helpers import environment


def index(folder: Path) -> Path:
    return folder / "t4sa" / "b-t4sa" / "index.parquet"


@pytest.fixture
def other(releases: Path, tmp_path: Path) -> Path:
    """Two samples fewer, one label and one split changed (in the table: that is what is compared)."""
    folder = Path(shutil.copytree(releases, tmp_path / "other"))
    drop = np.zeros(60, dtype=bool)
    drop[[3, 50]] = True
    rewriting.drop_rows(folder / "t4sa", {"b-t4sa": drop})
    table = read_table(index(folder))
    for name, row, value in (("label", 5, (table["label"][5].as_py() + 1) % 3), ("split", 7, "test")):
        values = table[name].to_pylist()
        values[row] = value
        number = table.schema.get_field_index(name)
        table = table.set_column(number, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    pq.write_table(table, index(folder))
    return folder


def test_two_folders(releases: Path, other: Path) -> None:
    before, after = (read_table(index(folder)) for folder in (releases, other))
    keys = before["key"].to_pylist()
    found = diff(releases, other)
    assert found.rows == (60, 58) and not found.added
    assert sorted(found.removed) == sorted([keys[3], keys[50]])
    assert found.relabelled == (after["key"][5].as_py(),) and found.moved == (after["key"][7].as_py(),)
    assert sum(count for what, _, _, count in found.counts if what == "removed") == 2
    assert any(what == "moved" and split == "train -> test" for what, split, _, _ in found.counts)
    assert any(what == "relabelled" and "->" in label for what, _, label, _ in found.counts)
    back = diff(other, releases)
    assert back.added == found.removed and not back.removed
    assert "removed" in describe(found) and "no difference" not in describe(found)


def test_no_difference(releases: Path) -> None:
    found = diff(releases / "t4sa", releases / "t4sa-wds")
    assert found.is_none and "no difference" in describe(found)


def test_a_revision_needs_a_namespace(releases: Path) -> None:
    with pytest.raises(BadOption, match="--namespace"):
        diff(releases, "v1.0.0")


@pytest.mark.slow
def test_a_revision_on_the_hub(releases: Path, tmp_path: Path) -> None:
    script = f"""
import json
from dataclasses import asdict
from hub_scripts.diff import diff
print(json.dumps(asdict(diff("v1.0.0", {str(releases)!r}, namespace="ours"))))
"""
    with Hub({"ours/t4sa": Repository(releases / "t4sa", revisions=("main", "v1.0.0"))}) as hub:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment(hub, tmp_path, token=None) | {"T4SA_CACHE": str(tmp_path / "cache")},  # type: ignore[arg-type]
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert not [path for path in hub.fetched() if not path.endswith("index.parquet")]
    said = json.loads(done.stdout)
    assert said["rows"] == [60, 60] and said["counts"] == [] and said["one"].startswith("hf://datasets/ours/t4sa@")
