"""Where reward code may come from, and what is saved of it."""

import builtins
import functools
import json
import linecache
import pickle
from pathlib import Path

import pytest

from tests.rewarding import group, written
from workbench.core.config import RewardSpec
from workbench.core.errors import RewardError
from workbench.rewards.api import source
from workbench.rewards.api.decorator import registered, reward
from workbench.rewards.runtime.pool import RewardPool
from workbench.rewards.runtime.registry import RewardSource, find, resolve
from workbench.rewards.trial import dry_run, try_reward

ROWS = [
    {"prompt": "2+2?", "completion": "<answer>4</answer>", "answer": "4", "level": 3},
    {"prompt": "2+2?", "completion": "<answer>5</answer>", "answer": "4", "level": 3},
]


def cell(code: str, name: str, number: int = 1):
    """A function as a notebook leaves it behind: its code is in the line cache, under the cell's name."""
    file = f"<ipython-input-{number}>"
    linecache.cache[file] = (len(code), None, code.splitlines(True), file)
    names: dict[str, object] = {"reward": reward, "workbench": None}
    exec(compile(code, file, "exec"), names)
    return names[name]


def module_level_limit(completion, length=0):
    return 1.0 if length < 5 else 0.0


def test_the_exact_source_is_saved_by_its_hash_and_a_record_brings_it_back(tmp_path: Path):
    path = written(tmp_path, "# mine\ndef short(completion):\n    return 1.0\n", "mine.py")
    specs = [RewardSpec(name="correct"), RewardSpec(name=f"{path}:short", weight=0.5, options={})]
    sources = resolve(specs, tmp_path / "rewards")
    assert [source.name for source in sources] == ["correct", "short"]
    saved = Path(sources[1].path)
    assert saved == tmp_path / "rewards" / f"{sources[1].sha[:16]}.py"
    assert saved.read_bytes() == path.read_bytes()
    assert pickle.loads(pickle.dumps(sources)) == sources

    moved = (tmp_path / "rewards").rename(tmp_path / "elsewhere")
    records = json.loads(json.dumps([source.to_record() for source in sources]))
    again = [RewardSource.of_record(record, moved) for record in records]
    assert [(item.name, item.weight, item.shape) for item in again] == [
        (item.name, item.weight, item.shape) for item in sources
    ]
    with RewardPool(again) as pool:
        assert pool.score([group("x")])[0].values == {"correct": 0.0, "short": 1.0}
    (moved / saved.name).write_text("def short(completion): return 2.0\n")
    with pytest.raises(RewardError, match="The saved code of reward short was changed"):
        RewardSource.of_record(records[1], moved)


def test_the_folder_of_a_reward_file_is_not_on_the_import_path(tmp_path: Path):
    written(tmp_path, "LIMIT = 3\n", "beside.py")
    path = written(tmp_path, "import beside\ndef f(completion): return 1.0\n")
    with pytest.raises(RewardError, match="put own helpers into the same file"):
        resolve([RewardSpec(name=f"{path}:f")], tmp_path / "rewards")


def test_an_unknown_name_is_refused_with_those_there_are(tmp_path: Path):
    with pytest.raises(RewardError, match=r"Reward 'corect' is not known. Did you mean correct\?"):
        find("corect")
    with pytest.raises(RewardError, match=r"nowhere\.py is not there"):
        find("nowhere.py:f")
    path = written(tmp_path, "def short(completion): return 1.0\n")
    with pytest.raises(RewardError, match=r"has no function shrt. It has: short. Did you mean short\?"):
        find(f"{path}:shrt")


def test_without_a_name_the_only_reward_of_a_file_is_meant(tmp_path: Path):
    marked = "@reward\ndef mine(completion): return helper()\n\ndef helper(): return 1.0\n"
    assert find(str(written(tmp_path, marked))).function == "mine"
    two = "def a(completion): return 1.0\ndef b(completion): return 1.0\n"
    with pytest.raises(RewardError, match=r"Which function of reward.py is the reward\? It has: a, b."):
        find(str(written(tmp_path, two)))


def test_columns_that_the_data_lack_are_refused_before_the_start(tmp_path: Path):
    path = written(tmp_path, "def f(completion, topic): return 1.0\n")
    specs = [RewardSpec(name=f"{path}:f")]
    with pytest.raises(
        RewardError, match=r"Reward f cannot be used: it asks for `topic`.*Did you mean `topics`\?"
    ):
        resolve(specs, tmp_path / "rewards", columns=["topics", "level"])
    assert resolve(specs, tmp_path / "rewards", columns=["topic"])[0].shape.columns() == ("topic",)


def test_two_rewards_with_one_name_are_told_apart_by_their_files(tmp_path: Path):
    one = written(tmp_path, "def correct(completion): return 1.0\n", "one.py")
    two = written(tmp_path, "def correct(completion): return 2.0\n", "two.py")
    specs = [RewardSpec(name=name) for name in ("correct", f"{one}:correct", f"{two}:correct")]
    sources = resolve(specs, tmp_path / "rewards")
    assert [source.name for source in sources] == [
        "correct (answers.py)",
        "correct (one.py)",
        "correct (two.py)",
    ]


def test_a_notebook_function_is_saved_as_its_whole_cell():
    code = "import math\n\nLIMIT = 2\n\n@reward\ndef near(completion):\n    return math.floor(1.5) * LIMIT\n"
    near = cell(code, "near")
    assert source.from_function(near).code.decode() == code
    assert [score.reward for score in try_reward(near, ROWS).scores] == [2.0, 2.0]
    assert registered.pop("near") is near


def test_names_from_other_cells_are_listed():
    code = "def near(completion):\n    return [LIMIT for _ in completion] and np.mean(scale(completion))\n"
    with pytest.raises(RewardError, match="the cell of near takes LIMIT, np, scale from another cell"):
        source.from_function(cell(code, "near", 2))


def test_a_cell_with_a_magic_line_is_refused_with_the_remedy(monkeypatch):
    shell = type("Shell", (), {"run_line_magic": lambda *_: None})
    monkeypatch.setattr(builtins, "get_ipython", shell, raising=False)  # as a notebook has it
    code = "get_ipython().run_line_magic('time', '')\ndef near(completion): return 1.0\n"
    with pytest.raises(RewardError, match="Put near into a cell without such lines"):
        source.from_function(cell(code, "near", 3))


def make_closure(limit: int):
    def near(completion):
        return limit

    return near


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda completion: 1.0, "A lambda cannot be saved with a run. Give it a name"),
        (make_closure(3), "near takes limit from the function around it"),
        (functools.partial(module_level_limit, length=3), "must be a plain function, not a partial"),
        ("text".count, "must be a plain function"),
    ],
)
def test_what_has_no_source_of_its_own_is_refused_with_the_remedy(function, message):
    with pytest.raises(RewardError, match=message):
        try_reward(function, ROWS)


def test_own_functions_may_not_take_the_name_of_a_catalogue_reward():
    registered["correct"] = module_level_limit
    try:
        with pytest.raises(RewardError, match="has the name of a catalogue reward"):
            find("correct")
    finally:
        del registered["correct"]


def test_pasted_code_catalogue_names_and_rows_can_be_tried():
    assert [score.reward for score in try_reward("correct", ROWS).scores] == [1.0, 0.0]
    pasted = "def level_seven(completion, level, length):\n    return level\n"
    first, _ = try_reward(pasted, ROWS).scores
    assert "it asks for `length`, which these samples do not carry" in first.reasons["level_seven"]
    (score,) = try_reward(pasted, [{**ROWS[0], "length": 3}]).scores
    assert score.reward == 3.0


def test_code_that_starts_a_run_of_its_own_is_refused():
    code = (
        "from workbench.rewards.trial import try_reward\n"
        "def f(completion): return 1.0\n"
        "try_reward(f, [{'completion': 'a'}])\n"
    )
    with pytest.raises(RewardError, match="runs inside a reward process"):
        try_reward(source.from_code(code, "f"), ROWS)


def test_a_dry_run_finds_rewards_that_never_work_and_leaves_the_others(tmp_path: Path):
    code = """
        def never(completion):
            return completion.count("x") / 0

        def listed(completions, **kwargs):
            return [1.0]

        def sometimes(completion):
            return 1 / len(completion)

        def steady(completion, tokens, length, max_length):
            return float(len(tokens) == length <= max_length)
    """
    path = written(tmp_path, code)
    specs = [RewardSpec(name=f"{path}:{name}") for name in ("never", "listed", "sometimes", "steady")]
    sources = resolve([*specs, RewardSpec(name="correct"), RewardSpec(name="judge")], tmp_path / "rewards")
    prompt = group("x").prompt
    problems = dry_run(sources, [prompt, prompt, prompt], max_length=64)
    assert list(problems) == ["never", "listed"]
    assert "ZeroDivisionError" in problems["never"]
    assert "returned 1 value for 3 completions" in problems["listed"]
    assert dry_run(sources[-1:], [prompt]) == {} and dry_run(sources, []) == {}


@pytest.mark.parametrize("code", [b"def f(completion):\n\x00 return 1\n", b"\xff\xfe def f", b""])
def test_files_that_are_no_python_source_are_refused(tmp_path: Path, code: bytes):
    path = tmp_path / "reward.py"
    path.write_bytes(code)
    with pytest.raises(RewardError, match=r"reward\.py"):
        resolve([RewardSpec(name=f"{path}:f")], tmp_path / "rewards")
    assert not (tmp_path / "rewards").exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RewardError, match="cannot be written"):
        resolve([RewardSpec(name="correct")], tmp_path / "taken" / "rewards")


@pytest.mark.parametrize("mark", ["@wb.reward", "@workbench.reward", "@reward"])
def test_a_cell_may_use_the_names_that_a_notebook_gives_the_package(mark: str):
    code = f"{mark}\ndef f(completion):\n    return float(len(completion))\n"
    (score,) = try_reward(code, [{"completion": "abc"}]).scores
    assert score.reward == 3.0
