"""The what-if drawer's routes over recorded runs."""

import os
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.fakes import write_fake_run
from tests.helpers import wait_until
from tests.unit.view.test_web_routes import get, serve
from workbench.record.reader import Reader
from workbench.view.common.run_store import RunStore

SHORT = '''def short(completion: str) -> float:
    """One point for at most 20 characters."""
    if "check" in completion:
        raise ValueError("cannot read checks")
    return float(len(completion) <= 20)
'''


@pytest.fixture(scope="module")
def client(store: RunStore) -> TestClient:
    return serve(store)


def recompute(client, run, *sets, status=200, **more):
    query = "&".join(
        [*(f"set={text}" for text in sets), *(f"{name}={value}" for name, value in more.items())]
    )
    return get(client, f"runs/{run.id}/whatif?{query}", status)


def start(client, run, reward, status=202):
    found = client.post(f"/wb/api/runs/{run.id}/whatif/score", json={"reward": reward})
    assert found.status_code == status, found.text
    return found.json()


def test_unchanged_settings_repeat_the_recorded_advantages(client, run):
    found = recompute(client, run, step=3)
    assert found["steps"] == list(range(12)) and found["samples"] == 12 * 24
    assert found["asked"] == found["recorded"]
    assert set(found["difference"]["moved"]) == {0.0}
    series = Reader(run).series(names=["reward", "frac_reward_zero_std", "advantage/mean_abs"])["train"]
    assert found["recorded"]["reward"] == pytest.approx(series["reward"], abs=1e-5)
    assert found["recorded"]["dead"] == pytest.approx(series["frac_reward_zero_std"], abs=1e-5)
    assert found["recorded"]["size"] == pytest.approx(series["advantage/mean_abs"], abs=1e-5)
    stored = [sample["advantage"] for sample in Reader(run).group(3, 2)["samples"]]
    assert found["groups"]["2"] == pytest.approx(stored, abs=1e-5)


def test_a_smaller_group_leaves_the_later_samples_undrawn(client, run):
    found = recompute(client, run, "num_generations=2", step=0)
    assert all(
        advantages[2:] == [None, None] and None not in advantages[:2]
        for advantages in found["groups"].values()
    )
    assert "not how the run would have gone" in found["note"]


def test_a_setting_that_no_record_can_answer_is_refused_in_words(client, run):
    assert (
        "only 4 samples"
        in recompute(client, run, "num_generations=5", status=400)["problems"]["num_generations"]
    )
    assert "cannot be computed" in recompute(client, run, "seed=5", status=400)["error"]
    assert (
        "No sample of this run was scored" in recompute(client, run, "rewards=missing=1", status=400)["error"]
    )
    assert "epsilon" in get(client, f"runs/{run.id}/whatif/tokens?set=epsilon=-1", 400)["problems"]


def test_token_figures_cover_the_kept_steps_alone(tmp_path: Path):
    run = write_fake_run(tmp_path, steps=12, groups=3, samples=4)
    for step in (0, 1, 2, 7):
        os.unlink(run.tokens / f"step-{step:06d}.safetensors")
    client = serve(RunStore(tmp_path))
    found = get(client, f"runs/{run.id}/whatif/tokens?set=epsilon=0.01&set=loss_type=grpo")
    assert found["steps"] == [3, 4, 5, 6, 8, 9, 10, 11] and found["of"] == 12 and found["next"] is None
    later = get(client, f"runs/{run.id}/whatif/tokens?set=epsilon=0.01&after=8")
    assert later["steps"] == [9, 10, 11]
    # A narrower clip cuts more; another loss moves the gradient between long and short samples.
    cut = [
        [one["clipped_low"] + one["clipped_high"] for one in found[side]] for side in ("recorded", "asked")
    ]
    assert all(narrow > wide for wide, narrow in zip(*cut, strict=True)) and min(found["moved"]) > 0
    same = get(client, f"runs/{run.id}/whatif/tokens")
    assert same["recorded"] == same["asked"] and set(same["moved"]) == {0.0}


def test_a_reward_from_a_file_scores_every_recorded_sample_in_the_background(tmp_path: Path):
    run = write_fake_run(tmp_path, steps=9, groups=2, samples=4)
    own = tmp_path / "own.py"
    own.write_text(SHORT)
    client = serve(RunStore(tmp_path))
    question = (f"rewards={own}:short=1", "scale_rewards=none")

    refused = recompute(client, run, *question, status=400)
    assert "Score it first" in refused["error"]  # a question alone runs no code
    start(client, run, f"{own}:short")

    def done():
        found = recompute(client, run, *question)
        return found if found["scoring"]["done"] == found["scoring"]["of"] == 72 else None

    found = wait_until(done, 60, "every sample scored")
    texts = [text for group in Reader(run).completions() for text in group["texts"]]
    short = [None if "check" in text else float(len(text) <= 20) for text in texts]
    assert found["scoring"]["failed"] == short.count(None)
    for step in range(9):
        there = [value for value in short[8 * step : 8 * step + 8] if value is not None]
        assert found["asked"]["reward"][step] == pytest.approx(
            sum(there) / len(there) if there else None, abs=1e-5
        )
    own.write_text(
        "def short(completion: str) -> float:\n    return 1.0\n"
    )  # another version is another reward
    start(client, run, f"{own}:short")
    assert set(wait_until(done, 60, "every sample scored anew")["asked"]["reward"]) == {1.0}
    assert "not known" in start(client, run, "missing", 400)["error"]


def test_new_steps_join_what_was_read_before(tmp_path: Path):
    from tests.fakes import fake_config, make_step, token_text  # noqa: PLC0415
    from workbench.record.writer import Writer  # noqa: PLC0415

    run = write_fake_run(tmp_path, steps=3, groups=2, samples=4)
    client = serve(RunStore(tmp_path))
    assert recompute(client, run)["steps"] == [0, 1, 2]
    config = fake_config(groups=2, samples=4, steps=5)
    with Writer(run, config, token_text=token_text) as writer:
        writer.step(make_step(3, steps=5, groups=2, samples=4, config=config))
    fresh = recompute(serve(RunStore(tmp_path)), run, "scale_rewards=batch")
    assert recompute(client, run, "scale_rewards=batch") == fresh and fresh["steps"] == [0, 1, 2, 3]
