"""The lines behind a reward: its function, its helpers, and nothing else of the file."""

import json

from tests.unit.view.test_web_routes import get, serve
from workbench.view import code
from workbench.view.store import Store

FILE = '''"""Two rewards."""

LIMIT = 3


def tidy(text):
    return trimmed(text).lower()


def trimmed(text):
    return text.strip()


def other(completion):
    return 1.0


async def mine(completion: str) -> float:
    return float(tidy(completion) == "yes")
'''


def test_a_reward_comes_with_the_helpers_it_calls_and_its_own_line_numbers():
    found = code.parts(FILE, "mine")
    assert [part["name"] for part in found] == ["mine", "tidy", "trimmed"]
    for part in found:
        assert part["lines"] == FILE.splitlines()[part["first"] - 1 : part["first"] - 1 + len(part["lines"])]
    assert found[0]["first"] == 18 and found[0]["lines"][-1].strip().startswith("return float(tidy")


def test_what_cannot_be_parsed_is_shown_whole():
    assert code.parts("def mine(:\n  pass", "mine") == [
        {"name": "mine", "first": 1, "lines": ["def mine(:", "  pass"]}
    ]
    assert code.parts("mine = print", "mine")[0]["lines"] == ["mine = print"]


def test_the_saved_code_of_a_run_is_read_by_the_rewards_name(tmp_path):
    from tests.fakes import write_fake_run  # noqa: PLC0415

    folder = write_fake_run(tmp_path, steps=1, groups=2, samples=2)
    (folder.rewards / f"{'a' * 16}.py").write_text(FILE)
    record = {"name": "mine", "function": "mine", "sha": "a" * 64, "file": "own.py", "ours": False}
    folder.config_path.write_text(json.dumps({**folder.about(), "rewards": [record]}))
    client = serve(Store(tmp_path))
    answer = get(client, f"runs/{folder.id}/rewards/mine")
    assert (answer["file"], answer["parts"][0]["first"]) == ("own.py", 18)
    assert get(client, f"runs/{folder.id}/rewards/correct")["ours"] is True
    assert (
        "has no reward 'nothing'. It has: mine"
        in get(client, f"runs/{folder.id}/rewards/nothing", 404)["error"]
    )
    (folder.rewards / f"{'a' * 16}.py").unlink()
    assert "cannot be read" in get(client, f"runs/{folder.id}/rewards/mine", 404)["error"]
