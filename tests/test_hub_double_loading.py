"""A release on the writable double, uploaded by the Hub's client and read by `datasets`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tests.hub_double import WritableHub, clients, xet  # isort: skip

PUBLISH = """
from huggingface_hub import HfApi
api = HfApi()
for name in ("t4sa", "t4sa-wds"):
    repo = {"repo_id": f"alice/{name}", "repo_type": "dataset"}
    api.create_repo(**repo, private=True)
    api.upload_folder(**repo, folder_path=f"{sys.argv[1]}/{name}")
    api.update_repo_settings(**repo, gated="manual", visibility="public")
    api.create_tag(**repo, tag="v1.0.0")
    api.grant_access(repo["repo_id"], "bob", repo_type="dataset")
"""

READ = """
import datasets
datasets.disable_progress_bars()

def keys(repo, key, **named):
    named |= {"split": "validation", "revision": "v1.0.0"}
    got = outcome(datasets.load_dataset, repo, **named)
    return got if isinstance(got, dict) else [row[key] for row in got]

tell(stranger=keys("alice/t4sa", "key", streaming=True, token="hf_carol"))  # before there is a cache to fall back to
read = {"parquet": ("alice/t4sa", "key"), "tar": ("alice/t4sa-wds", "__key__")}
told = {name: keys(*asked, streaming=True) for name, asked in read.items()}
tell(**told, stored=keys("alice/t4sa", "key"))
"""


@pytest.mark.slow  # a release's life (test_hub_life.py) reads in these ways, too
@pytest.mark.parametrize("by_xet", [False, True])
def test_datasets_reads_what_the_client_uploaded(tmp_path: Path, releases: Path, truth: pa.Table, by_xet: bool) -> None:
    if by_xet and not xet.works():
        pytest.skip("hf_xet does not write to a folder here")
    users = {"hf_alice": "alice", "hf_bob": "bob", "hf_carol": "carol"}
    with WritableHub(tmp_path / "hub", users=users, xet=by_xet) as hub:
        writer = clients.environment(hub.url, tmp_path, token="hf_alice", xet=by_xet)
        clients.run(PUBLISH, str(releases), env=writer)
        reader = clients.environment(hub.url, tmp_path / "reader", token="hf_bob", xet=by_xet)
        said = clients.run(READ, env=reader)
    keys = [row["key"] for row in truth.to_pylist() if row["split"] == "validation"]
    assert said["parquet"] == said["tar"] == said["stored"] == keys != []
    assert said["stranger"]["error"] == "DatasetNotFoundError" and "ask for access" in said["stranger"]["message"]
    assert hub.opened() == [] and hub.leaked() == []
    assert any("xet-read-token" in request.path for request in hub.log) == by_xet
