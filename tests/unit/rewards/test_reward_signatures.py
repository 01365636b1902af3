"""What rewards may ask for, by our names and by those of other tools; what they declare, and what is guessed."""

import hashlib
import random
from pathlib import Path

import pytest

from tests.rewarding import group, scores_of, sources_of, written
from workbench import api
from workbench.core.config import RewardSpec, RunConfig
from workbench.core.errors import RewardError
from workbench.core.types import prompt_id
from workbench.launch import preflight
from workbench.prompts.data import MESSAGES
from workbench.rewards.api.dialects import CHAT_COLUMN
from workbench.rewards.api.outcome import NOT_APPLICABLE
from workbench.rewards.api.reward_input import of_groups
from workbench.rewards.runtime.pool import RewardPool
from workbench.rewards.runtime.registry import resolve
from workbench.rewards.trial import try_reward


def values(folder: Path, code: str, *groups, function: str = "f", **spec):
    with RewardPool(sources_of(folder, code, function, **spec)) as pool:
        return [score.values[function] for score in pool.score(groups)]


def test_a_reward_gets_what_it_names(tmp_path):
    code = """
        def f(
            prompt, completion, answer, tokens, length, finish_reason, group, index, step, rendered,
            level, columns
        ):
            assert (prompt, completion, answer) == ("2+2?", "b", "4"), (prompt, completion, answer)
            assert (tokens, length, finish_reason) == ([5, 6, 7], 3, "length")
            assert (group, index, step, rendered) == (["a", "b"], 1, 0, "<user>2+2?")
            assert level == 3 and columns == {"level": 3}
            return 1.0
    """
    asked = group("a", "b", finish_reason="length", rendered="<user>2+2?", level=3)
    with RewardPool(sources_of(tmp_path, code)) as pool:
        first, second = pool.score([asked])
    assert second.values == {"f": 1.0}, second.reasons
    assert "AssertionError: ('2+2?', 'a', '4')" in first.reasons["f"]


def test_options_fill_arguments_with_a_default_and_columns_do_where_no_option_is_given(tmp_path):
    code = "def f(completion, *, limit=10, level=0):\n    return limit + level\n"
    assert values(tmp_path, code, group("a")) == [10.0]
    assert values(tmp_path, code, group("a", level=3)) == [13.0]
    assert values(tmp_path, code, group("a", level=3), options={"limit": 2, "level": 1}) == [3.0]


def test_an_unknown_option_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(
        RewardError, match=r"it has no option `limt`. Its options: limit. Did you mean `limit`\?"
    ):
        sources_of(tmp_path, "def f(completion, *, limit=10): return limit", options={"limt": 2})


def test_an_unknown_argument_says_what_is_there(tmp_path):
    code = "def f(completion, anwser):\n    return 1.0\n"
    (score,) = scores_of(tmp_path, code, [group("a", level=3)])
    reason = score.reasons["f"]
    assert reason.startswith("Your reward cannot be called: it asks for `anwser`, which is not there.")
    assert "Columns of your data: level. Did you mean `answer`?" in reason


def test_a_group_reward_gets_plural_completions_and_single_prompt_answer_and_columns(tmp_path):
    code = """
        @reward(group=True)
        def f(completions, prompt, answer, lengths, tokens, level):
            assert (prompt, answer, level, lengths, tokens) == ("2+2?", "4", 3, [3, 3], [[5, 6, 7]] * 2)
            return [float(text == answer) for text in completions]
    """
    assert values(tmp_path, code, group("4", "5", level=3)) == [1.0, 0.0]


def test_trl_functions_get_lists_and_may_say_none(tmp_path):
    code = """
        def f(
            prompts, completions, completion_ids, answer, level, trainer_state, log_extra, log_metric,
            **kwargs
        ):
            assert prompts == ["2+2?"] * 2 and completion_ids == [[5, 6, 7]] * 2
            assert answer == ["4"] * 2 and level == [3] * 2 and kwargs["topic"] == ["sums"] * 2
            assert trainer_state.global_step == 7
            log_extra("upper", [text.upper() for text in completions])
            log_metric("longest", max(map(len, completions)))
            return [None, 0.5]
    """
    with RewardPool(sources_of(tmp_path, code)) as pool:
        first, second = pool.score([group("a", "bb", level=3, topic="sums")], step=7)
        assert pool.metrics == {"longest": 2.0}
        assert pool.error_rate == {"f": 0.0}, "a None that the reward chose is no error"
    assert (first.values, first.reasons, first.reward) == ({"f": None}, {"f": NOT_APPLICABLE}, None)
    assert (second.values, second.logs) == ({"f": 0.5}, {"upper": "BB"})
    assert first.logs == {"upper": "A"}


def test_trl_functions_that_read_messages_get_messages(tmp_path):
    code = """
        def f(completions, **kwargs):
            assert kwargs["prompts"][0] == [{"role": "user", "content": "2+2?"}]
            return [float(completion[0]["content"] == "4") for completion in completions]
    """
    assert values(tmp_path, code, group("4", "5")) == [1.0, 0.0]


CHAT = [{"role": "system", "content": "Add."}, {"role": "user", "content": "2+2?"}]


def test_trl_functions_get_the_datas_own_messages_where_it_is_conversational_and_text_elsewhere(tmp_path):
    code = """
        def f(prompts, completions):
            return [10.0 * len(p) + len(c) if isinstance(c, list) else -len(c) for p, c in zip(prompts, completions)]

        @reward(messages=False)
        def plain(prompts, completions):
            return [float(prompt == "2+2?") - len(text) for prompt, text in zip(prompts, completions)]
    """
    assert CHAT_COLUMN == MESSAGES, "what the data loader writes is what rewards read"
    for function, data, value in (
        ("f", {MESSAGES: CHAT}, 21.0),  # two messages, and one
        ("f", {}, -3.0),
        ("f", {MESSAGES: "a column of that name that holds no messages"}, -3.0),
        ("plain", {MESSAGES: CHAT}, -2.0),
    ):
        assert values(tmp_path, code, group("abc", **data), function=function) == [value]
    [source] = sources_of(tmp_path, code)
    assert source.shape.messages is None and source.shape.guessed == ()


def test_messages_can_be_declared_and_are_guessed_and_shown_where_they_are_not(tmp_path):
    code = """
        @reward(messages=True)
        def declared(prompt, completion):
            return len(prompt) + len(completion)

        @reward(messages=False)
        def refused(completion):
            return float(completion[0] == "4") or completion["content"]

        def read(completion):
            return float(completion[-1]["content"] == "4")

        def listed(completions):
            return [float(completion[-1]["content"] == "4") for completion in completions]
    """
    for function, value, guessed in (
        ("declared", 2.0, ()),
        ("refused", 1.0, ()),
        (
            "read",
            1.0,
            ("reads chat messages (guessed from the code; say @reward(messages=True) to be explicit)",),
        ),
        (
            "listed",
            1.0,
            (
                "reads chat messages, also where the data is not conversational "
                "(guessed from the code; say @reward(messages=True) to be explicit)",
            ),
        ),
    ):
        [source] = sources_of(tmp_path, code, function)
        assert source.shape.guessed == guessed
        with RewardPool([source]) as pool:
            [score] = pool.score([group("4")])
        assert score.reward == value, score.reasons


def drawn(name: str, step: int, index: int | None) -> float:
    """The first random number of a reward for the sample at `index` of the usual group, worked out by hand."""
    text = f"{name}/{step}/{prompt_id('2+2?', '4')}/{index}"
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    return random.Random(seed).random()


def test_an_argument_rng_is_a_generator_seeded_for_the_sample_or_the_group(tmp_path):
    code = """
        def f(completion, rng):
            return rng.random()

        def listed(completions, rng):
            return [rng.random() for _ in completions]

        async def waits(completion, rng):
            return rng.random()
    """
    groups = [group("a", "b"), group("a", "b")]
    with RewardPool(sources_of(tmp_path, code), workers=2) as pool:
        expected = [drawn("f", 3, 0), drawn("f", 3, 1)] * 2
        assert [score.reward for score in pool.score(groups, step=3)] == expected
        assert [score.reward for score in pool.score(groups, step=4)] == [
            drawn("f", 4, 0),
            drawn("f", 4, 1),
        ] * 2
    assert values(tmp_path, code, group("a"), function="listed") == [drawn("listed", 0, None)]
    assert values(tmp_path, code, *groups[:1], function="waits") == [
        drawn("waits", 0, 0),
        drawn("waits", 0, 1),
    ]


def test_random_numbers_are_seeded_where_that_is_declared_and_a_guess_is_shown(tmp_path):
    code = """
        import random as r

        @reward(random=True)
        def declared(completion):
            return r.random()

        @reward(random=False)
        def refused(completion):
            return r.random()

        def read(completion):
            return r.random()
    """
    for function, guessed in (
        ("declared", ()),
        ("refused", ()),
        (
            "read",
            (
                "draws random numbers, seeded for each sample (guessed from the code; say @reward(random=True) to be explicit)",
            ),
        ),
    ):
        [source] = sources_of(tmp_path, code, function)
        assert source.shape.guessed == guessed and source.shape.random is (function != "refused")
        with RewardPool([source]) as pool:
            first, second = pool.score([group("a", "b")], step=5)
            again = [score.reward for score in pool.score([group("a", "b")], step=5)]
        same = [first.reward, second.reward] == again
        assert same is (function != "refused")
        assert not same or again == [drawn(function, 5, 0), drawn(function, 5, 1)]
    [other] = sources_of(tmp_path, "def f(completion): return 1.0")
    assert not other.shape.random and other.shape.guessed == ()


def test_guesses_are_shown_where_a_reward_is_tried_and_before_a_run_starts(tmp_path):
    code = "import random\ndef f(completion):\n    return random.random()\n"
    sentence = (
        "Reward f draws random numbers, seeded for each sample "
        "(guessed from the code; say @reward(random=True) to be explicit)."
    )
    assert try_reward(code, [{"completion": "a"}]).guessed == [sentence]
    with pytest.warns(UserWarning, match="draws random numbers"):
        assert api.try_reward(code, ["a"]).attrs["guessed"] == [sentence]
    path = written(tmp_path, code)
    report = preflight.check(RunConfig.build(None, {"rewards": ["correct", f"{path}:f"]}))
    assert sentence in report.warnings


def test_trl_rewards_made_by_a_factory_work_as_objects(tmp_path):
    code = """
        class Overlong:
            __name__ = "overlong"
            def __init__(self, most): self.most = most
            def __call__(self, completion_ids, **kwargs):
                return [float(len(ids) <= self.most) for ids in completion_ids]

        f = Overlong(2)
    """
    assert values(tmp_path, code, group("a", "b")) == [0.0, 0.0]


def test_asynchronous_rewards_of_both_kinds_run_together_and_end_late_calls(tmp_path):
    code = """
        import asyncio
        waiting = 0

        async def f(completion):
            global waiting
            waiting += 1
            while waiting < 3:
                await asyncio.sleep(0.001)
            if completion == "slow":
                await asyncio.sleep(600)
            return 1.0

        async def g(completions, **kwargs):
            await asyncio.sleep(0)
            return [2.0 for _ in completions]
    """
    slow, *others = scores_of(tmp_path, code, [group("slow", "b", "c")], timeout=2.0)
    assert [score.reward for score in others] == [1.0, 1.0]
    assert slow.reasons == {"f": "No answer within 2 s."}
    assert values(tmp_path, code, group("a", "b"), function="g") == [2.0, 2.0]


def test_verl_functions_get_their_names_and_their_score_comes_out_of_a_dict(tmp_path):
    code = """
        def compute_score(data_source, solution_str, ground_truth, extra_info=None):
            assert data_source == "sums" and extra_info["level"] == 3
            return {"score": float(solution_str == ground_truth), "upper": solution_str}
    """
    sources = sources_of(tmp_path, code, "compute_score")
    assert sources[0].shape.dialect == "verl"
    with RewardPool(sources) as pool:
        first, second = pool.score([group("4", "5", level=3, data_source="sums")])
    assert (first.reward, second.reward) == (1.0, 0.0)
    assert second.logs == {"upper": "5"}


def test_ms_swift_classes_are_made_and_called(tmp_path):
    code = """
        class Right:
            def __call__(self, completions, solution, **kwargs):
                return [float(text == right) for text, right in zip(completions, solution)]
    """
    sources = sources_of(tmp_path, code, "Right")
    assert sources[0].shape.dialect == "ms-swift"
    assert values(tmp_path, code, group("4", "5", solution="5"), function="Right") == [0.0, 1.0]


def test_openrlhf_functions_get_queries_and_labels_and_may_return_arrays(tmp_path):
    code = """
        import numpy as np

        def reward_func(queries, prompts, labels, **kwargs):
            assert queries == ["<user>2+2?4", "<user>2+2?5"] and prompts == ["2+2?"] * 2
            return {"rewards": np.array([query.endswith(label) for query, label in zip(queries, labels)])}
    """
    sources = sources_of(tmp_path, code, "reward_func")
    assert sources[0].shape.dialect == "OpenRLHF"
    asked = group("4", "5", rendered="<user>2+2?")
    assert values(tmp_path, code, asked, function="reward_func") == [1.0, 0.0]


def test_verifiers_functions_get_parser_state_and_info(tmp_path):
    code = """
        def f(prompt, completion, answer, state, info, task, parser, **kwargs):
            assert completion[-1]["content"] == state["completion"][-1]["content"]
            assert info == {"level": 3} and task == "default"
            return float(parser.parse_answer(completion) == answer)
    """
    sources = sources_of(tmp_path, code)
    assert sources[0].shape.dialect == "verifiers"
    assert values(tmp_path, code, group("<answer>4</answer>", "5", level=3)) == [1.0, 0.0]


def test_whole_numbers_truth_values_and_numpy_scalars_are_numbers(tmp_path):
    code = """
        import numpy as np
        VALUES = [True, 7, np.float32(0.5), np.int64(3), np.bool_(True)]

        def f(index):
            return VALUES[index]
    """
    assert values(tmp_path, code, group(*"abcde")) == [1.0, 7.0, 0.5, 3.0, 1.0]


def test_a_module_gets_ready_before_its_first_call_and_finishes_after_its_last(tmp_path):
    code = f"""
        import pathlib
        MARK = pathlib.Path({str(tmp_path / "mark")!r})

        def prepare(size):
            MARK.write_text(f"prepared {{size}}")

        def finish():
            MARK.write_text(MARK.read_text() + ", finished")

        def f(completion, *, size=1):
            return float(MARK.read_text() == f"prepared {{size}}")
    """
    assert values(tmp_path, code, group("a"), options={"size": 5}) == [1.0]
    assert (tmp_path / "mark").read_text() == "prepared 5, finished"


def test_rewards_that_hold_a_model_get_one_process_of_their_own(tmp_path):
    code = """
        import os

        @reward(alone=True)
        def f(completion):
            return os.getpid()

        def g(completion):
            return os.getpid()
    """
    path = sources_of(tmp_path, code)[0].file
    specs = [RewardSpec(name=f"{tmp_path / path}:{name}") for name in ("f", "g")]
    with RewardPool(resolve(specs, tmp_path / "sources"), workers=2) as pool:
        assert len(pool.pids) == 3
        scores = pool.score([group("a", "b"), group("c", "d")])
        asked = of_groups([group("a", "b")], tokens=False)
        waiting = pool.score_inputs(asked, submitted={0: pool.submit(asked)})
    assert len({score.values["f"] for score in scores}) == 1
    assert {score.values["f"] for score in scores}.isdisjoint(score.values["g"] for score in scores)
    assert [list(score.values) for score in waiting] == [["f", "g"]] * 2
