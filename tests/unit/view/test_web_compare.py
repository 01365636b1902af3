"""Compare's routes: what differs, the curves, the same prompt in each run."""

import json

import pytest

from tests.fakes import write_fake_run
from tests.unit.view.test_web_routes import get, serve
from workbench.record.reader import Reader
from workbench.view.common.run_store import RunStore


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two runs with other training prompts but the same watched ones; the second is a fork with another beta."""
    root = tmp_path_factory.mktemp("compared")
    first = write_fake_run(root, steps=6, groups=3, samples=4, eval_steps=3, seed=1, name="one")
    second = write_fake_run(root, steps=4, groups=3, samples=4, eval_steps=2, seed=2, name="two")
    about = second.about()
    about["config"] |= {"beta": 0.04}
    second.config_path.write_text(json.dumps({**about, "parent": {"run": first.id, "step": 3}}))
    return serve(RunStore(root)), first, second


def test_only_what_differs_is_listed_core_settings_first(two):
    client, first, second = two
    data = get(client, f"compare?run={first.id}&run={second.id}")
    listed = {row["name"]: row["values"] for row in data["differences"]}
    assert listed == {"beta": [0.0, 0.04], "seed": [1, 2], "steps": [6, 4], "eval_steps": [3, 2]}
    assert data["differences"][-1]["name"] == "eval_steps"  # the one that is not core
    assert data["runs"][1]["parent"] == {"run": first.id, "step": 3}


def test_every_run_brings_its_own_curve_and_checks(two):
    client, *runs = two
    data = get(client, f"compare?run={runs[1].id}&run={runs[0].id}")
    assert [run["name"] for run in data["runs"]] == ["two", "one"]  # in the order asked for
    for run, found in zip(reversed(runs), data["runs"], strict=True):
        series = Reader(run).series()
        assert found["steps"] == series["train"]["step"]
        assert found["metrics"]["reward"] == series["train"]["reward"]
        checks = [
            one["metrics"]["heldout/sampled/accuracy"] for one in found["checks"] if one["mode"] == "sampled"
        ]
        assert checks == series["sampled"]["heldout/sampled/accuracy"]


def test_the_same_prompt_shows_each_runs_last_visit_up_to_the_step(two):
    client, first, second = two
    prompts = get(client, f"compare?run={first.id}&run={second.id}")["prompts"]
    assert len([prompt for prompt in prompts if prompt["watched"]]) == 16
    prompt = prompts[0]["prompt_id"]
    data = get(client, f"compare/{prompt}?run={first.id}&run={second.id}&step=4")
    one, two_ = data["runs"]
    assert (one["visit"]["step"], two_["visit"]["step"]) == (3, 4)
    k = one["visit"]["k"]
    texts = [sample["text"] for sample in Reader(first).group(3, k, "eval", "sampled")["samples"]]
    assert [sample["text"] for sample in one["visit"]["samples"]] == texts
    assert [visit["step"] for visit in two_["history"]] == [0, 2, 4]
    newest = get(client, f"compare/{prompt}?run={first.id}&run={second.id}")["runs"]
    assert [run["visit"]["step"] for run in newest] == [6, 4]


def test_one_run_is_no_comparison(two):
    client, first, _ = two
    assert "1 runs were given" in get(client, f"compare?run={first.id}&run={first.id}", 404)["error"]
    assert "No run 'nobody'" in get(client, f"compare?run={first.id}&run=nobody", 404)["error"]
