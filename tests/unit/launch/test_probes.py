"""Probes: requests to a model outside training, with replies as events."""

from pathlib import Path
from typing import Any

import pytest

from workbench.core.config import RunConfig
from workbench.record import folder as record
from workbench.record.control import Control
from workbench.record.folder import Command
from workbench.record.status import Status
from workbench.worker.probes import ProbeContext, reply


class FakeProbeWorker:
    """A probe worker without a process: its context and its replies."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.config = RunConfig.build(
            None, {"prompts_per_step": 2, "num_generations": 2, "max_completion_length": 24, **settings}
        )
        folder = record.create(root, self.config, "probe")
        self.replies: list[dict[str, Any]] = []
        control = Control(folder, Status())
        control.record_to(lambda kind, data, step=None: self.replies.append(data))
        self.context = ProbeContext(self.config, folder, control)

    def ask(self, probe: str, **args: Any) -> dict[str, Any]:
        reply(self.context, Command("id-1", "probe", {"probe": probe, **args}))
        return self.replies[-1]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> FakeProbeWorker:
    return FakeProbeWorker(tmp_path_factory.mktemp("probes"))


def test_prompts_are_shown_as_the_model_reads_them_with_token_counts(worker: FakeProbeWorker) -> None:
    found = worker.ask("prompts", count=3)["result"]
    assert len(found["prompts"]) == 3 and found["train"] == 256
    tokens = worker.context.tokenizer(found["prompts"][0]["text"])["input_ids"]
    assert len(tokens) == found["prompts"][0]["tokens"]
    assert (
        found["longest"]["tokens"]
        == found["tokens"]["max"]
        >= found["tokens"]["median"]
        >= found["tokens"]["min"]
        > 0
    )


def test_samples_repeat_with_their_seed_and_keep_to_their_limit(worker: FakeProbeWorker) -> None:
    ask = {"prompt": "6+8-3", "n": 3, "max_completion_length": 5}
    first, again, other = (worker.ask("sample", seed=seed, **ask)["result"]["samples"] for seed in (1, 1, 2))
    assert (
        [sample["text"] for sample in first]
        == [sample["text"] for sample in again]
        != [sample["text"] for sample in other]
    )
    assert all(sample["length"] <= 5 and sample["logprob_sum"] < 0 for sample in first)


def test_a_rehearsal_measures_a_step_and_leaves_the_model_as_it_was(worker: FakeProbeWorker) -> None:
    ask = {"prompt": "6+8-3", "n": 2, "seed": 1}
    before = worker.ask("sample", **ask)["result"]["samples"]
    found = worker.ask("rehearsal")["result"]
    assert found["answers"] == 4 and 0 < found["longest_answer"] <= 24
    assert found["peak_bytes"] > 100 * 2**20 and found["seconds"] > 0
    assert found["step_seconds_at_limit"] >= found["seconds"] * 0.99
    assert worker.ask("sample", **ask)["result"]["samples"] == before


@pytest.mark.parametrize(
    ("probe", "words"),
    [("dance", "There are: branch, prompts, rehearsal, sample, fresh"), ("sample", "needs a prompt")],
)
def test_a_probe_that_cannot_be_run_gets_a_reply_with_the_reason(
    worker: FakeProbeWorker, probe: str, words: str
) -> None:
    found = worker.ask(probe)
    assert found["ok"] is False and words in found["text"] and found["id"] == "id-1"


def test_a_model_that_cannot_be_loaded_is_a_reply_too(tmp_path: Path) -> None:
    found = FakeProbeWorker(tmp_path, model=str(tmp_path / "none")).ask("prompts")
    assert found["ok"] is False and "none" in found["text"]


def test_a_training_run_does_not_rehearse_on_its_own_weights(worker: FakeProbeWorker) -> None:
    borrowed = ProbeContext(
        worker.config, worker.context.folder, worker.context.control, policy=worker.context.policy
    )
    reply(borrowed, Command("id-2", "probe", {"probe": "rehearsal"}))
    assert worker.replies[-1]["ok"] is False and "changes weights" in worker.replies[-1]["text"]
