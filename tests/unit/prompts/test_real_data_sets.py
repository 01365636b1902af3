"""Columns as real data sets have them: worked solutions, nested references, whole numbers beside missing ones, own names."""

import json
from pathlib import Path

import pandas
import pytest

from workbench.core.config import RunConfig
from workbench.core.errors import DataError
from workbench.core.types import Group
from workbench.prompts import data, rows
from workbench.rewards.api import reward_input


def write(folder: Path, records: list[dict[str, object]]) -> str:
    path = folder / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return str(path)


def load(path: str, **settings: object) -> data.Split:
    return data.load(RunConfig.build(None, {"task": "data", "data": path, "eval_problems": 0, **settings}))


def test_a_worked_solution_ends_in_its_result_and_the_start_says_so(tmp_path):
    path = write(
        tmp_path,
        [{"question": f"{i}?", "answer": f"{i}+1000=<<{i}+1000>>\n#### 1,{i:03d}"} for i in range(3)],
    )
    split = load(path)
    assert [prompt.answer for prompt in split.train] == ["1000", "1001", "1002"]
    assert any("#### 42" in warning and "'1000'" in warning for warning in split.warnings)


def test_so_does_one_that_ends_in_a_box(tmp_path):
    path = write(
        tmp_path,
        [{"problem": f"{i}?", "solution": f"So it is $\\boxed{{\\frac{{{i}}}{{7}}}}$."} for i in range(3)],
    )
    split = load(path)
    assert split.train[1].answer == r"\frac{1}{7}" and split.warnings
    assert split.train[1].own_names == {"problem": "1?", "solution": r"So it is $\boxed{\frac{1}{7}}$."}


def test_headings_and_plain_answers_stay_as_they_are(tmp_path):
    path = write(tmp_path, [{"prompt": f"{i}?", "answer": f"#### Title {i}\ntext"} for i in range(2)])
    split = load(path)
    assert split.train[0].answer == "#### Title 0\ntext" and not split.warnings


def test_a_nested_reference_can_be_named_and_is_found_where_verl_keeps_it(tmp_path):
    path = write(
        tmp_path,
        [{"prompt": f"{i}?", "reward_model": {"style": "rule", "ground_truth": i}} for i in range(2)],
    )
    assert [prompt.answer for prompt in load(path).train] == ["0", "1"]
    assert [prompt.answer for prompt in load(path, answer_column="reward_model.style").train] == [
        "rule",
        "rule",
    ]
    with pytest.raises(DataError, match=r"holds ground_truth, style"):
        load(path, answer_column="reward_model.truth")


def test_whole_numbers_beside_a_missing_one_stay_whole(tmp_path):
    path = tmp_path / "set.parquet"
    pandas.DataFrame(
        {"prompt": ["a", "b"], "answer": ["1", "2"], "level": [3, None], "size": [0.5, None]}
    ).to_parquet(path)
    levels = [row.values["level"] for row in rows.read_table(str(path), "train").rows]
    assert levels == [3, None] and type(levels[0]) is int
    assert rows.read_table(str(path), "train").rows[0].values["size"] == 0.5


def test_rewards_may_ask_for_question_and_reference_by_the_columns_own_names(tmp_path):
    path = write(
        tmp_path,
        [{"frage": "2+2", "loesung": 4, "quelle": "x"}, {"frage": "1+2", "loesung": 3, "quelle": "y"}],
    )
    prompt = load(path, prompt_column="frage", answer_column="loesung").train[0]
    (group,) = reward_input.of_groups([Group(prompt, ())], tokens=False)
    assert {name: group["columns"][name] for name in ("frage", "loesung", "quelle")} == {
        "frage": "2+2",
        "loesung": 4,
        "quelle": "x",
    }
    assert "loesung" not in prompt.columns and group["answer"] == "4"
