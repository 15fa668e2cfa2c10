"""examples/evaluate.py from the command line: of a model, of a run, of a file of predictions without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

pytest.importorskip("matplotlib")
from examples import evaluate
from examples.errors import PredictionsError
from examples.evaluation import figures, writing
from examples.evaluation.predictions import make_table, read_truth
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption, ConfigUnavailable, InputMissing, UnknownConfig
from t4sa_data.reading import open_release

# isort: split
from tests.evaluation_helpers import made_up, make_both, save_smoke

ROOT = Path(__file__).parents[1]
B_T4SA_FILES = {
    "calibration-b-t4sa.png",
    "confusion-b-t4sa.png",
    "paper.png",
    "predictions-b-t4sa.parquet",
    "results.json",
    "results.md",
    "text-confidence-b-t4sa.png",
}
GRID_FILES = {"grid-b-t4sa.html", "grid-b-t4sa.png"}
TWITTER_FILES = {"predictions-twitter-testing.parquet"} | {
    f"confusion-twitter-testing-{cell}-agree.png" for cell in ("five", "four", "three")
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("both")
    make_both(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    return save_smoke(tmp_path_factory.mktemp("run") / "best")


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes a second and is tested elsewhere."""
    monkeypatch.setattr(writing, "write_figures", lambda *_: None)


def guess(release: Path, config: str, seed: int = 0) -> pa.Table:
    truth = read_truth(open_release(release), config)
    return make_table(truth, *made_up(truth, seed=seed)).select(["key", *CLASSES])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_run(both: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 50)
    run = model.parent
    (run / "config.toml").write_text('paper_row = "VGG-T4SA FT-A"\n')
    results = evaluate.main(["--run", str(run), "--data", str(both), "--device", "cpu"])
    out = run / "evaluation"
    assert names(out) == B_T4SA_FILES | GRID_FILES | TWITTER_FILES
    assert json.loads((out / "results.json").read_text()) == results
    assert results is not None
    assert {"accuracy", "low", "high", "n", "confusion"} <= set(results["b-t4sa"])
    assert list(results["twitter-testing"]) == ["five_agree", "four_agree", "three_agree"]
    assert results["about"]["architecture"] == "smoke"
    assert results["about"]["content_digest"] == open_release(both).manifest.content_digest
    table = pq.read_table(out / "predictions-twitter-testing.parquet")
    assert table.schema.names[-1] == "agreement"
    assert table["key"].to_pylist() == read_truth(open_release(both), "twitter-testing")["key"].to_pylist()
    printed = capsys.readouterr().out
    assert "| B-T4SA test split, 3-way |" in printed
    assert "51.92 Serra" in printed


@pytest.mark.usefixtures("no_figures")
def test_predictions_of_the_model_give_the_models_report(both: Path, model: Path, tmp_path: Path) -> None:
    common = ["--data", str(both), "--on", "b-t4sa", "--out"]
    ours = evaluate.main(["--model", str(model), "--device", "cpu", "--pictures", "0", *common, str(tmp_path / "a")])
    file = tmp_path / "a" / "predictions-b-t4sa.parquet"
    again = evaluate.main(["--predictions", str(file), "--against", str(file), *common, str(tmp_path / "b")])
    assert ours is not None
    assert again is not None
    assert again["b-t4sa"].pop("against")["mcnemar_p"] == 1
    assert again["b-t4sa"] == ours["b-t4sa"]
    assert (tmp_path / "b" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.usefixtures("no_figures")
def test_another_model_is_a_run_an_evaluation_or_a_file(both: Path, tmp_path: Path) -> None:
    ours = tmp_path / "ours.parquet"
    pq.write_table(pa.concat_tables([guess(both, name) for name in ("b-t4sa", "twitter-testing")]), ours)
    evaluation = tmp_path / "run" / "evaluation"
    evaluation.mkdir(parents=True)
    for name in ("b-t4sa", "twitter-testing"):
        pq.write_table(guess(both, name, seed=1), evaluation / f"predictions-{name}.parquet")
    one_config = evaluation / "predictions-b-t4sa.parquet"
    found = {}
    for what in (evaluation.parent, evaluation, one_config):
        words = ["--predictions", str(ours), "--data", str(both), "--against", str(what), "--out", str(tmp_path / "o")]
        found[what] = evaluate.main(words)
    assert found[evaluation] == found[evaluation.parent] != found[one_config]
    assert all("against" in results["b-t4sa"] for results in found.values())
    assert "against" in found[evaluation]["twitter-testing"]["five_agree"]
    assert "against" not in found[one_config]["twitter-testing"]["five_agree"]
    words[words.index("--against") + 1] = str(tmp_path)
    with pytest.raises(InputMissing, match="no predictions there"):
        evaluate.main(words)


def test_small_pictures_are_taken_where_there_are_no_others() -> None:
    def chosen(*configs: str) -> list[str]:
        release = SimpleNamespace(manifest=SimpleNamespace(configs=configs), where="here")
        return evaluate.chosen_configs(evaluate.parser().parse_args(["--run", "r", "--data", "d"]), release)

    assert chosen("b-t4sa-256", "twitter-testing") == ["b-t4sa-256", "twitter-testing"]
    assert chosen("b-t4sa-256", "b-t4sa") == ["b-t4sa"]
    with pytest.raises(ConfigUnavailable, match="nothing to evaluate on"):
        chosen("raw-text")


_WITHOUT_TORCH = """
import runpy, sys
sys.argv = sys.argv[1:]
class Refuse:
    def find_spec(self, name, *_):
        assert name.partition(".")[0] not in ("torch", "torchvision", "torchcodec"), name
sys.meta_path.insert(0, Refuse())
runpy.run_path(sys.argv[0], run_name="__main__")
assert "torch" not in sys.modules
print("no torch")
"""


def launch(*words: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_a_file_needs_neither_torch_nor_images(both: Path, tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(both, release)
    for shard in release.rglob("test-*.parquet"):
        shard.unlink()
    file = tmp_path / "mine.csv"
    pyarrow.csv.write_csv(guess(both, "b-t4sa"), file)
    script = ROOT / "examples" / "evaluate.py"
    done = launch("-c", _WITHOUT_TORCH, script, "--predictions", file, "--data", release, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("no torch\n")
    assert names(tmp_path / "mine-evaluation") == B_T4SA_FILES  # nothing of twitter-testing: the file names none of it


def test_the_module_says_what_is_wrong_in_one_line(releases: Path, tmp_path: Path) -> None:
    pyarrow.csv.write_csv(guess(releases, "b-t4sa").slice(1), tmp_path / "p.csv")
    words = ["--predictions", tmp_path / "p.csv", "--data", releases]
    done = launch("-m", "examples.evaluate", *words, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: samples of b-t4sa without a prediction: expected")
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("no_figures")
def test_what_is_evaluated_on(both: Path, releases: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.parquet"
    pq.write_table(pa.concat_tables([guess(both, "b-t4sa"), guess(both, "twitter-testing")]), file)
    common = ["--predictions", str(file), "--data", str(both)]
    results = evaluate.main(common)
    assert results is not None
    assert list(results) == ["about", "b-t4sa", "twitter-testing"]
    with pytest.raises(PredictionsError, match=r"not among those of twitter-testing: got .* surplus keys"):
        evaluate.main([*common, "--on", "twitter-testing"])
    pq.write_table(guess(both, "b-t4sa"), file)
    with pytest.raises(PredictionsError, match="samples of twitter-testing without a prediction: expected 30, got 30"):
        evaluate.main([*common, "--on", "b-t4sa,twitter-testing"])
    with pytest.raises(ConfigUnavailable, match="882/1,116/1,269"):
        evaluate.main(["--predictions", str(file), "--data", str(releases), "--on", "b-t4sa,twitter-testing"])
    with pytest.raises(UnknownConfig):
        evaluate.main([*common, "--on", "b-t4sa", "--split", "dev"])
    for wrong in (["--on", "raw-text"], ["--system", "VGG"]):
        with pytest.raises(BadOption):
            evaluate.main([*common, *wrong])


def test_no_such_model(releases: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(InputMissing, match="no model folder"):
        evaluate.main(["--run", str(tmp_path), "--data", str(releases), "--device", "cpu"])
    with pytest.raises(SystemExit):
        evaluate.main(["--run", "a", "--model", "b", "--data", str(releases)])
