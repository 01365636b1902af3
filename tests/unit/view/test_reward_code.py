"""The lines behind a reward: its function, its helpers, and nothing else of the file."""

import hashlib
import json

from tests.fakes import token_text
from tests.unit.view.test_web_routes import get, serve
from workbench.record.writer import Writer
from workbench.view.common.run_store import RunStore
from workbench.view.group import reward_code as code

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
    client = serve(RunStore(tmp_path))
    response = get(client, f"runs/{folder.id}/rewards/mine")
    assert (response["file"], response["parts"][0]["first"]) == ("own.py", 18)
    assert get(client, f"runs/{folder.id}/rewards/correct")["ours"] is True
    assert (
        "has no reward 'nothing'. It has: mine"
        in get(client, f"runs/{folder.id}/rewards/nothing", 404)["error"]
    )
    (folder.rewards / f"{'a' * 16}.py").unlink()
    assert "cannot be read" in get(client, f"runs/{folder.id}/rewards/mine", 404)["error"]


def test_a_step_is_shown_with_the_code_that_was_in_force_then(tmp_path):
    from tests.fakes import write_fake_run  # noqa: PLC0415

    folder = write_fake_run(tmp_path, steps=1, groups=2, samples=2)
    began, changed, again = (
        f"def mine(completion):\n    return {value}\n" for value in ("0.0", "0.5", "1.0")
    )
    sha = {code: hashlib.sha256(code.encode()).hexdigest() for code in (began, changed, again)}
    for code_text, name in sha.items():
        (folder.rewards / f"{name[:16]}.py").write_text(code_text)
    record = {
        "name": "mine",
        "function": "mine",
        "sha": sha[began],
        "file": "own.py",
        "ours": False,
        "weight": 1.0,
        "enabled": True,
        "options": {},
    }
    folder.config_path.write_text(json.dumps({**folder.about(), "rewards": [record]}))
    spec = {"name": "own.py:mine", "weight": 1.0, "enabled": True, "options": {}}
    with Writer(folder, folder.config(), token_text=token_text) as writer:
        for step, code_text in ((3, changed), (7, again)):
            to = [{**spec, "version": sha[code_text][:16]}]
            writer.event("setting_changed", {"rewards": {"from": [], "to": to}}, step)
        writer.event("setting_changed", {"rewards": {"from": [], "to": [{**spec, "version": ""}]}}, 9)
    client = serve(RunStore(tmp_path))

    def shown(step: int) -> tuple[str, int | None]:
        response = get(client, f"runs/{folder.id}/rewards/mine?step={step}")
        return response["parts"][0]["lines"][1].split()[-1], response["since"]

    assert [shown(step) for step in (2, 3, 6, 7, 8)] == [
        ("0.0", None),
        ("0.5", 3),
        ("0.5", 3),
        ("1.0", 7),
        ("1.0", 7),
    ]
    assert shown(9) == ("0.0", None)
    assert get(client, f"runs/{folder.id}/rewards/mine")["since"] is None
