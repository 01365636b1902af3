"""The reader gives what was stored: the same during a run, after it, and empty results before it."""

import dataclasses
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import fake_config, make_step, write_fake_run
from workbench.core.errors import RunError
from workbench.diagnose.verdict import of_run, verdict
from workbench.record import folder as record
from workbench.record import schema
from workbench.record.folder import RunFolder
from workbench.record.groups import token_strings
from workbench.record.reader import Reader
from workbench.record.writer import Writer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_fake_run(
        tmp_path_factory.mktemp("runs"), steps=21, groups=6, samples=8, eval_steps=5, failures=0.02
    )


def test_the_shape_of_a_group_is_what_scripts_rely_on(run: RunFolder) -> None:
    group = Reader(run).group(4, 2)
    assert {"prompt_id", "prompt", "answer", "reward_mean", "reward_std", "samples"} <= set(group)
    wanted = {
        "id",
        "text",
        "token_ids",
        "logprob_sum",
        "length",
        "finish_reason",
        "rewards",
        "reward",
        "advantage",
        "kl",
    }
    assert all(wanted <= set(sample) for sample in group["samples"])
    assert "sampler_logp" not in group["samples"][0]
    json.dumps(group, allow_nan=False)


def test_a_group_holds_what_was_recorded(run: RunFolder) -> None:
    step = make_step(4, steps=21, groups=6, samples=8, failures=0.02)
    found = Reader(run).group(4, 2, arrays=True)
    assert found["prompt_id"] == step.groups[2].prompt.id
    assert step.tokens is not None and step.tokens.after_logp is not None
    for i, (sample, rollout) in enumerate(zip(found["samples"], step.groups[2].rollouts, strict=True)):
        assert sample["text"] == rollout.text and sample["token_ids"] == rollout.token_ids.tolist()
        assert sample["seed"] == rollout.seed
        assert "".join(sample["tokens"]).removesuffix("<|end|>") == rollout.text
        assert sample["after_logp"] == pytest.approx(step.tokens.after_logp[16 + i], abs=2e-3)
        assert sample["rewards"] == step.scores_B[16 + i].values


def test_the_advantages_follow_from_the_figures_beside_them(run: RunFolder) -> None:
    for row in Reader(run).groups(7):
        group = Reader(run).group(7, row["k"])
        for sample in group["samples"]:
            if sample["reward"] is not None:
                expected = (sample["reward"] - group["reward_mean"]) / (group["reward_std"] + 1e-4)
                assert sample["advantage"] == pytest.approx(expected, abs=1e-6)


def test_rows_of_a_step_come_by_share_of_the_gradient_with_dots_from_wrong_to_right(run: RunFolder) -> None:
    rows = Reader(run).groups(9)
    by_share = [row["gradient_share"] for row in rows]
    assert by_share == sorted(by_share, reverse=True) and sum(by_share) == pytest.approx(1.0)
    assert sorted(row["k"] for row in rows) == list(range(6))
    for row in rows:
        right = [dot["right"] is True for dot in row["dots"]]
        assert right == sorted(right) and sum(right) == row["right"] and len(right) == row["n"] == 8
        assert sorted(dot["i"] for dot in row["dots"]) == list(range(8))
        if not row["dead"]:
            assert row["a_right"] > 0 > row["a_wrong"]


def test_a_series_comes_in_parts_that_make_the_whole(run: RunFolder) -> None:
    everything = Reader(run).series()
    parts = [Reader(run).series(limit=7)]
    while parts[-1]["train"]["step"] or parts[-1]["sampled"]["step"] or parts[-1]["greedy"]["step"]:
        parts.append(Reader(run).series(parts[-1]["cursor"], limit=7))
    for table, name in (("train", "reward"), ("sampled", "heldout/sampled/accuracy"), ("greedy", "step")):
        assert [value for part in parts for value in part[table].get(name, [])] == everything[table][name]
    assert everything["train"]["step"] == list(range(21)) and everything["sampled"]["step"] == [
        0,
        5,
        10,
        15,
        20,
    ]
    assert parts[-1]["cursor"] == everything["cursor"]
    assert set(Reader(run).series(names=["reward", "nothing"])["train"]) == {"step", "reward", "nothing"}


def test_the_ribbon_holds_a_sorted_column_a_step_and_every_mark(run: RunFolder) -> None:
    ribbon = Reader(run).ribbon()
    assert [column["step"] for column in ribbon["steps"]] == list(range(21))
    for column in ribbon["steps"]:
        assert len(column["right"]) == len(column["reward"]) == len(column["dead"]) == column["groups"] == 6
        assert column["right"] == sorted(column["right"])
        rows = Reader(run).groups(column["step"])
        assert sorted(
            "rwt."[["right", "wrong", "tied"].index(row["dead"]) if row["dead"] else 3] for row in rows
        ) == sorted(column["dead"])
    kinds = [(mark["step"], mark["kind"]) for mark in ribbon["marks"]]
    assert (
        (14, "alarm") in kinds
        and (20, "setting") in kinds
        and [s for s, kind in kinds if kind == "check"] == [0, 5, 10, 15, 20]
    )
    assert Reader(run).ribbon(ribbon["cursor"])["steps"] == []


def test_many_groups_become_quantiles_of_a_ribbon_column(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, steps=1, groups=100, samples=4)
    column = Reader(folder).ribbon()["steps"][0]
    assert column["groups"] == 100 and len(column["right"]) == len(column["dead"]) == 48
    assert column["right"] == sorted(column["right"])


def test_frames_hold_the_same_figures(run: RunFolder) -> None:
    reader = Reader(run)
    frame = reader.metrics(["reward", "heldout/greedy/accuracy"], since=5)
    train = frame[frame.kind == "train"]
    assert list(train.step) == list(range(5, 21))
    assert train.reward.tolist() == reader.series()["train"]["reward"][5:]
    samples = reader.samples(3)
    assert len(samples) == 48 and samples["rewards/correct"].mean() == pytest.approx(
        reader.series()["train"]["rewards/correct/mean"][3]
    )
    everything = reader.samples(since=2, until=4)
    assert sorted(everything.step.unique()) == [2, 3, 4]
    failed = reader.samples()[lambda table: table.reward.isna()]
    assert len(failed) and failed["rewards/correct"].isna().all() and failed["rewards/format"].notna().all()


def test_checks_are_groups_too(run: RunFolder) -> None:
    reader = Reader(run)
    assert reader.steps("eval") == [0, 5, 10, 15, 20]
    sampled, greedy = (reader.group(5, 0, "eval", mode) for mode in ("sampled", "greedy"))
    assert sampled["mode"] == "sampled" and len(sampled["samples"]) == 4 and len(greedy["samples"]) == 1
    assert sampled["samples"][0]["advantage"] is None and sampled["samples"][0]["token_ids"]
    assert reader.group(5, 0, "eval")["mode"] == "sampled"


def test_a_prompt_is_followed_through_the_run(run: RunFolder) -> None:
    reader = Reader(run)
    watched = reader.group(0, 0, "eval", "sampled")["prompt_id"]
    visits = reader.prompt_history(watched)
    assert [(visit["step"], visit["mode"]) for visit in visits] == [
        (s, m) for s in (0, 5, 10, 15, 20) for m in ("greedy", "sampled")
    ]
    assert all(len(visit["samples"]) == visit["n"] for visit in visits)
    assert reader.prompt_history("nothing") == []
    assert watched in {prompt["prompt_id"] for prompt in reader.prompts()}


@pytest.mark.parametrize(
    ("step", "k", "message"),
    [(99, 0, "no step 99.*Recorded: 0 to 20"), (3, 6, "no group 6.*numbered 0 to 5")],
)
def test_an_error_about_what_is_missing_names_what_there_is(
    run: RunFolder, step: int, k: int, message: str
) -> None:
    with pytest.raises(RunError, match=message):
        Reader(run).group(step, k)


def test_before_the_first_step_everything_is_empty(tmp_path: Path) -> None:
    reader = Reader(record.create(tmp_path, fake_config()))
    assert (
        reader.steps() == []
        and reader.last_step() is None
        and reader.events() == []
        and reader.alarms() == []
    )
    assert reader.series() == {
        "cursor": 0,
        "forget_from": None,
        "train": {"step": []},
        "sampled": {"step": []},
        "greedy": {"step": []},
    }
    assert reader.ribbon() == {"cursor": 0, "forget_from": None, "steps": [], "marks": []}
    assert (
        reader.metrics().empty
        and reader.samples().empty
        and reader.search("x") == []
        and reader.notice is None
    )
    assert of_run(reader).sentence == "Starting: nothing is recorded yet."
    with pytest.raises(RunError, match="no record yet"):
        reader.groups(0)
    assert not reader.folder.db_path.exists()


def test_a_reader_sees_each_step_as_it_is_committed(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config(groups=2, samples=3))
    reader = Reader(folder)
    with Writer(folder) as writer:
        for step in range(4):
            writer.step(make_step(step, groups=2, samples=3))
            writer.flush()
            assert reader.last_step() == step and len(reader.groups(step)) == 2


def test_a_run_on_a_medium_that_cannot_be_written_reads_the_same(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = RunFolder(tmp_path / run.id)
    shutil.copytree(run.path, copy.path)
    opened: list[str] = []

    def refuse(connection: sqlite3.Connection) -> int:
        # What sqlite says where it cannot make the shared-memory file of the log; root is never refused one.
        name = connection.execute("SELECT file FROM pragma_database_list").fetchone()[0]
        opened.append(name)
        if len(opened) % 2:
            raise sqlite3.OperationalError("unable to open database file")
        return len(schema.MIGRATIONS)

    expected = Reader(run).series()
    monkeypatch.setattr(schema, "version", refuse)
    with schema.open_reader(copy.db_path) as db:
        assert len(db.execute("SELECT id FROM steps").fetchall()) == expected["cursor"]
    assert len(opened) == 2
    assert [path.name for path in copy.path.glob("run.db*")] == ["run.db"]


def test_a_damaged_token_file_costs_only_the_token_view(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, steps=1, groups=1, samples=2)
    (folder.tokens / "step-000000.safetensors").write_bytes(b"\x10" * 50)
    assert len(Reader(folder).groups(0)) == 1
    with pytest.raises(RunError, match=r"step-000000.safetensors is damaged"):
        Reader(folder).group(0, 0)


def test_a_character_made_of_several_tokens_appears_at_the_last_of_them() -> None:
    texts = {1: "é".encode()[:1], 2: "é".encode()[1:], 3: b"x"}
    assert token_strings([3, 1, 2, 9], texts) == ["x", "", "é", "⟨9⟩"]


def test_reading_needs_neither_torch_nor_pandas(run: RunFolder) -> None:
    code = """if True:
        import sys
        from workbench.record.reader import Reader
        reader = Reader(sys.argv[1])
        reader.series(), reader.ribbon(), reader.groups(3), reader.search("check")
        reader.group(3, 0, arrays=True)
        print([name for name in ("torch", "pandas", "gradio", "transformers") if name in sys.modules])"""
    process = subprocess.run(
        [sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"


def test_reading_while_writing_never_shows_half_a_step(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config(groups=3, samples=4))
    reader = Reader(folder)
    with Writer(folder) as writer:
        for step in range(12):
            writer.step(make_step(step, groups=3, samples=4))
            last = reader.last_step()
            if last is not None:
                assert sum(len(row["dots"]) for row in reader.groups(last)) == 12
    assert np.diff(reader.series()["train"]["step"]).tolist() == [1] * 11


def test_the_ends_of_a_run_are_the_first_and_last_rows_of_its_series(run: RunFolder) -> None:
    everything = Reader(run).series()
    found = Reader(run).ends(["reward", "heldout/sampled/accuracy"], head=3, tail=4)
    assert found["steps"] == 21
    assert found["train"]["step"] == [0, 1, 2, 17, 18, 19, 20]
    assert found["train"]["reward"] == everything["train"]["reward"][:3] + everything["train"]["reward"][-4:]
    assert found["sampled"]["heldout/sampled/accuracy"] == everything["sampled"]["heldout/sampled/accuracy"]


def test_a_verdict_from_the_ends_is_that_from_the_whole(run: RunFolder) -> None:
    reader = Reader(run)
    everything = reader.series()
    state = str(reader.status["state"])
    expected = verdict(
        everything["train"], everything["sampled"], everything["greedy"], config=reader.config, state=state
    )
    assert of_run(reader) == expected


def test_a_metric_that_comes_late_is_absent_before(tmp_path: Path) -> None:
    folder = record.create(tmp_path, fake_config(groups=1, samples=2))
    with Writer(folder) as writer:
        for step, metrics in enumerate([{"reward": 0.1}, {"mine/late": 5.0, "reward": 0.2}, {"reward": 0.3}]):
            writer.step(dataclasses.replace(make_step(step, groups=1, samples=2), metrics=metrics))
    with Writer(folder) as writer:  # as a resumed run: places of names are read back
        last = {"another": 1.0, "mine/late": 6.0}
        writer.step(dataclasses.replace(make_step(3, groups=1, samples=2), metrics=last))
    found = Reader(folder).series()["train"]
    assert found == {
        "step": [0, 1, 2, 3],
        "reward": [0.1, 0.2, 0.3, None],
        "mine/late": [None, 5.0, None, 6.0],
        "another": [None, None, None, 1.0],
    }
    with sqlite3.connect(folder.db_path) as db:
        rows = db.execute("SELECT step, value FROM metrics WHERE name = 'mine/late' ORDER BY step").fetchall()
    assert rows == [(1, 5.0), (3, 6.0)]
