"""What people may get wrong before a run exists: each is explained on the terminal with exit code 2, and no run is
made."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench import cli
from workbench.core import estimate
from workbench.launch import preflight
from workbench.record import folder as record

Refuse = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Runs `workbench run` with these options, requires a refusal, and returns what was printed."""
    monkeypatch.chdir(tmp_path)

    def call(*options: str, runs: str = "runs") -> str:
        code = cli.main(["run", "--runs", runs, *options])
        out, err = capfd.readouterr()
        assert (code, out) == (2, "")
        assert "Traceback" not in err and record.folders("runs") == []
        return err

    return call


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(estimate.EMBEDDED, tmp_path / "model"))


def test_case_38_a_runs_root_below_a_file_is_refused(refused: Refuse) -> None:
    Path("file").write_text("")
    assert "Runs cannot be kept in" in refused(runs="file/runs")


def test_case_38_a_full_disk_is_refused(refused: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(".")._replace(free=2**20)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: full)
    assert "1 MiB free" in refused()


def forget(folder: Path, *names: str) -> None:
    """Take a key out of every file that may name it."""
    for path in folder.glob("*config.json"):
        content = {key: value for key, value in json.loads(path.read_text()).items() if key not in names}
        path.write_text(json.dumps(content))


def test_case_45_a_model_folder_that_lacks_a_part_is_refused_before_anything_starts(
    refused: Refuse, model: Path
) -> None:
    (model / "chat_template.jinja").rename(model / "away")
    assert "no chat template" in refused("--model", "model")
    (model / "away").rename(model / "chat_template.jinja")
    forget(model, "eos_token", "eos_token_id")
    assert "no end-of-sequence token" in refused("--model", "model")
    (model / "tokenizer.json").unlink()
    assert "holds no tokenizer" in refused("--model", "model")
    shutil.rmtree(model)
    assert "no such folder" in refused("--model", "./model")


def test_case_45_a_tokenizer_of_another_model_is_refused(refused: Refuse, model: Path) -> None:
    content = json.loads((model / "tokenizer.json").read_text())
    content["added_tokens"].append({"id": 5000, "content": "<more>", "special": True})
    (model / "tokenizer.json").write_text(json.dumps(content))
    assert "token 5000, but the network knows only 426" in refused("--model", "model")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--num-generations", "1", "at least 2"),
        ("--beta", "-0.5", "cannot be negative"),
        ("--learning-rate", "nan", "finite"),
        ("--learning-rate", "fast", "number"),
        ("--max-completion-length", "4096", "at most 1024 tokens"),
        ("--prompts-per-step", "300", "only 256 prompts"),
        ("--steps-per-generation", "20", "has only 16 groups to split"),
    ],
)
def test_case_46_a_setting_out_of_its_range_is_named_with_what_is_allowed(
    refused: Refuse, option: str, value: str, words: str
) -> None:
    shown = refused(option, value)
    assert words in shown and option.strip("-").replace("-", "_") in shown


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty.jsonl"),
        ('{"prompt": "a", "answer": "1"}\n{"prompt": "", "answer": "1"}\n', "row 2"),
        ('{"prompt": "a", "answer": "1"}\n{"prompt": 7, "answer": "1"}\n', "row"),
        ('{"text": "a"}\n', "prompt_column"),
        ('{"prompt": "a"\n', "row 1"),
    ],
)
def test_case_47_data_that_cannot_be_asked_is_refused_with_its_rows(
    refused: Refuse, content: str, words: str
) -> None:
    Path("empty.jsonl").write_text(content)
    assert words in refused("--task", "data", "--data", "empty.jsonl")


def test_case_52_pickled_weights_are_refused(refused: Refuse, model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "can run any code" in refused("--model", "model")


def test_case_54_no_open_network_without_a_token(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["app", "--host", "0.0.0.0", "--no-token"]) == 2
    assert "needs the token" in capfd.readouterr().err


def test_case_55_a_busy_port_is_named(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert cli.main(["app", "--port", str(port), "--runs", str(tmp_path / "runs")]) == 2
    assert f"port = {port}" in capfd.readouterr().err


def test_case_52_a_file_in_the_working_directory_stands_in_for_no_library(tmp_path: Path) -> None:
    for name in ("pydantic", "cyclopts", "click", "workbench_config"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('ran a file of the working directory')\n")
    done = subprocess.run(
        [sys.executable, "-m", "workbench", "list", "--runs", "none", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
