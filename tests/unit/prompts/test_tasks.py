"""The tasks: finite seeded training splits, fixed held-out problems, levels, bundled files."""

import ast
import copy
import math
from collections import Counter
from random import Random

import pytest

from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError, DataError
from workbench.core.types import Prompt
from workbench.prompts import TASKS, countdown, generated, task_of
from workbench.prompts.heldout import is_held_out
from workbench.rewards.builtin.catalogue import REWARDS

GENERATED = ("chain", "arithmetic", "countdown")
BUNDLED = ("code", "qa", "translation", "summarisation")


def questions(prompts: list[Prompt]) -> list[str]:
    return [prompt.question for prompt in prompts]


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_split_has_the_requested_size_without_repetitions(name: str) -> None:
    train, heldout, warnings = TASKS[name].load(RunConfig(task=name, train_problems=100, eval_problems=60))
    assert (len(set(questions(train))), len(set(questions(heldout)))) == (100, 60)
    assert (len(train), len(heldout), warnings) == (100, 60, ())


@pytest.mark.parametrize("name", GENERATED)
def test_training_problems_follow_the_seed_and_held_out_ones_do_not(name: str) -> None:
    one, same, other = (TASKS[name].load(RunConfig(task=name, seed=seed)) for seed in (1, 1, 2))
    assert one == same
    assert questions(one.train) != questions(other.train)
    assert one.heldout == other.heldout


@pytest.mark.parametrize("name", GENERATED)
def test_no_seed_trains_on_a_held_out_problem(name: str) -> None:
    heldout = set(questions(TASKS[name].heldout(RunConfig(task=name, eval_problems=200))))
    assert all(is_held_out(question) for question in heldout)
    for seed in range(5):
        train = TASKS[name].train(RunConfig(task=name, seed=seed, train_problems=500))
        assert not heldout & set(questions(train))


def test_fewer_held_out_problems_are_the_first_of_more() -> None:
    few, many = (TASKS["chain"].heldout(RunConfig(eval_problems=count)) for count in (16, 128))
    assert few == many[:16]


def test_levels_come_equally_often_within_the_bounds() -> None:
    config = RunConfig(task="chain", train_problems=40, min_level=2, max_level=5)
    levels = Counter(prompt.columns["level"] for prompt in TASKS["chain"].train(config))
    assert levels == {2: 10, 3: 10, 4: 10, 5: 10}


def test_without_bounds_a_task_has_its_own_levels() -> None:
    levels = {prompt.columns["level"] for prompt in TASKS["chain"].train(RunConfig())}
    assert levels == set(range(3, 10))


def test_a_level_that_a_task_does_not_offer_is_refused_beside_its_field() -> None:
    with pytest.raises(ConfigError, match="offers levels 2 to 6") as caught:
        TASKS["countdown"].train(RunConfig(task="countdown", max_level=9))
    assert set(caught.value.problems) == {"max_level"}


def test_a_lone_bound_beyond_the_other_default_is_explained() -> None:
    with pytest.raises(ConfigError, match="Set both min_level and max_level"):
        TASKS["chain"].train(RunConfig(min_level=12))


def test_a_small_level_gives_way_to_larger_ones_when_it_is_exhausted() -> None:
    config = RunConfig(task="arithmetic", train_problems=900, min_level=2, max_level=3)
    levels = Counter(prompt.columns["level"] for prompt in TASKS["arithmetic"].train(config))
    assert levels[2] < 300 < levels[3]


def test_more_problems_than_exist_are_refused_with_the_number_that_do() -> None:
    def draw(rng: Random, level: int) -> Prompt:
        return Prompt(f"{rng.randint(0, 9)}")

    free = sum(not is_held_out(str(digit)) for digit in range(10))
    with pytest.raises(DataError, match=f"only {free} different problems"):
        generated.distinct_prompts(draw, Random(0), [1], 11, held_out=False, name="digits")


def test_arithmetic_reference_answers_are_right_and_levels_count_digits() -> None:
    for prompt in TASKS["arithmetic"].train(RunConfig(task="arithmetic", min_level=2, max_level=12)):
        left, operator, right = prompt.question.removeprefix("What is ").removesuffix("?").split()
        value = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[
            operator
        ]
        assert prompt.answer == str(value)
        assert prompt.columns["level"] == len(left) + len(right)


def test_every_countdown_problem_is_solved_by_its_own_reference_answer() -> None:
    for prompt in TASKS["countdown"].train(RunConfig(task="countdown", min_level=2, max_level=6)):
        tree = ast.parse(str(prompt.answer), mode="eval")
        used = sorted(node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        assert used == prompt.columns["numbers"]
        assert math.isclose(eval(compile(tree, "", "eval")), prompt.columns["target"])
        assert prompt.columns["target"] in range(5, 100)


def test_one_countdown_problem_has_one_wording() -> None:
    rng = Random(3)
    numbers = [countdown.draw(rng, 4).columns["numbers"] for _ in range(50)]
    assert all(drawn == sorted(drawn) for drawn in numbers)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_files_have_a_held_out_part_of_their_own(name: str) -> None:
    train, heldout, _ = TASKS[name].load(RunConfig(task=name))
    assert 24 <= len(train) + len(heldout) <= 40
    assert len(heldout) >= 7
    assert not set(questions(train)) & set(questions(heldout))
    assert all(prompt.answer and "split" not in prompt.columns for prompt in train + heldout)


def test_fewer_held_out_rows_can_be_requested() -> None:
    assert len(TASKS["qa"].heldout(RunConfig(task="qa", eval_problems=3))) == 3


def test_reference_solutions_of_the_code_task_pass_their_own_tests() -> None:
    train, heldout, _ = TASKS["code"].load(RunConfig(task="code"))
    for prompt in train + heldout:
        names: dict[str, object] = {}
        exec(str(prompt.answer), names)
        function = names[prompt.columns["function"]]
        assert callable(function)
        assert len(prompt.columns["tests"]) >= 3
        for case in prompt.columns["tests"]:
            got = function(*copy.deepcopy(case["args"]))
            assert (got, type(got)) == (case["expected"], type(case["expected"])), prompt.question


def test_every_task_names_itself_its_rewards_and_an_example() -> None:
    for name, task in TASKS.items():
        assert task.name == name
        assert task.title and task.about and task.rewards and task.example.question


def test_the_rewards_of_a_task_exist_and_find_the_columns_they_need() -> None:
    for task in TASKS.values():
        for name in task.rewards:
            assert set(REWARDS[name].needs) <= {"answer", *task.example.columns}, (task.name, name)


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="chain, arithmetic, countdown") as caught:
        task_of(RunConfig(task="chess"))
    assert set(caught.value.problems) == {"task"}


def test_the_system_prompt_is_the_users_or_the_tasks_own_for_the_template() -> None:
    task = TASKS["chain"]
    assert task.system_prompt(RunConfig(model="embedded", template="chat")) == ""
    assert task.system_prompt(RunConfig(system_prompt="Be brief.")) == "Be brief."
    assert "<answer>" in task.system_prompt(RunConfig(model="another", template="chat"))
    assert task.system_prompt(RunConfig(model="another", template="r1-zero")) == task.instruction
    assert task.system_prompt(RunConfig(model="another", template="plain")) == ""
