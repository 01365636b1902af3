"""The lab's routes: what is written survives, what is tried is scored in processes that can be killed, every complaint names its line."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.fakes import write_fake_run
from tests.helpers import wait_until
from workbench.algorithm import advantages
from workbench.record.folder import RunFolder
from workbench.record.notes import Notes, Visit
from workbench.record.reader import Reader
from workbench.rewards.builtin import catalogue
from workbench.rewards.runtime import registry
from workbench.view.common.run_store import RunStore
from workbench.view.lab import reward_source, trial_samples, version_rewards
from workbench.view.lab.drafts import STARTING_CODE, Case, Drafts, RewardCode, RewardPart
from workbench.view.lab.running_trial import RunningTrial
from workbench.view.lab.trials import Trials, TryBody
from workbench.view.server import routes
from workbench.view.server.guard import Guard

LONG = "def long(completion: str) -> float:\n    return len(completion) / 100\n"


class Lab:
    """A lab over one recorded run: 3 steps of 4 groups of 4."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run: RunFolder = write_fake_run(root, steps=3, groups=4, samples=4, seed=3, name="first")
        self.on: dict[str, Any] = {"kind": "run", "run": self.run.id, "last": 2}
        self.client = self.open()

    def open(self) -> TestClient:
        app = FastAPI()
        app.include_router(routes.router(RunStore(self.root)), prefix="/wb/api")
        return TestClient(app, base_url="http://127.0.0.1")

    def get(self, path: str = "") -> Any:
        response = self.client.get(f"/wb/api/lab{path}")
        return json.loads(response.text, parse_constant=lambda word: pytest.fail(f"{word} in a response"))

    def post(self, path: str, body: Any, status: int = 200) -> Any:
        response = self.client.post(f"/wb/api/lab{path}", json=body)
        assert response.status_code == status, response.text
        return response.json()

    def tried(self, text: str, parts: Any = (), **more: Any) -> list[dict[str, Any]]:
        body = {"written": {"code": text, "parts": list(parts)}, "on": self.on, **more}
        response = self.client.post("/wb/api/lab/try", json=body)
        assert response.status_code == 200, response.text
        return [json.loads(line, parse_constant=pytest.fail) for line in response.text.splitlines()]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    yield Lab(tmp_path_factory.mktemp("lab"))


def test_what_was_typed_is_there_after_a_restart_and_versions_never_change(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    assert lab.get()["draft"]["code"] == STARTING_CODE
    half = "def f(completion):\n    return (\n"
    lab.post(
        "/draft",
        {"written": {"code": half, "parts": [{"name": "f", "weight": 0.3}]}, "base": None, "revision": 0},
    )
    lab.client = lab.open()
    kept = lab.get()["draft"]
    assert kept["code"] == half and kept["parts"][0]["weight"] == 0.3
    refused = lab.post("/versions", {"written": {"code": half, "parts": []}}, status=400)
    assert "line 2" in refused["error"] and not lab.get()["versions"]
    first = lab.post("/versions", {"written": {"code": LONG, "parts": []}, "title": "long"})
    again = lab.post("/versions", {"written": {"code": LONG, "parts": []}, "title": "long"})
    assert first["n"] == again["n"] == 1
    assert Path(first["path"]).stat().st_mode & 0o222 == 0
    Path(first["path"]).chmod(0o600)
    Path(first["path"]).write_text("changed by hand")
    assert lab.get()["versions"] == []  # its hash no longer fits: not offered as what it was


def test_two_tabs_never_write_over_each_other(lab: Lab, tmp_path: Path) -> None:
    drafts = Drafts(tmp_path)
    mine = drafts.write(RewardCode(code="# mine"), None, 0)
    assert mine == {"revision": 1, "rescued": None}
    theirs = drafts.write(RewardCode(code="# theirs"), None, 0)  # began before mine was there
    assert theirs["rescued"] == 1 and drafts.version(1).code == "# mine"
    assert drafts.draft()["code"] == "# theirs"
    more = drafts.write(RewardCode(code="# theirs, more"), None, theirs["revision"])
    assert more["rescued"] is None


def test_a_trial_gives_the_rewards_and_advantages_that_a_run_would(lab: Lab) -> None:
    messages = lab.tried(LONG, [{"name": "long", "weight": 2.0}])
    kinds = [message["type"] for message in messages]
    assert kinds.index("group") < kinds.index("progress") and kinds[-1] == "done"
    done = messages[-1]
    recorded = list(Reader(lab.run).completions(since=1))
    assert (done["groups"], done["samples"], done["old_words"]) == (8, 32, "recorded")
    for k, group in enumerate(recorded):
        shown = lab.get(f"/trials/{done['trial']}/groups/{k}")
        new = [2 * len(text) / 100 for text in group["texts"]]
        assert [one["reward"] for one in shown["samples"]] == pytest.approx(new)
        assert [one["old"]["reward"] for one in shown["samples"]] == group["rewards"]
        assert [one["old"]["advantage"] for one in shown["samples"]] == pytest.approx(group["advantages"])
        assert [one["parts"]["long"] for one in shown["samples"]] == pytest.approx(
            [value / 2 for value in new]
        )
        asked = advantages.compute(np.array(new), np.zeros(4, int))
        assert [one["advantage"] for one in shown["samples"]] == pytest.approx(asked.advantages_B.tolist())
        assert [one["place"] for one in shown["samples"]] == [1 + sum(b > a for b in new) for a in new]
    checks = done["checks"]
    assert checks["again"] and not checks["failed"] and not checks["constant"] and checks["scored"] == 32
    assert done["forecast"]["exact"] and done["forecast"]["size"] == 4
    again = lab.get(f"/trials/{done['trial']}/forecast?size=2")
    assert again["size"] == 2 and not again["exact"]


def test_advantages_follow_the_settings_of_the_run() -> None:
    rows = [Case(prompt=prompt, answer="1", completion=text) for prompt in "ab" for text in ("x", "y")]
    found = trial_samples.of_cases(rows)
    found.config = found.config.changed(scale_rewards="batch", advantage_eps=0.0)
    rewards = np.array([[1.0], [0.0], [3.0], [1.0]])
    # Means .5 and 2; one std of all four: mean 1.25, sample variance 4.75 / 3.
    std = math.sqrt(4.75 / 3)
    assert found.advantages(rewards, np.ones(1)) == pytest.approx([0.5 / std, -0.5 / std, 1 / std, -1 / std])
    found.config = found.config.changed(scale_rewards="none")
    assert found.advantages(rewards, np.ones(1)) == pytest.approx([0.5, -0.5, 1.0, -1.0])


def test_a_weight_or_a_switch_changes_the_total_without_running_anything(lab: Lab) -> None:
    text = LONG + "\n\ndef one(completion: str) -> float:\n    return 1.0\n"
    lab.tried(text)
    started = time.perf_counter()
    first = lab.tried(text, [{"name": "one", "weight": 5, "enabled": False}])[-1]
    assert time.perf_counter() - started < 5
    shown = lab.get(f"/trials/{first['trial']}/groups/0")["samples"][0]
    assert shown["reward"] == pytest.approx(shown["parts"]["long"]) and shown["parts"]["one"] == 1.0
    second = lab.tried(text, [{"name": "one", "weight": 5}])[-1]
    shown = lab.get(f"/trials/{second['trial']}/groups/0")["samples"][0]
    assert shown["reward"] == pytest.approx(shown["parts"]["long"] + 5)
    assert "No function counts" in lab.tried(LONG, [{"name": "long", "enabled": False}])[-1]["error"]


def test_a_version_stands_beside_the_draft(lab: Lab) -> None:
    version = lab.post("/versions", {"written": {"code": LONG, "parts": []}, "title": "long"})
    done = lab.tried(LONG.replace("/ 100", "/ -100"), against=version["n"])[-1]
    assert done["old_words"] == f"v{version['n']}"
    lengths = [[len(text) for text in group["texts"]] for group in Reader(lab.run).completions(since=1)]
    # The shortest wins now, wherever there is a shortest.
    assert done["forecast"]["winners"] == np.mean([min(group) < max(group) for group in lengths]) > 0.5
    assert done["forecast"]["old"]["std"] == pytest.approx(done["forecast"]["new"]["std"])


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("def f(completion):\n  return 1 +\n", 2, "invalid syntax"),
        ("\nimport no_such_module\ndef f(completion):\n  return 1\n", 2, "no module named no_such_module"),
        ("raise SystemExit\ndef f(completion):\n  return 1\n", 1, "ends the program"),
        ("x = 1\n", None, "no reward in this code yet"),
        ("def f(completion, colour):\n  return 1\n", None, "asks for `colour`"),
        ("\0", None, "not Python source"),
    ],
)  # fmt: skip
def test_code_that_cannot_be_loaded_is_refused_with_its_line(
    lab: Lab, text: str, line: int | None, says: str
) -> None:
    last = lab.tried(text)[-1]
    assert last["type"] == "refused" and says in last["error"] and last["line"] == line


def test_code_that_hangs_is_killed_and_named(lab: Lab) -> None:
    started = time.monotonic()
    last = lab.tried("def f(completion):\n    while True:\n        pass\n")[-1]
    assert last["type"] == "ended" and last["tried"] == 1
    assert "No answer within 2 s" in last["ended"]["text"] and last["ended"]["line"] in (2, 3)
    assert time.monotonic() - started < 30
    assert lab.tried(LONG)[-1]["type"] == "done"  # the lab goes on


def test_code_that_ends_its_process_is_named(lab: Lab) -> None:
    last = lab.tried("import os\n\n\ndef f(completion):\n    os._exit(3)\n")[-1]
    assert last["type"] == "ended" and "ended its own process (exit code 3)" in last["ended"]["text"]


def test_wrong_values_are_errors_with_a_line_and_prints_are_shown_from_their_end(lab: Lab) -> None:
    text = "def f(completion):\n    print('x' * 1_000_000 + 'END')\n    return 'yes' if len(completion) % 2 else float('nan')\n"
    done = lab.tried(text)[-1]
    assert done["type"] == "done" and done["checks"]["failed"] == 32
    assert done["checks"]["line"] == 3 and 0 < done["checks"]["nan"] < 32
    assert len(done["printed"]) <= 2000 and "END" in done["printed"]
    shown = lab.get(f"/trials/{done['trial']}/groups/0")["samples"][0]
    assert shown["reward"] is None and shown["advantage"] == 0.0
    assert shown["reasons"]["f"]["line"] == 3 and not shown["reasons"]["f"]["chosen"]


def test_a_random_reward_is_found_out_and_a_constant_one_too(lab: Lab) -> None:
    text = "import random\n\n\ndef f(completion):\n    return random.random()\n"
    checks = lab.tried(text)[-1]["checks"]
    assert checks["again"] is False
    assert checks["guessed"] == [
        "Reward f draws random numbers, seeded for each sample (guessed from the code; say @reward(random=True) to be explicit)."
    ]
    done = lab.tried("def f(completion):\n    return 3\n")[-1]
    assert done["checks"]["guessed"] == []
    assert done["checks"]["constant"] and done["forecast"]["new"]["dead"] == 1.0


def test_a_pasted_megabyte_is_kept_and_three_are_refused_in_words(lab: Lab) -> None:
    big = "# " + "a" * 2**20 + "\n" + LONG
    reply = lab.post("/draft", {"written": {"code": big, "parts": []}, "base": None, "revision": 99})
    assert reply["functions"][0]["name"] == "long" and lab.get()["draft"]["code"] == big
    assert lab.tried(big)[-1]["type"] == "done"
    refused = lab.post(
        "/draft", {"written": {"code": big * 3, "parts": []}, "base": None, "revision": 100}, status=400
    )
    assert "at most 2 MB" in refused["error"]


def test_a_reward_that_asks_for_tokens_gets_the_recorded_ones(lab: Lab) -> None:
    done = lab.tried("def f(tokens, length):\n    return len(tokens) if len(tokens) == length else None\n")[
        -1
    ]
    first = next(iter(Reader(lab.run).completions(since=1)))
    shown = lab.get(f"/trials/{done['trial']}/groups/0")["samples"]
    assert [one["reward"] for one in shown] == first["lengths"]


def test_a_hanging_reward_is_not_attacked(lab: Lab) -> None:
    text = "def f(completion):\n    while True:\n        pass\n"
    refused = lab.post("/attack", {"written": {"code": text, "parts": []}, "on": lab.on})
    assert refused["type"] == "refused" and "No answer within 2 s" in refused["error"]


def test_attacks_come_with_the_worst_first_and_a_verdict_each(lab: Lab) -> None:
    body = {"written": {"code": LONG, "parts": []}, "on": lab.on}
    found = lab.post("/attack", body)
    order = ["hackable", "breaks", "doubtful", "untested", "safe"]
    places = [order.index(trick["verdict"]) for trick in found["tricks"]]
    assert places == sorted(places)
    by_name = {trick["name"]: trick for trick in found["tricks"]}
    assert by_name["10x length"]["verdict"] == "hackable" and by_name["empty"]["verdict"] == "safe"
    assert found["through"] == sum(trick["verdict"] == "hackable" for trick in found["tricks"]) >= 1
    broken = lab.post("/attack", {**body, "written": {"code": "def f(completion:\n", "parts": []}})
    assert broken["type"] == "refused" and broken["line"] == 1


def test_own_cases_are_saved_and_grouped_by_prompt_and_reference_answer(lab: Lab) -> None:
    rows = [{"prompt": "2+2?", "answer": "4", "completion": text} for text in ("4", "four", "it is 44")]
    lab.post("/cases", {"cases": [*rows, {"prompt": "1+1?", "answer": "2", "completion": "2"}]})
    lab.client = lab.open()
    assert len(lab.get()["cases"]) == 4
    done = lab.tried("def f(completion, answer):\n    return answer in completion\n", on={"kind": "cases"})[
        -1
    ]
    assert (done["groups"], done["samples"]) == (2, 4)
    shown = lab.get(f"/trials/{done['trial']}/groups/0")["samples"]
    assert [one["reward"] for one in shown] == [1.0, 0.0, 1.0]
    assert [one["right"] for one in shown] == [True, False, False]


def test_thumbs_are_compared_with_the_sign_of_the_advantage(lab: Lab) -> None:
    group = next(iter(Reader(lab.run).completions(since=1)))
    ordered = sorted(range(4), key=lambda i: len(group["texts"][i]))
    short, long = group["texts"][ordered[0]], group["texts"][ordered[-1]]
    notes, visit = Notes(lab.run), Visit(group["step"])
    notes.thumb(visit, group["prompt_id"], short, True)
    notes.thumb(visit, group["prompt_id"], long, True)
    try:
        thumbs = lab.tried(LONG)[-1]["thumbs"]
        same = [text for text in group["texts"] if text in (short, long)]  # twins share a rating
        assert thumbs["rated"] == len(same) and thumbs["agree"] == same.count(long)
        against = {(one["k"], one["index"]) for one in thumbs["against"]}
        assert (0, ordered[0]) in against and all(one["good"] for one in thumbs["against"])
    finally:
        lab.run.notes_path.unlink()


def test_a_catalogue_reward_comes_with_all_it_needs_and_means_the_same() -> None:
    for name in catalogue.REWARDS:
        text = reward_source.added("def mine(completion):\n    return 1.0\n", name)
        assert {one.name for one in reward_source.functions(text)} == {"mine", name}
        compile(text, name, "exec")
    space: dict[str, Any] = {}
    exec(reward_source.excerpt("number"), space)  # our own source
    assert space["number"]("so <answer>1,200</answer>", "1200") == 1.0


def test_helpers_are_no_rewards() -> None:
    text = "def _a(x): ...\ndef b(x): return x\ndef c(completion): return b(completion)\ndef prepare(): ...\nb_is = 3\n"
    assert [(one.name, one.line, one.required) for one in reward_source.functions(text)] == [
        ("c", 3, ("completion",))
    ]


def test_a_new_run_gets_exactly_the_version_and_names_its_hash(lab: Lab, tmp_path: Path) -> None:
    drafts = Drafts(lab.root)
    version = drafts.keep(RewardCode(code=LONG + "# mine\n", parts=[RewardPart(name="long", weight=0.5)]), "")
    assert version_rewards.from_url(lab.root, str(version.number)) == version
    assert (
        version_rewards.from_url(lab.root, "../1") is None
        and version_rewards.from_url(lab.root, "999") is None
    )
    [spec] = version_rewards.specs(version)
    [run_by] = registry.resolve([spec], tmp_path)
    assert run_by.sha == version.sha and Path(run_by.path).read_text() == version.code
    assert spec.weight == 0.5 and version_rewards.label(spec.name) == f"v{version.number} · long"
    assert version.sha[:16] in str(
        version_rewards.line(version_rewards.used(lab.root, [spec.name, "correct"]))
    )


def test_a_read_only_dashboard_runs_and_writes_nothing_of_it(tmp_path: Path) -> None:
    app = FastAPI()
    app.include_router(routes.router(RunStore(tmp_path)), prefix="/wb/api")
    client = TestClient(Guard(app, None, read_only=True), base_url="http://127.0.0.1")
    written = {"code": LONG, "parts": []}
    tried = {"written": written, "on": {"kind": "cases"}}
    for path, body in (
        ("draft", {"written": written}),
        ("look", written),
        ("versions", {"written": written}),
        ("cases", {"cases": []}),
        ("peek", {"on": {"kind": "cases"}}),
        ("try", tried),
        ("attack", tried),
    ):
        response = client.post(f"/wb/api/lab/{path}", json=body)
        assert response.status_code == 403 and "read-only" in response.json()["error"]
    assert client.get("/wb/api/lab").json()["draft"]["code"] == STARTING_CODE
    assert not (tmp_path / ".workbench" / "lab").exists()


def test_a_page_that_turns_away_ends_its_trial_and_the_processes(lab: Lab) -> None:
    trials = Trials(RunStore(lab.root), Drafts(lab.root))
    slow = "import time\n\n\ndef f(completion):\n    time.sleep(1.5)\n    return 1.0\n"
    body = TryBody.model_validate({"written": {"code": slow, "parts": []}, "on": lab.on})
    going = RunningTrial(trials, body)
    wait_until(lambda: going._ready, what="the scoring")
    ready = going._ready
    assert ready is not None
    pids = ready.pool.pids
    started = time.monotonic()
    going.stop()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), what="their end")
    assert time.monotonic() - started < 20  # 32 samples would take 1.5 s each
    trials.process_cache.close()
