"""Value of a token and fresh completions, from a living run between its steps and from a probe worker when it is over."""

import shutil
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.helpers import Yard, wait_until
from workbench.core.config import RunConfig
from workbench.core.errors import RunError
from workbench.launch import preflight, probe_client
from workbench.record.reader import Reader
from workbench.view.common.run_store import RunStore
from workbench.view.server import routes


def run_probe(client: TestClient, run: str, kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """As a page does it: send the probe, poll until the reply is there."""
    put = client.post(f"/runs/{run}/ask/{kind}", json=body)
    assert put.status_code == 202, put.text
    place = f"/runs/{run}/asked/{put.json()['folder']}/{put.json()['id']}"

    def reply() -> Any:
        now = client.get(place).json()
        return now if now["result"] or now["failed"] else None

    found: dict[str, Any] = wait_until(reply, 120.0, "a reply")
    assert not found["failed"], found
    return dict(found["result"])


@pytest.mark.slow
def test_a_token_is_worth_what_its_continuations_earn(yard: Yard, recorded: Any) -> None:
    run = yard.root / "over"
    run.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(recorded.normal.path, run)
    reader = Reader(run)
    api = FastAPI()
    api.include_router(routes.router(RunStore(yard.root)))
    client = TestClient(api)
    step, k = 19, reader.groups(19)[0]["k"]
    group = reader.group(step, k, arrays=True)
    ended = next(sample for sample in group["samples"] if sample["finish_reason"] == "stop")
    last = len(ended["token_ids"]) - 1
    found = run_probe(
        client, "over", "branch", {"step": step, "k": k, "sample": ended["i"], "tok": last, "n": 8}
    )
    before, own = found["sides"][:2]
    # After the end token nothing is left to chance: the recorded reward is the value.
    assert own["token"] == ended["token_ids"][last] and (own["n"], own["value"]) == (1, ended["reward"])
    assert own["low"] == own["high"] == own["value"] and before["n"] == 8 and before["token"] is None
    assert found["policy_step"] in (10, 20) and found["advantage"] == ended["advantage"]

    # At a fork every choice of the group is followed, the completion's own first.
    tok = next(t for t in range(last) if len({tuple(s["token_ids"][: t + 1]) for s in group["samples"]}) > 1)
    again = [probe_client.branch(reader.folder, step, k, ended["i"], tok, n=8) for _ in range(2)]
    assert again[0]["sides"] == again[1]["sides"]  # each continuation has its own seed
    own_choice, *others = [side["token"] for side in again[0]["sides"][1:]]
    same_start = [
        s["token_ids"] for s in group["samples"] if s["token_ids"][:tok] == ended["token_ids"][:tok]
    ]
    assert own_choice == ended["token_ids"][tok]
    assert set(others) <= {ids[tok] for ids in same_start} - {own_choice} and len(others) == min(
        3, len({ids[tok] for ids in same_start}) - 1
    )
    kept = client.get(f"/runs/over/steps/{step}/groups/{k}/branches").json()["branches"]
    assert [(one["sample"], one["tok"]) for one in kept] == [(ended["i"], last), (ended["i"], tok)]
    with pytest.raises(RunError, match="the sample has the tokens 0 to"):
        probe_client.branch(reader.folder, step, k, ended["i"], 10_000)
    trial = {"prompt": group["question"], "n": 3, "temperature": 0.0}
    now, base = (run_probe(client, "over", "sample", {**trial, **extra}) for extra in ({}, {"base": True}))
    assert (
        len({one["text"] for one in now["samples"]}) == 1 == len({one["text"] for one in base["samples"]})
    )  # greedy
    assert now["samples"][0]["text"] != base["samples"][0]["text"]


def test_a_living_run_replies_between_two_steps_for_itself_and_for_its_base(yard: Yard) -> None:
    settings = {"steps": 400, "prompts_per_step": 2, "num_generations": 4, "eval_problems": 4, "watched_prompts": 2,
                "eval_steps": 1000, "device": "cpu", "wandb": "off", "threads": 1}  # fmt: skip
    run = preflight.start(RunConfig.build(None, settings), yard.root)
    yard.started.append(run)
    yard.goes_on(run, timeout=120)
    wait_until(lambda: Reader(run).last_step() is not None, 60.0, "a step")
    found = probe_client.branch(run, 0, 0, 0, 0, n=4)
    assert found["policy_step"] >= 1 and len(found["sides"][0]["rewards"]) == 4
    sampled = probe_client.sample(run, Reader(run).group(0, 0)["question"], 2, base=True)
    assert len(sampled["samples"]) == len(sampled["base"]) == 2 and run.id in sampled["model"]
    assert probe_client.living_worker(yard.root) is None  # no other worker had to be started
