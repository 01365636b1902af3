"""What is found wrong before a run folder exists."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import FAKE_WORKER
from workbench import launch
from workbench.core import estimate
from workbench.core.config import RewardSpec, RunConfig
from workbench.core.errors import ConfigError, RunError
from workbench.launch import preflight
from workbench.record import folder as record
from workbench.rewards.runtime import registry
from workbench.rewards.runtime.registry import RewardSource


def problems(**settings: Any) -> dict[str, str]:
    return preflight.check(RunConfig.build(None, settings)).problems


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the embedded model under another name, to take apart."""
    return Path(shutil.copytree(estimate.EMBEDDED, tmp_path / "model"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_default_run_has_nothing_in_its_way() -> None:
    had_torch = "torch" in sys.modules  # from another test of this process
    report = preflight.check(RunConfig.build())
    assert (report.problems, report.warnings) == ({}, ())
    assert had_torch or "torch" not in sys.modules


def test_a_whole_model_folder_passes(model: Path) -> None:
    assert problems(model=str(model)) == {}


def remove(*names: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return apply


def without_eos(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda found: found.pop("eos_token"))
    edit(folder / "generation_config.json", lambda found: found.pop("eos_token_id"))
    edit(folder / "config.json", lambda found: found.pop("eos_token_id"))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def foreign_tokenizer(folder: Path) -> None:
    edit(
        folder / "tokenizer.json", lambda found: found["added_tokens"].append({"id": 99999, "content": "<x>"})
    )


@pytest.mark.parametrize(
    ("damage", "field", "words"),
    [
        (remove("config.json"), "model", "has no config.json"),
        (remove("model.safetensors"), "model", "no *.safetensors weights"),
        (pickled, "model", "pickle files (pytorch_model.bin), which can run any code"),
        (remove("tokenizer.json"), "model", "holds no tokenizer"),
        (without_eos, "model", "no end-of-sequence token"),
        (foreign_tokenizer, "model", "token 99999, but the network knows only 426"),
        (remove("chat_template.jinja"), "template", "no chat template"),
    ],
)
def test_a_model_folder_that_lacks_something_is_named_with_its_remedy(
    model: Path, damage: Callable[[Path], None], field: str, words: str
) -> None:
    damage(model)
    assert words in problems(model=str(model))[field]


def test_a_model_without_chat_template_serves_a_plain_template(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    assert problems(model=str(model), template="plain") == {}


def test_a_missing_pad_token_is_a_note_and_no_obstacle(model: Path) -> None:
    edit(model / "tokenizer_config.json", lambda found: found.pop("pad_token"))
    for name in ("generation_config.json", "config.json"):
        edit(model / name, lambda found: found.pop("pad_token_id"))
    report = preflight.check(RunConfig.build(None, {"model": str(model)}))
    assert report.problems == {} and "no pad token" in report.warnings[0]


def test_lengths_must_fit_the_context(model: Path) -> None:
    assert "at most 1024 tokens" in problems(max_completion_length=1024)["max_completion_length"]
    assert (
        "more than the 1024"
        in problems(max_completion_length=600, max_prompt_length=600)["max_prompt_length"]
    )
    assert problems(max_completion_length=600, max_prompt_length=400) == {}


def test_prompts_that_cannot_fit_are_named_by_row_before_anything_is_loaded(tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"{n}+1=", "answer": "1"} for n in range(40)] + [
        {"prompt": "7+" * 1100, "answer": "2"}
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sentence = problems(task="data", data=str(data))["data"]
    assert "longer than the 1023 tokens that fit: row 41 (2200 tokens)" in sentence
    assert "max_prompt_length" in problems(task="data", data=str(data), max_prompt_length=20)


def test_own_data_is_read_before_the_start_and_faults_carry_rows(tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text(
        "".join(json.dumps({"prompt": f"{n}+1=", "answer": str(n + 1)}) + "\n" for n in range(40))
    )
    assert problems(task="data", data=str(data)) == {}
    assert "prompt_column" in problems(task="data", data=str(data), prompt_column="ask")
    assert "only 36 prompts" in problems(task="data", data=str(data), prompts_per_step=64)["prompts_per_step"]
    with data.open("a") as file:
        file.write('{"prompt": "", "answer": "1"}\n')
    assert "row 41" in problems(task="data", data=str(data))["data"]
    assert (
        "not there" in problems(task="data", data=str(tmp_path / "none.jsonl"))["data"]
        or "no such" in problems(task="data", data=str(tmp_path / "none.jsonl"))["data"]
    )


def test_an_unknown_task_is_named() -> None:
    assert "chain" in problems(task="chess")["task"]


def test_a_reward_that_cannot_work_is_refused_with_its_line(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "def short(completion):\n    return len(completion) < 9\n\ndef odd(flavour):\n    return 1\n"
    )
    assert problems(rewards=["correct", f"{mine}:short=0.5"]) == {}
    assert "asks for `flavour`, which is not there" in problems(rewards=[f"{mine}:odd"])["rewards"]
    mine.write_text("def short(completion):\n    return len(completion <\n")
    assert "line 2" in problems(rewards=[f"{mine}:short"])["rewards"]


def test_a_run_keeps_the_exact_code_of_its_rewards_and_its_verifier(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def short(completion):\n    return float(len(completion) < 9)\n")
    config = RunConfig.build(None, {"rewards": [f"{mine}:short"], "steps": 1})
    folder = preflight.start(config, tmp_path / "runs", worker=FAKE_WORKER)
    try:
        mine.write_text("edited while it runs")
        sources = [RewardSource.of_record(found, folder.rewards) for found in folder.about()["rewards"]]
        assert [(source.name, source.weight, source.enabled) for source in sources] == [
            ("short", 1.0, True),
            ("correct", 0.0, False),
        ]
        assert "len(completion) < 9" in Path(sources[0].path).read_text()
    finally:
        launch.stop(folder, grace=0, kill_after=0)


def test_the_verifier_is_watched_once_and_may_be_any_reward() -> None:
    assert [
        spec.name for spec in registry.with_verifier(RunConfig.build(None, {"rewards": ["correct"]}))
    ] == ["correct"]
    watched = registry.with_verifier(RunConfig.build(None, {"rewards": ["format"]}))
    assert watched[-1] == RewardSpec(name="correct", weight=0.0, enabled=False)
    assert (
        registry.with_verifier(RunConfig.build(None, {"rewards": ["correct"], "eval_reward": "format"}))[
            -1
        ].name
        == "format"
    )


def test_all_problems_come_at_once_and_nothing_is_made(tmp_path: Path) -> None:
    config = RunConfig.build(
        None, {"model": str(tmp_path / "none"), "rewards": ["corect"], "prompts_per_step": 1000}
    )
    with pytest.raises(ConfigError) as error:
        preflight.start(config, tmp_path / "runs", worker=FAKE_WORKER)
    assert set(error.value.problems) == {"model", "rewards", "prompts_per_step"}
    assert not (tmp_path / "runs").exists()


def test_paths_are_kept_absolute_and_words_stay_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("embedded").mkdir()
    assert preflight.check(RunConfig.build(None, {"model": "model"})).config.model == str(model)
    assert preflight.check(RunConfig.build()).config.model == "embedded"


def test_a_full_disk_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10 * 2**20)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: usage)
    with pytest.raises(RunError, match="10 MiB free"):
        preflight.start(RunConfig.build(), tmp_path / "runs", worker=FAKE_WORKER)
    assert not (tmp_path / "runs").exists()


def test_a_disk_that_fills_while_the_run_is_made_leaves_no_half_made_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, status: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record.RunFolder, "write_status", full)
    with pytest.raises(RunError, match="No space left on device"):
        preflight.start(RunConfig.build(), tmp_path / "runs", worker=FAKE_WORKER)
    assert record.folders(tmp_path / "runs") == []
