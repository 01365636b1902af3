"""Every reward of the catalogue: its example, its documentation, and numbers computed by hand."""

import pytest

from tests.rewarding import group
from workbench.core.config import RewardSpec
from workbench.prompts import chain
from workbench.prompts.registry import TASKS
from workbench.rewards.builtin.catalogue import REWARDS, function_of, source_of
from workbench.rewards.runtime.pool import RewardPool
from workbench.rewards.runtime.registry import resolve
from workbench.rewards.trial import try_reward


def score(name: str, *given, **named):
    return function_of(name)(*given, **named)


@pytest.mark.parametrize("name", [name for name, info in REWARDS.items() if info.example])
def test_the_example_of_every_reward_holds_and_lies_in_its_range(name):
    info = REWARDS[name]
    value = score(name, **info.example.given)
    assert value == pytest.approx(info.example.value)
    low, high = info.range
    assert all(
        low <= item <= high for item in (value if isinstance(value, list) else [value]) if item is not None
    )


def test_only_rewards_that_take_a_model_or_a_server_have_no_example():
    without = {name for name, info in REWARDS.items() if info.example is None}
    assert without == {"reward_model", "classifier", "http_score", "judge", "judge_ranking"}


@pytest.mark.parametrize("name", REWARDS)
def test_every_reward_says_what_it_is_what_it_misses_and_what_it_needs(name):
    info = REWARDS[name]
    assert info.title and info.family and len(info.about) > 20 and len(info.weakness) > 20
    assert b"def " + info.name.encode() in source_of(name).code
    assert "None" in info.about or "answer" not in info.needs or function_of(name).__doc__.count("None")


def test_every_task_names_rewards_that_its_own_example_and_columns_satisfy():
    for task in TASKS.values():
        for name in task.rewards:
            columns = {*task.example.columns, *(["answer"] if task.example.answer is not None else [])}
            assert set(REWARDS[name].needs) <= columns, f"{task.name}: {name}"


@pytest.mark.parametrize(
    "completion",
    [
        "<think>6+8=4</think><answer>4</answer>",
        "<think>6+8=4</think><answer>5</answer>",
        "<answer>4</answer>\n",
        "<answer>4</answer> so 4",
        "<answer></answer>",
        "<answer><answer>4</answer>",
        "4",
        "",
    ],
)
def test_the_generic_verifier_agrees_with_that_of_the_chain_task(completion):
    assert score("correct", completion, "4", "stop") == float(chain.verify(completion, "4"))


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("correct", {"completion": "<answer>4</answer>", "answer": "4", "finish_reason": "length"}, 0.0),
        ("correct", {"completion": "<answer>4</answer>", "answer": None, "finish_reason": "stop"}, None),
        ("number", {"completion": "<answer>It costs $1,200.50</answer>", "answer": "1200.5"}, 1.0),
        ("number", {"completion": "first 3, then 0.75", "answer": "3/4"}, 1.0),
        ("number", {"completion": "<think>5</think> minus −7", "answer": "-7"}, 1.0),
        ("number", {"completion": "no idea", "answer": "7"}, 0.0),
        ("number", {"completion": "7", "answer": "seven"}, None),
        ("number", {"completion": "99.99", "answer": "100", "tolerance": 0.001}, 1.0),
        ("partial_credit", {"completion": "<answer>4</answer>", "answer": "4", "finish_reason": "stop"}, 1.0),
        (
            "partial_credit",
            {"completion": "<answer>7</answer>", "answer": "4", "finish_reason": "stop", "near": 0.4},
            0.2,
        ),
        ("partial_credit", {"completion": "4", "answer": "4", "finish_reason": "stop"}, 0.0),
        ("format", {"completion": "<think>a</think>\n<answer>b</answer>\n", "rendered": ""}, 1.0),
        (
            "format",
            {"completion": "a</think><answer>b</answer>", "rendered": "User: x Assistant: <think>\n"},
            1.0,
        ),
        ("format", {"completion": "a</think><answer>b</answer>", "rendered": ""}, 0.0),
        ("format", {"completion": "<think>a</think><think>b</think><answer>c</answer>", "rendered": ""}, 0.0),
        ("format", {"completion": "<think>a</think><answer>b</answer> bye", "rendered": ""}, 0.0),
        ("qa_match", {"completion": "Thinking</think>the  BEATLES.", "answer": "Beatles"}, 1.0),
        ("qa_match", {"completion": "100 °C", "answer": "100", "accepted": ["100 degrees", "100 °C"]}, 1.0),
        ("qa_match", {"completion": "101", "answer": "100", "accepted": []}, 0.0),
        ("qa_f1", {"completion": "carbon dioxide gas", "answer": "carbon dioxide", "accepted": ["CO2"]}, 0.8),
        ("qa_f1", {"completion": "dog", "answer": "cat"}, 0.0),
        ("qa_f1", {"completion": "dog", "answer": None}, None),
        ("choice", {"completion": "<answer>B</answer>", "answer": "(B)"}, 1.0),
        ("choice", {"completion": "(A) is wrong, I choose (C)", "answer": "C) the sea"}, 1.0),
        ("choice", {"completion": "A dog came. The answer is: D", "answer": "D"}, 1.0),
        ("choice", {"completion": "A dog came.", "answer": "A"}, 0.0),
        ("choice", {"completion": "B", "answer": "fish"}, None),
        ("rouge", {"completion": "the cat sat", "answer": "the cat ran away", "kind": "1"}, 4 / 7),
        ("rouge", {"completion": "the cat sat", "answer": "the cat ran away", "kind": "2"}, 2 / 5),
        ("rouge", {"completion": "away ran the cat", "answer": "the cat ran away", "kind": "l"}, 0.5),
        ("rouge", {"completion": "", "answer": "the cat"}, 0.0),
        ("coverage", {"completion": "A New-town pool.", "keywords": ["new town", "pool", "close", "x"]}, 0.5),
        ("grounded", {"completion": "", "source": "words"}, 0.0),
        ("summary_length", {"completion": "w " * 2, "source": "w " * 10}, 1.0),
        ("summary_length", {"completion": "w " * 6, "source": "w " * 10}, 0.5),
        ("summary_length", {"completion": "", "source": "w " * 10}, 0.0),
        ("distinct", {"completion": "one"}, 0.0),
        ("constraints", {"completion": "x"}, None),
        (
            "constraints",
            {"completion": "Once a foxglove. The end", "must_avoid": ["fox"], "ends_with": "the END"},
            1.0,
        ),
        ("constraints", {"completion": "a b c", "min_words": 4, "starts_with": "A"}, 0.5),
        ("repetition", {"tokens": [1, 2]}, 0.0),
        ("repetition", {"tokens": [1, 2, 3, 1, 2, 3]}, -0.25),
        ("soft_overlong", {"length": 80, "max_length": 100}, 0.0),
        ("soft_overlong", {"length": 90, "max_length": 100}, -0.5),
        ("soft_overlong", {"length": 101, "max_length": 100}, -1.0),
    ],
)
def test_hand_computed_values(name, given, value):
    assert score(name, **given) == pytest.approx(value)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("(5*3)+9", 1.0),
        ("9 + 3 × 5", 1.0),
        ("5*3+9=24", 1.0),
        ("24", 0.0),
        ("5*3+9+0", 0.0),
        ("5*3", 0.0),
        ("3+5+9", 0.0),
        ("5*3+9/0", 0.0),
        ("9**3**5", 0.0),
        ("__import__('os').getcwd()", 0.0),
        ("(" * 400 + "9", 0.0),
        ("True*3+9", 0.0),
        ("5*3.0+9", 0.0),
        ("", 0.0),
    ],
)
def test_countdown_checks_the_expression_without_running_it(expression, value):
    given = {"numbers": [3, 5, 9], "target": 24, "finish_reason": "stop"}
    assert score("countdown", f"<answer>{expression}</answer>", **given) == value


def test_countdown_computes_in_exact_fractions():
    assert score("countdown", "<answer>8/(3-8/3)</answer>", [8, 3, 8, 3], 24, "stop") == 1.0


@pytest.mark.parametrize(
    ("length", "right", "value"),
    [
        (0, True, 1.0),
        (50, True, 0.75),
        (100, True, 0.5),
        (0, False, -1.0),
        (50, False, -0.75),
        (100, False, -0.5),
    ],
)
def test_cosine_length_pays_right_answers_to_be_short_and_wrong_ones_to_be_long(length, right, value):
    completion = "<answer>4</answer>" if right else "<answer>5</answer>"
    given = {"answer": "4", "length": length, "max_length": 100}
    assert score("cosine_length", completion, finish_reason="stop", **given) == pytest.approx(value)
    assert score("cosine_length", completion, finish_reason="length", **given) == -1.0


@pytest.mark.parametrize(
    ("completion", "language", "value"),
    [
        ("<think>six plus eight</think>安安", "en", 1.0),
        ("<think>计算 plus</think>", "zh", 2 / 3),
        ("<think>считаем it</think>", "Russian", 0.5),
        ("<think>6+8=4</think>", "en", None),
        ("ひらがなと漢字", "ja", 1.0),
    ],
)
def test_language_counts_words_by_script(completion, language, value):
    assert score("language", completion, language=language) == (
        value if value is None else pytest.approx(value)
    )


def test_an_unknown_language_lists_those_there_are():
    with pytest.raises(ValueError, match="Known are ar, bg, de"):
        score("language", "text", language="xx")


def test_lingua_tells_languages_of_one_script_apart():
    pytest.importorskip("lingua")
    german = "Zuerst addieren wir die beiden Zahlen und dann ziehen wir drei davon ab."
    assert score("language", german, language="de", detector="lingua") == 1.0
    assert score("language", german, language="en", detector="lingua") == 0.0


def test_chrf_and_bleu_are_those_of_sacrebleu_and_order_translations():
    reference = "Wo ist der alte Bahnhof?"
    near, far = "Wo ist die alte Bahnstation?", "The soup is still too hot."
    assert 0.0 < score("chrf", far, reference) < score("chrf", near, reference) < 1.0
    assert score("bleu", far, reference) < 0.1 < score("bleu", near, reference) < 1.0
    assert score("chrf", "", reference) == 0.0 and score("bleu", near, None) is None


@pytest.mark.parametrize(
    ("completion", "answer", "value"),
    [
        (r"so $x = \frac{3}{4}$", "0.75", 1.0),
        (r"\boxed{2\sqrt{2}}", r"$\sqrt{8}$", 1.0),
        ("<answer>1/2</answer>", r"\frac{1}{2}", 1.0),
        (r"\boxed{(1, 3)}", "$(1,2)$", 0.0),
        ("I do not know", "7", 0.0),
        ("7", "", None),
        ("7", None, None),
    ],
)
def test_mathematical_answers_are_compared_as_mathematics(completion, answer, value):
    assert score("math", completion, answer) == value


def test_math_survives_a_tower_of_powers(tmp_path):
    sources = resolve([RewardSpec(name="math")], tmp_path)
    with RewardPool(sources, timeout=20) as pool:
        right, tower = pool.score(
            [group("<answer>5</answer>", "<answer>$9^{9^{9^{9}}}$</answer>", answer="5")]
        )
    assert right.reward == 1.0
    assert tower.reward in (0.0, None)


DOUBLE = "Write double(n)."
TESTS = [{"args": [3], "expected": 6}, {"args": [-7], "expected": -14}]


def block(code: str) -> str:
    return f"<think>easy</think>Here:\n```python\n{code}\n```\n"


def test_programs_are_run_against_their_tests_in_the_sandbox(tmp_path):
    programs = {
        "def double(n):\n    return 2 * n": 1.0,
        "def double(n):\n    return 6": 0.5,
        "def double(n):\n    return 2.0 * n": 0.0,
        "def double(n):\n    while True: pass": 0.0,
        "import sys\nsys.exit(0)": 0.0,
        "class Yes:\n    def __eq__(self, other): return True\ndef double(n): return Yes()": 0.0,
        "this is no Python": 0.0,
    }
    asked = group(*map(block, programs), question=DOUBLE, tests=TESTS, function="double")
    texts = {"print(2 * int(input()))": 1.0, "print('6')": 0.0, "import sys; sys.exit(0)": 0.0}
    cases = [{"stdin": "3\n", "expected": "6"}, {"stdin": "4\n", "expected": "8\n"}]
    read = group(*texts, question="Read n, print its double.", tests=cases)
    options = {"seconds": 1.0}
    specs = [RewardSpec(name="code_tests", options=options)]
    with RewardPool(resolve(specs, tmp_path)) as pool:
        scores = pool.score([asked, read])
    assert all(score.values["code_tests"] is not None for score in scores), [
        score.reasons for score in scores
    ]
    assert [score.reward for score in scores[: len(programs)]] == [float(v == 1.0) for v in programs.values()]
    assert [score.reward for score in scores[len(programs) :]] == list(texts.values())
    with RewardPool(
        resolve([RewardSpec(name="code_tests", options={**options, "partial": True})], tmp_path)
    ) as pool:
        assert [score.reward for score in pool.score([asked])] == list(programs.values())


def test_a_sandbox_that_fails_is_no_verdict_on_the_program(tmp_path):
    broken = "def f(completion):\n    from workbench.core.errors import SandboxError\n    raise SandboxError('lost')\n"
    (verdict,) = try_reward(broken, [{"completion": "x"}]).scores
    assert verdict.reward is None and verdict.reasons["f"] == "Infrastructure: lost"
