"""The JSON routes over recorded runs, called as the reader calls them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.fakes import write_fake_run
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.record.writer import Writer
from workbench.view.common.curves import MOST_STEPS, thin
from workbench.view.common.routing import PlainJSON
from workbench.view.common.run_store import RunStore
from workbench.view.runs.run_list import SPARK, spark
from workbench.view.server import routes


@pytest.fixture(scope="module")
def client(store: RunStore) -> TestClient:
    return serve(store)


def serve(store: RunStore) -> TestClient:
    app = FastAPI()
    app.include_router(routes.router(store), prefix="/wb/api")
    return TestClient(app, base_url="http://127.0.0.1")


def get(client: TestClient, path: str, status: int = 200) -> Any:
    response = client.get(f"/wb/api/{path}")
    assert response.status_code == status, response.text
    return json.loads(response.text, parse_constant=lambda word: pytest.fail(f"{word} in a response"))


def test_nan_and_infinity_are_null_in_a_response() -> None:
    assert (
        PlainJSON({"a": [float("nan"), float("inf"), 1.5], "β": None}).body
        == '{"a":[null,null,1.5],"β":null}'.encode()
    )


def test_the_list_of_runs_is_newest_first_with_curve_and_verdict(client: TestClient, run: RunFolder) -> None:
    rows = get(client, "runs")["runs"]
    first = next(row for row in rows if row["id"] == run.id)
    series = Reader(run).series()
    assert [row["id"] for row in rows] == sorted((row["id"] for row in rows), reverse=True)
    assert first["spark"] == series["train"]["reward"]
    assert first["heldout"]["sampled"] == series["sampled"]["heldout/sampled/accuracy"][-1]
    assert (first["name"], first["state"], first["step"], first["steps"]) == ("first", "finished", 12, 12)
    assert first["verdict"]["sentence"].startswith(first["verdict"]["state"])


def test_a_damaged_folder_is_a_row_that_says_why(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, steps=1, groups=2, samples=2)
    folder.config_path.write_text("{ half")
    [row] = get(serve(RunStore(tmp_path)), "runs")["runs"]
    assert row["state"] == "damaged" and "config.json" in row["damaged"]


def test_the_folder_of_a_probe_worker_is_no_run(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, steps=1, groups=2, samples=2)
    about = folder.about()
    folder.config_path.write_text(json.dumps({**about, "kind": "probe"}))
    assert get(serve(RunStore(tmp_path)), "runs")["runs"] == [] and RunStore(tmp_path).empty()


def test_the_header_holds_what_does_not_change(client: TestClient, run: RunFolder) -> None:
    header = get(client, f"runs/{run.id}")
    assert header["config"]["num_generations"] == 4 and header["accuracy_reward"] == "correct"
    assert header["changed"]["learning_rate"] == 1e-3 and "lora_r" not in header["changed"]
    assert header["reward_range"] == [0.0, 1.0] and header["binary"] is True
    assert {setting["name"] for setting in header["live_settings"]} >= {
        "beta",
        "temperature",
        "learning_rate",
    }


def test_the_header_shows_live_settings_as_they_were_changed(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, steps=21, groups=2, samples=2)  # step 20 sets the temperature
    header = get(serve(RunStore(tmp_path)), f"runs/{folder.id}")
    assert header["config"]["temperature"] == 1.0
    assert {"name": "temperature", "label": "Temperature", "value": 1.1} in header["live_settings"]


def test_the_first_delta_holds_everything_the_run_recorded(client: TestClient, run: RunFolder) -> None:
    delta = get(client, f"runs/{run.id}/delta")
    series = Reader(run).series()
    assert delta["steps"] == list(range(12)) and delta["metrics"]["reward"] == series["train"]["reward"]
    assert delta["metric_parts"]["correct"] == series["train"]["rewards/correct/mean"]
    assert not any(name.startswith("rewards/") for name in delta["metrics"])
    assert [(check["step"], check["mode"]) for check in delta["checks"]] == [
        (step, mode) for step in (0, 5, 10) for mode in ("sampled", "greedy")]  # fmt: skip
    for check in delta["checks"]:
        names = [
            f"heldout/{check['mode']}/{name}"
            for name in ("accuracy", "accuracy_low", "accuracy_high", "problems")
        ]
        place = series[check["mode"]]["step"].index(check["step"])
        assert check["metrics"] == {name: series[check["mode"]][name][place] for name in names}
        assert check["n"] == check["metrics"][names[3]]
    assert [column["step"] for column in delta["ribbon"]] == list(range(12))
    assert (delta["status"]["state"], delta["reset"], delta["thinned"]) == ("finished", False, 1)


def test_ribbon_columns_run_from_the_best_group_to_the_worst(client: TestClient, run: RunFolder) -> None:
    delta = get(client, f"runs/{run.id}/delta")
    groups = get(client, f"runs/{run.id}/steps/3")["groups"]
    column = next(column for column in delta["ribbon"] if column["step"] == 3)
    assert column["values"] == sorted(
        (round(group["right"] / group["n"], 4) for group in groups), reverse=True
    )
    assert sorted(column["dead"]) == sorted((group["dead"] or ".")[0] for group in groups)


def test_a_second_delta_holds_only_what_is_new(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, steps=3, total=9, groups=2, samples=2, state="running")
    client = serve(RunStore(tmp_path))
    first = get(client, f"runs/{folder.id}/delta")
    again = get(client, f"runs/{folder.id}/delta?since={first['cursor']}")
    assert (again["steps"], again["checks"], again["ribbon"], again["events"]) == ([], [], [], [])
    with Writer(folder, folder.config()) as writer:
        writer.event("checkpoint", {"step": 3}, 3)
    later = get(client, f"runs/{folder.id}/delta?since={first['cursor']}")
    assert [event["kind"] for event in later["events"]] == ["checkpoint"] and later["steps"] == []


def test_alarms_come_with_the_first_delta_and_then_only_when_they_change(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, steps=16, groups=2, samples=2)  # step 14 raises one
    client = serve(RunStore(tmp_path))
    first = get(client, f"runs/{folder.id}/delta")
    [alarm] = first["alarms"]
    assert alarm["claim"] == "Entropy fell to 13 % of its start" and alarm["remedies"][0]["command"] == "set"
    assert get(client, f"runs/{folder.id}/delta?since={first['cursor']}")["alarms"] is None


def test_a_resumed_run_makes_the_page_start_over(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, steps=4, total=9, groups=2, samples=2)
    client = serve(RunStore(tmp_path))
    before = get(client, f"runs/{folder.id}/delta")
    get(client, "runs")  # the list remembers the overtaken steps too
    with Writer(folder, folder.config()) as writer:
        writer.start_attempt(2)
    after = get(client, f"runs/{folder.id}/delta?since={before['cursor']}")
    assert after["reset"] is True and after["steps"] == [0, 1]
    assert len(get(client, "runs")["runs"][0]["spark"]) == 2
    assert get(client, f"runs/{folder.id}/delta?since={after['cursor']}")["reset"] is False


@pytest.mark.parametrize("cursor", ["x", "1-2", "-1-0-0", "1-2-3-4", "9" * 40, "1-0-0;drop"])
def test_a_malformed_cursor_is_refused(client: TestClient, run: RunFolder, cursor: str) -> None:
    assert "no cursor" in get(client, f"runs/{run.id}/delta?since={cursor}", 404)["error"]


def test_thinning_keeps_every_spike() -> None:
    rewards: list[float | None] = [0.5] * 5000
    rewards[1234], rewards[4321], rewards[7] = 0.9, 0.1, None
    kept = thin(list(range(5000)), rewards)
    assert {0, 1234, 4321, 4999} <= set(kept) and len(kept) <= MOST_STEPS and kept == sorted(kept)
    assert thin(list(range(1000)), None) == list(range(1000))


def test_a_step_lists_its_groups_by_their_share_dead_ones_last(client: TestClient, run: RunFolder) -> None:
    step = get(client, f"runs/{run.id}/steps/11")
    shares = [group["gradient_share"] for group in step["groups"] if not group["dead"]]
    assert shares == sorted(shares, reverse=True)
    assert [bool(group["dead"]) for group in step["groups"]] == sorted(
        bool(group["dead"]) for group in step["groups"]
    )
    assert all(len(group["samples"]) == group["n"] == 4 for group in step["groups"])
    assert get(client, f"runs/{run.id}/steps/latest") == step
    assert set(step["phases"]) == {"sample", "score", "update", "record"}


def test_a_group_is_what_run_db_holds(client: TestClient, run: RunFolder) -> None:
    group = get(client, f"runs/{run.id}/steps/7/groups/2?tokens=1")
    stored = Reader(run).group(7, 2, arrays=True)
    assert (group["prompt_id"], group["reward_mean"], group["reward_std"]) == tuple(
        stored[name] for name in ("prompt_id", "reward_mean", "reward_std"))  # fmt: skip
    for shown, sample in zip(group["samples"], stored["samples"], strict=True):
        assert (shown["text"], shown["reward"], shown["advantage"], shown["index"]) == (
            sample["text"], sample["reward"], sample["advantage"], sample["i"])  # fmt: skip
        assert (
            shown["tokens"]["ids"] == sample["token_ids"]
            and shown["tokens"]["sampler"] == sample["sampler_logp"]
        )
        assert "".join(shown["tokens"]["text"]).startswith(sample["text"])
        assert shown["weights"] == {"correct": 1.0, "format": 0.0}
    assert get(client, f"runs/{run.id}/steps/7/groups/2")["samples"][0]["tokens"] is None


def test_advantages_under_other_divisors_match_hand_computed_ones(client: TestClient, run: RunFolder) -> None:
    step = get(client, f"runs/{run.id}/steps/2")
    row = next(group for group in step["groups"] if not group["dead"])
    group = get(client, f"runs/{run.id}/steps/2/groups/{row['k']}")
    rewards = np.array([sample["reward"] for sample in group["samples"]])
    batch_rewards = np.array([sample["reward"] for each in step["groups"] for sample in each["samples"]])
    centred = rewards - rewards.mean()
    whatif = group["whatif"]
    assert whatif["none"] == pytest.approx(centred.tolist())
    assert whatif["group"] == pytest.approx((centred / (rewards.std(ddof=1) + 1e-4)).tolist())
    assert whatif["batch"] == pytest.approx((centred / (batch_rewards.std(ddof=1) + 1e-4)).tolist())
    others = (rewards.sum() - rewards) / (len(rewards) - 1)
    assert whatif["leave_one_out"] == pytest.approx((rewards - others).tolist())  # RLOO divides by nothing
    assert group["batch_std"] == pytest.approx(batch_rewards.std(ddof=1))
    assert group["divisor"] | {"value": None} == {
        "kind": "group", "std": "sample", "value": None, "eps": 1e-4, "baseline": "mean",
        "aggregation": "sum_then_normalize"}  # fmt: skip
    assert group["divisor"]["value"] == pytest.approx(group["reward_std"])
    assert whatif["group"] == pytest.approx([sample["advantage"] for sample in group["samples"]])


def test_a_sample_without_a_score_has_no_advantage_and_a_reason(
    client: TestClient, failing: RunFolder
) -> None:
    for k in range(4):
        group = get(client, f"runs/{failing.id}/steps/0/groups/{k}")
        for sample, advantage in zip(group["samples"], group["whatif"]["group"], strict=True):
            if sample["reward"] is None:
                assert advantage in (None, 0.0) and "reward.py line 3" in sample["reasons"]["correct"]
                return
    pytest.fail("no sample failed: the fixture is too small")


def test_a_held_out_evaluation_has_no_advantages(client: TestClient, run: RunFolder) -> None:
    group = get(client, f"runs/{run.id}/steps/10/groups/0?kind=eval&mode=sampled")
    assert (group["divisor"], group["whatif"], group["kind"]) == (None, None, "eval")


def test_a_prompt_over_time_counts_final_answers(client: TestClient, run: RunFolder) -> None:
    check = get(client, f"runs/{run.id}/steps/10/groups/0?kind=eval&mode=sampled")
    prompt = get(client, f"runs/{run.id}/prompts/{check['prompt_id']}")
    visit = next(visit for visit in prompt["visits"] if visit["step"] == 10 and visit["mode"] == "sampled")
    final = [sample["said"] for sample in check["samples"]]
    assert [row[1] for row in visit["answers"]] == sorted(
        (final.count(one) for one in set(final)), reverse=True
    )
    assert visit["best"]["reward"] >= visit["median"]["reward"] >= visit["worst"]["reward"]
    assert [visit["step"] for visit in prompt["visits"]] == sorted(
        visit["step"] for visit in prompt["visits"]
    )
    assert "never asked" in get(client, f"runs/{run.id}/prompts/0000000000000000", 404)["error"]


@pytest.mark.parametrize(
    "path",
    ["steps/99", "steps/-1", "steps/x", "steps/0/groups/99", "steps/9999999999999", "steps/3?kind=eval"],
)
def test_what_is_not_there_is_a_sentence(client: TestClient, run: RunFolder, path: str) -> None:
    error = get(client, f"runs/{run.id}/{path}", 404)["error"]
    assert len(error) > 20 and "Traceback" not in error


@pytest.mark.parametrize(
    "run_id", ["..", "%2e%2e", "..%2f..%2fetc", ".workbench", "a%00b", "x" * 65, "no-such-run", "a/b"]
)
@pytest.mark.parametrize("rest", ["", "/delta", "/log"])
def test_no_id_leaves_the_runs_folder(client: TestClient, run_id: str, rest: str) -> None:
    assert client.get(f"/wb/api/runs/{run_id}{rest}").status_code in (404, 405)


def test_a_link_out_of_the_runs_folder_is_no_run(tmp_path: Path, run: RunFolder) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "linked").symlink_to(run.path)
    assert "No run" in get(serve(RunStore(tmp_path / "inside")), "runs/linked", 404)["error"]


def test_a_run_without_a_record_yet_is_empty_and_not_an_error(tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, steps=1, groups=2, samples=2)
    for path in folder.path.glob("run.db*"):
        path.unlink()
    client = serve(RunStore(tmp_path))
    delta = get(client, f"runs/{folder.id}/delta")
    assert (delta["steps"], delta["ribbon"], delta["checks"]) == ([], [], [])
    assert get(client, "runs")["runs"][0]["spark"] == []
    assert "under way" in get(client, f"runs/{folder.id}/steps/latest", 404)["error"]


def test_the_log_is_its_end(client: TestClient, tmp_path: Path, run: RunFolder) -> None:
    copy = RunFolder(shutil.copytree(run.path, tmp_path / run.id))
    copy.log_path.write_text("\n".join(f"line {i}" for i in range(300)) + "\n")
    log = get(serve(RunStore(tmp_path)), f"runs/{run.id}/log?lines=2")
    assert log == {"lines": ["line 298", "line 299"], "size": copy.log_path.stat().st_size}


def test_a_command_to_a_run_that_is_over_is_refused_with_what_to_do(
    client: TestClient, run: RunFolder
) -> None:
    response = client.post(f"/wb/api/runs/{run.id}/commands", json={"command": "pause"})
    assert response.status_code == 409 and "Fork it" in response.json()["error"]


def test_a_setting_that_cannot_change_is_refused_by_name(client: TestClient, run: RunFolder) -> None:
    for args, name in (({"beta": -1}, "beta"), ({"loss_type": "grpo"}, "loss_type"), ({"bta": 1}, "bta")):
        response = client.post(f"/wb/api/runs/{run.id}/commands", json={"command": "set", "args": args})
        assert response.status_code == 400 and name in response.json()["problems"], response.text


@pytest.mark.parametrize("body", [{"command": "rm -rf"}, {}, {"command": "pause", "more": 1}, []])
def test_an_unknown_command_is_refused(client: TestClient, run: RunFolder, body: Any) -> None:
    assert client.post(f"/wb/api/runs/{run.id}/commands", json=body).status_code == 422


def test_starting_with_bad_settings_makes_no_run_and_names_each(tmp_path: Path) -> None:
    client = serve(RunStore(tmp_path))
    response = client.post(
        "/wb/api/runs", json={"preset": "embedded", "settings": {"num_generations": 1, "beta": -1}}
    )
    assert response.status_code == 400 and set(response.json()["problems"]) == {"num_generations", "beta"}
    assert list(tmp_path.iterdir()) == []


def test_the_glossary_names_metrics_as_they_are_recorded(client: TestClient, run: RunFolder) -> None:
    words = get(client, "glossary")
    assert {"completions/p10_length", "completions/p90_length", "heldout/greedy/accuracy", "reward"} <= set(
        words["metrics"]
    )
    assert words["settings"]["beta"]["live"] is True and "at most 1000" in words["settings"]["beta"]["facts"]


def test_a_long_curve_is_taken_evenly_with_its_last_point() -> None:
    points = spark([float(i) for i in range(1000)])
    assert len(points) == SPARK and (points[0], points[-1]) == (0.0, 999.0)
