"""The command `search`: hits printed, as JSON, and as files."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.fakes import write_fake_run
from workbench import api, cli
from workbench.record.reader import Reader


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_run(tmp_path_factory.mktemp("runs"), steps=4, groups=4, samples=6).path


def test_hits_are_the_readers_own(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["search", str(run), "check", "--reward-min", "1", "--limit", "5", "--json"]
    assert cli.main(options) == 0
    found = json.loads(capsys.readouterr().out)
    expected = [hit for hit in Reader(run).search("check", limit=1000) if hit["reward"] == 1][:5]
    assert [hit["id"] for hit in found] == [hit["id"] for hit in expected] and found[0]["rewards"][
        "correct"
    ] == 1
    assert cli.main([*options[:-1]]) == 0
    assert expected[0]["text"] in capsys.readouterr().out


def test_hits_go_into_a_file_and_a_frame(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "hits.parquet"
    assert (
        cli.main(
            [
                "search",
                str(run),
                "--words",
                "ok,wait",
                "--sort",
                "longest",
                "--limit",
                "9",
                "--out",
                str(target),
            ]
        )
        == 0
    )
    frame = api.Run(Reader(run).folder).search(sort="longest", limit=9, words=("ok", "wait"))
    assert pq.read_table(target)["id"].to_pylist() == frame["id"].tolist() and len(frame) == 9


@pytest.mark.parametrize(
    "wrong",
    [
        ["--out", "hits.txt"],
        ["--disagree", "correct"],
        ["--sort", "best", "--limit", "-1", "--advantage", "sideways"],
    ],
)
def test_what_cannot_be_asked_is_a_sentence(
    run: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["search", str(run), *wrong]) == 2
    assert capsys.readouterr().err.strip()
