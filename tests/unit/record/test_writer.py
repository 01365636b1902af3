"""What the loop hands over is what the database holds: one transaction a step, rows never dropped, numbers by
hand."""

import dataclasses
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.fakes import fake_config, make_step, token_text
from workbench.core.errors import RunError
from workbench.core.types import Group, Prompt, Rollout, Score, StepRecord, TokenArrays, prompt_id
from workbench.record import folder as record
from workbench.record import tokens
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.record.writer import Writer


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return record.create(tmp_path, fake_config(groups=2, samples=3, keep_token_steps=20))


def two_samples(step: int = 0, **changes: object) -> StepRecord:
    """One group of two completions whose every number is easy to work out."""
    prompt = Prompt("1+1", "2", {"level": 1}, "<1+1>", (1, 2), prompt_id("<1+1>", "2"))
    right = Rollout(
        np.array([5, 6], np.int32), np.array([-1.0, -0.5], np.float32), "<answer>2</answer>", "stop", seed=7
    )
    wrong = Rollout(
        np.array([5], np.int32), np.array([-0.25], np.float32), "3", "length", weights_version=4, seed=2**62
    )
    arrays = TokenArrays(
        token_ids=[right.token_ids, wrong.token_ids], sampler_logp=[right.logprobs, wrong.logprobs],
        policy_logp=[np.array([-1.0, -0.5], np.float32), np.array([-0.25], np.float32)],
        reference_logp=[np.array([-1.0, -1.5], np.float32), np.array([-0.25], np.float32)],
        after_logp=[np.array([-0.75, -0.5], np.float32), np.array([-0.5], np.float32)],
        entropy=[np.array([0.25, 0.75], np.float32), np.array([0.5], np.float32)],
    )  # fmt: skip
    record_of_two = StepRecord(
        step, "train", [Group(prompt, (right, wrong))],
        [Score({"correct": 1.0, "style": None}, {"style": "ValueError (my.py line 2)"}, 1.0, {"note": "x"}),
         Score({"correct": 0.0, "style": 0.5}, {}, 0.0)],
        advantages_B=np.array([0.7, -0.7]), tokens=arrays, gradient_share_B=np.array([0.75, 0.25]),
        metrics={"reward": 0.5, "loss": float("nan")}, phases={"sample": 2.0, "update": 1.0},
        styles_B=["direct", "bare"],
    )  # fmt: skip
    return dataclasses.replace(record_of_two, **changes)  # type: ignore[arg-type]


def test_every_number_of_a_step_comes_back_as_it_went_in(folder: RunFolder) -> None:
    with Writer(folder, token_text=lambda token: {5: b"<", 6: "2"}[token]) as writer:
        writer.step(two_samples())
    group = Reader(folder).group(0, 0, arrays=True)
    assert (
        group["prompt_id"] == prompt_id("<1+1>", "2")
        and group["prompt"] == "<1+1>"
        and group["answer"] == "2"
    )
    assert group["question"] == "1+1" and group["columns"] == {"level": 1}
    assert group["reward_mean"] == 0.5 and group["reward_std"] == pytest.approx(
        np.sqrt(0.5)
    )  # sample std of 0 and 1
    assert (group["n"], group["scored"], group["right"], group["dead"], group["gradient_share"]) == (
        2,
        2,
        1,
        "",
        1.0,
    )
    first, second = group["samples"]
    assert (
        first["text"] == "<answer>2</answer>"
        and first["token_ids"] == [5, 6]
        and first["tokens"] == ["<", "2"]
    )
    assert first["logprob_sum"] == -1.5 and first["length"] == 2 and first["finish_reason"] == "stop"
    assert first["rewards"] == {"correct": 1.0, "style": None} and first["reasons"] == {
        "style": "ValueError (my.py line 2)"
    }
    assert (
        first["reward"] == 1.0
        and first["right"] is True
        and first["advantage"] == 0.7
        and first["logs"] == {"note": "x"}
    )
    # k3 of d = reference - policy: 0 for the first token, e^-1 + 1 - 1 = e^-1 for the second
    assert first["kl"] == pytest.approx(np.exp(-1) / 2) and first["kl_sum"] == 1.0
    assert first["entropy"] == 0.5 and first["delta_logp"] == 0.25 and first["gradient_share"] == 0.75
    assert (
        first["sampler_logp"] == [-1.0, -0.5]
        and first["entropy_T"] == [0.25, 0.75]
        and first["weight"] is None
    )
    assert second["right"] is False and second["finish_reason"] == "length" and second["delta_logp"] == -0.25
    assert (
        second["seed"] == 2**62
        and second["weights_version"] == 4
        and second["style"] == "bare"
        and second["kl"] == 0.0
    )


def test_a_metric_that_is_no_number_is_left_out_and_counted(folder: RunFolder) -> None:
    with Writer(folder) as writer:
        writer.step(two_samples())
    with sqlite3.connect(folder.db_path) as db:
        rows = db.execute("SELECT name, value FROM metrics WHERE step = 0 AND kind = 'train'").fetchall()
    assert dict(rows) == {"reward": 0.5, "record/nonfinite_dropped": 1.0}


def test_a_reward_that_gave_nothing_is_null_with_its_reason_never_zero(folder: RunFolder) -> None:
    silent = [
        Score({"correct": None}, {"correct": "time-out after 10 s"}, None),
        Score({"correct": 1.0}, {}, 1.0),
    ]
    with Writer(folder) as writer:
        writer.step(two_samples(scores_B=silent))
    group = Reader(folder).group(0, 0)
    assert group["samples"][0]["reward"] is None and group["samples"][0]["rewards"] == {"correct": None}
    assert (
        group["samples"][0]["reasons"] == {"correct": "time-out after 10 s"}
        and group["samples"][0]["right"] is None
    )
    assert (group["scored"], group["right"], group["reward_mean"], group["reward_std"]) == (1, 1, 1.0, 0.0)


@pytest.mark.parametrize(
    "text", ["", "\0nul", "\ud800 lone", "a" * 1_000_000, "\u202eright to left", "<script>alert(1)</script>"]
)
def test_any_text_a_model_can_say_is_stored(folder: RunFolder, text: str) -> None:
    odd = two_samples()
    rollout = dataclasses.replace(odd.groups[0].rollouts[0], text=text)
    odd.groups = [dataclasses.replace(odd.groups[0], rollouts=(rollout, odd.groups[0].rollouts[1]))]
    with Writer(folder) as writer:
        writer.step(odd)
    assert Reader(folder).group(0, 0)["samples"][0]["text"] == text.replace(
        "\ud800", "\N{REPLACEMENT CHARACTER}"
    )


def test_token_arrays_keep_their_lengths_and_lie_in_half_precision(folder: RunFolder) -> None:
    with Writer(folder) as writer:
        writer.step(two_samples())
    arrays = load_file(folder.tokens / "step-000000.safetensors")
    assert arrays["offsets"].tolist() == [0, 2, 3] and arrays["token_ids"].dtype == np.int32
    assert arrays["sampler_logp"].dtype == np.float16 and "weight" not in arrays
    back = tokens.load(folder.tokens / "step-000000.safetensors")
    assert back[1].arrays["after_logp"].tolist() == [-0.5] and back[0].arrays["weight"] is None


def test_old_token_files_go_but_for_every_tenth_step(folder: RunFolder) -> None:
    config = fake_config(keep_token_steps=5)
    with Writer(folder, config) as writer:
        for step in range(31):
            writer.step(two_samples(step))
    kept = sorted(int(path.name[5:11]) for path in folder.tokens.glob("step-*"))
    assert kept == [0, 10, 20, 26, 27, 28, 29, 30]
    assert Reader(folder).group(7, 0)["samples"][0]["token_ids"] is None
    assert Reader(folder).group(7, 0)["samples"][0]["text"] == "<answer>2</answer>"


def test_token_arrays_give_way_under_pressure_and_rows_do_not(folder: RunFolder) -> None:
    with Writer(folder, max_token_bytes=0) as writer:
        writer.step(two_samples())
    reader = Reader(folder)
    sample = reader.group(0, 0)["samples"][0]
    assert sample["token_ids"] is None and sample["kl_sum"] == 1.0 and sample["delta_logp"] == 0.25
    assert reader.series()["train"]["record/tokens_dropped"] == [1.0]
    assert list(folder.tokens.iterdir()) == []


def test_a_token_file_that_cannot_be_written_costs_no_row(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokens, "save", full)
    with Writer(folder) as writer:
        writer.step(two_samples())
    assert Reader(folder).series()["train"]["record/tokens_dropped"] == [1.0]
    assert len(Reader(folder).group(0, 0)["samples"]) == 2


def test_a_full_queue_makes_the_loop_wait_and_loses_nothing(folder: RunFolder) -> None:
    holder = sqlite3.connect(folder.db_path, isolation_level=None, check_same_thread=False)
    with Writer(folder, max_pending=2) as writer:
        holder.execute("BEGIN IMMEDIATE")
        pushed: list[int] = []

        def push() -> None:
            for step in range(6):
                writer.step(two_samples(step))
                pushed.append(step)

        loop = threading.Thread(target=push)
        loop.start()
        loop.join(0.5)
        assert loop.is_alive() and len(pushed) <= 2
        holder.execute("COMMIT")
        loop.join(30)
        assert not loop.is_alive()
    holder.close()
    assert Reader(folder).steps() == [0, 1, 2, 3, 4, 5]


def test_a_step_that_comes_again_replaces_the_earlier_one(folder: RunFolder) -> None:
    with Writer(folder) as writer:
        writer.step(two_samples(metrics={"reward": 0.1}))
        writer.step(two_samples(metrics={"reward": 0.2}))
    reader = Reader(folder)
    assert reader.steps() == [0] and reader.series()["train"]["reward"] == [0.2]
    assert len(reader.samples(0)) == 2


def test_rows_past_a_checkpoint_keep_their_attempt_and_leave_the_charts(folder: RunFolder) -> None:
    def check(step: int) -> StepRecord:
        return two_samples(step, kind="eval", mode="sampled", advantages_B=None)

    with Writer(folder) as writer:
        for step in range(4):
            if step % 2 == 0:
                writer.step(check(step))
            writer.step(two_samples(step))
        writer.step(check(4))
        writer.flush()
        seen = Reader(folder).series()["cursor"]
        assert writer.start_attempt(2) == 2
        writer.step(two_samples(2))
    reader = Reader(folder)
    assert reader.steps() == [0, 1, 2] and reader.steps("eval") == [0, 2]
    assert reader.series(since=seen)["forget_from"] == 2 and reader.series(since=seen)["train"]["step"] == [2]
    assert reader.series()["forget_from"] is None
    with sqlite3.connect(folder.db_path) as db:
        kept = db.execute(
            "SELECT step, attempt, current FROM steps WHERE kind = 'train' ORDER BY id"
        ).fetchall()
    assert kept == [(0, 1, 1), (1, 1, 1), (2, 1, 0), (3, 1, 0), (2, 2, 1)]
    with Writer(folder) as writer:
        assert writer.attempt == 2


def test_events_and_alarms_are_kept_in_order(folder: RunFolder) -> None:
    with Writer(folder) as writer:
        writer.event("command", {"id": "a", "ok": True, "odd": {1, 2}, "nan": float("nan")}, 3)
        writer.event("setting_changed", {"beta": {"from": 0.0, "to": 0.02}}, 5)
        writer.alarm("entropy", "warning", 4, "Entropy fell", evidence={"samples": [1]})
        writer.alarm("entropy", "critical", 6, "Entropy is gone", remedies=[{"label": "T 1.2"}])
        writer.clear_alarm("entropy", 8)
        writer.alarm("entropy", "warning", 9, "Entropy fell again")
    reader = Reader(folder)
    assert [event["kind"] for event in reader.events()] == ["command", "setting_changed"]
    assert reader.events(kind="command")[0]["data"]["nan"] is None
    assert reader.events(since=1)[0]["data"] == {"beta": {"from": 0.0, "to": 0.02}}
    newest, old = reader.alarms()
    assert (old["since_step"], old["last_step"], old["cleared_step"], old["level"]) == (4, 6, 8, "critical")
    assert old["remedies"] == [{"label": "T 1.2"}] and old["evidence"] == {}
    assert newest["claim"] == "Entropy fell again" and [a["name"] for a in reader.alarms(open_only=True)] == [
        "entropy"
    ]
    assert {"step": 5, "kind": "setting", "text": "beta 0.0 → 0.02"} in reader.ribbon()["marks"]


def test_a_record_that_cannot_be_stored_is_an_error_and_later_ones_are_written(folder: RunFolder) -> None:
    broken = two_samples(1)
    broken.scores_B = broken.scores_B[:1]
    writer = Writer(folder)
    writer.step(two_samples(0))
    writer.step(broken)
    with pytest.raises(RunError, match=r"could not be stored.*Earlier steps are safe"):
        writer.flush(10)
    writer.retry()
    writer.step(two_samples(2))
    writer.close()
    assert Reader(folder).steps() == [0, 2]


def test_a_closed_writer_refuses_and_leaves_one_plain_file(folder: RunFolder) -> None:
    writer = Writer(folder)
    writer.step(two_samples())
    writer.close()
    writer.close()
    with pytest.raises(RunError, match="closed already"):
        writer.step(two_samples(1))
    assert [path.name for path in folder.path.glob("run.db*")] == ["run.db"]


def test_the_search_index_is_complete_once_the_writer_is_closed(folder: RunFolder) -> None:
    with Writer(folder, token_text=token_text) as writer:
        for step in range(3):
            writer.step(make_step(step, groups=2, samples=3))
    with sqlite3.connect(folder.db_path) as db:
        assert db.execute("SELECT count(*) FROM samples_fts_docsize").fetchone() == (18,)
        db.execute("INSERT INTO samples_fts (samples_fts, rank) VALUES ('integrity-check', 1)")


def test_the_database_refers_to_nothing_that_is_not_there(folder: RunFolder) -> None:
    with Writer(folder, token_text=token_text) as writer:
        for step in range(3):
            writer.step(make_step(step, groups=2, samples=3, failures=0.3))
    with sqlite3.connect(folder.db_path) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_steps_and_checks_may_come_from_two_threads(folder: RunFolder) -> None:
    def push(kind: str, mode: str | None) -> None:
        for step in range(20):
            writer.step(two_samples(step, kind=kind, mode=mode))

    # Room for all 40 records: under pressure the token arrays of a step may rightly be dropped.
    with Writer(folder, token_text=lambda token: str(token), max_pending=100) as writer:
        threads = [threading.Thread(target=push, args=args) for args in (("train", None), ("eval", "greedy"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    reader = Reader(folder)
    assert reader.steps() == reader.steps("eval") == list(range(20))
    assert reader.series()["cursor"] == 40
    assert reader.group(19, 0, arrays=True)["samples"][0]["tokens"] == ["5", "6"]
