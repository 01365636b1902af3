"""Numbers that break and memory that runs out: the weights stay good, the objective stays what it is, the run says what to change."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.flow.test_loop import SMALL, run, weights
from tests.tiny import tiny_policy
from workbench.core.config import RunConfig
from workbench.core.errors import RunError
from workbench.core.types import Group, Prompt, Request, Rollout, Sampling, Score, StepRecord
from workbench.diagnose.metrics import step_metrics
from workbench.models import logprobs, per_token_logps
from workbench.models.load import load_policy
from workbench.record import checkpoints
from workbench.record import folder as record
from workbench.record.folder import RunFolder, folders
from workbench.record.reader import Reader
from workbench.record.writer import Writer
from workbench.rollouts.local import LocalEngine
from workbench.train.oom import OomRetry, OomRetryEngine
from workbench.train.update import Updater, sampling_of


def spoil(monkeypatch: pytest.MonkeyPatch, updates: set[int]) -> None:
    """The gradients of these updates (from 0) hold a NaN."""
    real, calls = torch.nn.utils.clip_grad_norm_, iter(range(1000))

    def clip(parameters: Any, limit: float) -> Any:
        if next(calls) in updates:
            parameters[0].grad[0, 0] = float("nan")
        return real(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)


def events(folder: RunFolder, kind: str) -> list[Any]:
    return [event["data"] for event in Reader(folder).events(kind=kind)]


def test_case_42_one_gradient_that_is_not_finite_costs_one_update_and_is_kept_for_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {1})
    folder = run(
        tmp_path,
        "embedded",
        **SMALL | {"steps": 3, "save_steps": 1, "save_total_limit": 5, "eval_problems": 2, "beta": 0.04},
    )
    [told] = events(folder, "update_skipped")
    assert told == {"reason": "update 1 of step 1: grad_norm is nan"}
    kept = [weights(checkpoints.at(folder, step)) for step in (1, 2, 3)]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])
    assert any(not torch.equal(kept[1][name], kept[2][name]) for name in kept[0])
    assert all(torch.isfinite(value).all() for value in kept[2].values())
    dumped = json.loads((folder.path / "skipped" / "step-000001.json").read_text())
    assert dumped["metrics"]["grad_norm"] == "nan" and dumped["skipped"] == [told["reason"]]
    recorded = Reader(folder).samples(step=1).sort_values("id")["text"].tolist()
    assert [sample["text"] for sample in dumped["samples"]] == recorded
    series = Reader(folder).series()["train"]
    assert series["update/skipped"] == [0.0, 1.0, 0.0] and series["grad_norm"][1] is None


def test_case_42_three_in_a_row_end_the_run_at_its_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {1, 2, 3, 4, 5})
    small = SMALL | {"steps": 9, "save_steps": 1, "eval_problems": 2, "eval_steps": 9, "beta": 0.04}
    with pytest.raises(
        RunError, match=r"Three updates in a row were not finite .*step-000003.*learning_rate"
    ) as raised:
        run(tmp_path, "embedded", **small)
    assert "none of them touched the weights" in str(raised.value)
    [folder] = folders(tmp_path)
    assert Reader(folder).steps() == [0, 1, 2, 3] and len(events(folder, "update_skipped")) == 3
    newest = checkpoints.latest(folder)
    assert newest is not None and newest.name == "step-000003"
    assert all(torch.isfinite(value).all() for value in weights(newest).values())
    assert len(list((folder.path / "skipped").iterdir())) == 3


# -- odd answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd", ["empty", "end at once", "only padding", "never an end", "all of them", "nothing but empty ones"]
)
def test_case_48_odd_answers_divide_nothing_by_zero_and_are_shown_with_their_length(
    tmp_path: Path, odd: str
) -> None:
    policy, groups, advantages_B = batch()
    settings = RunConfig.parse(SETTINGS)
    ids = {"empty": [], "end at once": [1], "only padding": [0, 0, 0], "never an end": [9] * 16}
    kinds = list(ids) if odd == "all of them" else ["empty"] if odd.startswith("nothing") else [odd]

    def answer(number: int, rollout: Rollout) -> Rollout:
        kind = kinds[number % len(kinds)]
        if number > 7 and not odd.startswith("nothing"):
            return rollout  # and some ordinary ones beside them
        tokens = np.array(ids[kind], np.int32)
        reason = "stop" if kind == "end at once" else "length"
        return replace(
            rollout,
            token_ids=tokens,
            logprobs=np.full(len(tokens), -1.0, np.float32),
            text="",
            finish_reason=reason,
        )

    numbers = iter(range(12))
    groups = [
        replace(group, rollouts=tuple(answer(next(numbers), rollout) for rollout in group.rollouts))
        for group in groups
    ]
    updater = Updater(policy, settings)
    result = updater.step(
        groups, advantages_B, settings, 0, reference_B_T=updater.reference(groups, settings)
    )
    assert result.skipped == [] and all(torch.isfinite(parameter).all() for parameter in policy.trainable())
    scores = [Score({"correct": float(b % 2)}, {}, float(b % 2)) for b in range(12)]
    done = StepRecord(
        0, "train", groups, scores, advantages_B, result.tokens, result.gradient_share_B, dict(result.metrics)
    )
    updater.post_update_pass(result.tokens, groups, settings, 0)
    done.metrics |= step_metrics(done, settings)
    folder = record.create(tmp_path, settings)
    with Writer(folder, settings) as writer:
        writer.step(done)
    lengths = [rollout.length for group in groups for rollout in group.rollouts]
    samples = Reader(folder).samples(step=0).sort_values("id")
    assert samples["length"].tolist() == lengths
    assert "record/nonfinite_dropped" not in Reader(folder).series()["train"]
    shown = Reader(folder).group(0, 0, arrays=True)
    json.dumps(shown, allow_nan=False)
    assert [len(sample["token_ids"]) for sample in shown["samples"]] == lengths[:4]


def test_case_48_a_network_that_reads_each_prompt_once_takes_empty_answers_too() -> None:
    policy = load_policy(RunConfig.build("embedded", {"device": "cpu"}))
    assert per_token_logps.is_packed(policy.model)
    empty, short = np.zeros(0, np.int32), np.array([5, 6, 7], np.int32)
    alone = per_token_logps.completion_stats(
        policy.model, logprobs.Sequences([(5, 6, 7)], [short]), Sampling(), policy.pad_id, 512
    ).logp_B_T
    for answers in ([empty, short, empty], [empty, empty, empty]):
        batch = logprobs.Sequences([(5, 6, 7), (5, 6, 7), (9, 8)], answers)
        found = per_token_logps.completion_stats(policy.model, batch, Sampling(), policy.pad_id, 512).logp_B_T
        assert torch.isfinite(found).all() and found.shape == (3, max(map(len, answers)))
        if len(answers[1]):
            torch.testing.assert_close(found[1:2], alone, rtol=1e-5, atol=1e-6)


# -- memory ------------------------------------------------------------------------------------------------

SETTINGS = {
    "prompts_per_step": 3, "num_generations": 4, "max_completion_length": 16, "learning_rate": 1e-3, "warmup_steps": 0,
    "lr_scheduler_type": "constant", "rewards": "correct=1", "micro_batch_tokens": 128, "beta": 0.1,
}  # fmt: skip


def batch() -> tuple[Any, list[Group], np.ndarray[Any, Any]]:
    policy = tiny_policy()
    policy.reference = tiny_policy(seed=9).model
    requests = [
        Request(Prompt("q", token_ids=(5, 6, 7 + n), id=str(n)), tuple(range(100 * n, 100 * n + 4)))
        for n in range(3)
    ]
    groups = LocalEngine(policy).generate(requests, sampling_of(RunConfig.parse(SETTINGS)))
    return policy, groups, np.random.default_rng(5).normal(size=12)


def small_device(policy: Any, most: int) -> list[int]:
    """Let no more than `most` samples through the network at once; returns how many came each time."""
    came: list[int] = []

    def forward(network: Any, arguments: Any, named: dict[str, Any]) -> None:
        torch.rand(1)  # a failed try has used random numbers
        came.append(len(named["input_ids"]))
        if came[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore of that")

    policy.model.get_decoder().register_forward_pre_hook(forward, with_kwargs=True)
    return came


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo"])
def test_case_43_without_memory_micro_batches_are_halved_and_the_update_is_the_same(loss_type: str) -> None:
    settings = RunConfig.parse({**SETTINGS, "loss_type": loss_type})
    after, losses = [], []
    for most in (99, 2):
        policy, groups, advantages_B = batch()
        came = small_device(policy, most)
        updater = Updater(policy, settings)
        reference_B_T = updater.reference(groups, settings)
        torch.manual_seed(0)
        result = updater.step(groups, advantages_B, settings, 0, reference_B_T=reference_B_T)
        after.append([parameter.detach() for parameter in policy.trainable()])
        losses.append((result.metrics["loss"], result.metrics["grad_norm"]))
        assert result.skipped == [] and policy.version == 1 and max(came[-2:]) <= most
    assert updater.retry.chunks == 4 and "in 4 chunks, with the same result" in updater.notices()[-1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for ours, theirs in zip(*after, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_case_43_a_retry_begins_with_the_same_random_numbers() -> None:
    retry = OomRetry("the test")
    drawn: list[float] = []

    def work(count: int) -> float:
        drawn.append(float(torch.rand(1)))
        if count < 4:
            raise torch.OutOfMemoryError("no more")
        return drawn[-1]

    assert retry.run(work, 8) == drawn[0] and drawn == [drawn[0]] * 3


def test_case_43_where_not_even_one_sample_fits_the_run_ends_with_advice() -> None:
    policy, groups, advantages_B = batch()
    settings = RunConfig.parse(SETTINGS)
    before = [parameter.detach().clone() for parameter in policy.trainable()]
    small_device(policy, 0)
    with pytest.raises(
        RunError,
        match=r"even with one sample at a time \(CUDA out of memory.*GiB\.\).*gradient_checkpointing",
    ):
        Updater(policy, settings).step(groups, advantages_B, settings, 0, reference_B_T=torch.zeros(12, 16))
    assert all(torch.equal(a, b) for a, b in zip(before, policy.trainable(), strict=True))


def test_case_43_sampling_asks_for_fewer_answers_at_a_time_and_gets_the_same_ones() -> None:
    policy, _, _ = batch()
    sampling = sampling_of(RunConfig.parse(SETTINGS))
    requests = [
        Request(Prompt("q", token_ids=(5, 6, 7 + n), id=str(n)), tuple(range(9 * n, 9 * n + 5)))
        for n in range(3)
    ]

    class Small(LocalEngine):
        def generate(
            self, requests: Any, sampling: Any, progress: Any = None, whole: Any = None
        ) -> list[Group]:
            if sum(len(request.seeds) for request in requests) > 4:
                raise torch.OutOfMemoryError("no more")
            return super().generate(requests, sampling, progress)

    whole = LocalEngine(policy).generate(requests, sampling)
    engine = OomRetryEngine(Small(policy))
    cut = engine.generate(requests, sampling)
    assert engine.retry.chunks == 4
    for ours, theirs in zip(whole, cut, strict=True):
        assert ours.prompt == theirs.prompt and len(ours) == len(theirs)
        for one, two in zip(ours.rollouts, theirs.rollouts, strict=True):
            assert one.token_ids.tolist() == two.token_ids.tolist() and one.seed == two.seed
            np.testing.assert_allclose(one.logprobs, two.logprobs, atol=1e-5)


def test_case_43_an_error_that_is_not_about_memory_is_not_tried_again() -> None:
    policy, _, _ = batch()
    engine = OomRetryEngine(LocalEngine(policy))
    asked: list[int] = []

    def fails(count: int) -> None:
        asked.append(count)
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        engine.retry.run(fails, 8)
    assert asked == [1]
