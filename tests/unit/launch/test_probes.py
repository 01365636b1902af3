"""Probes: questions to a model outside training, answered as events."""

from pathlib import Path
from typing import Any

import pytest

from workbench.core.config import RunConfig
from workbench.record import folder as record
from workbench.record.control import Control
from workbench.record.folder import Command
from workbench.record.status import Status
from workbench.worker.probes import ProbeContext, reply


class Asker:
    """A context and what it answers."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.config = RunConfig.build(
            None, {"prompts_per_step": 2, "num_generations": 2, "max_completion_length": 24, **settings}
        )
        folder = record.create(root, self.config, "probe")
        self.answers: list[dict[str, Any]] = []
        control = Control(folder, Status())
        control.record_to(lambda kind, data, step=None: self.answers.append(data))
        self.context = ProbeContext(self.config, folder, control)

    def ask(self, probe: str, **args: Any) -> dict[str, Any]:
        reply(self.context, Command("id-1", "probe", {"probe": probe, **args}))
        return self.answers[-1]


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory) -> Asker:
    return Asker(tmp_path_factory.mktemp("bench"))


def test_prompts_are_shown_as_the_model_reads_them_with_token_counts(asker: Asker) -> None:
    found = asker.ask("prompts", count=3)["result"]
    assert len(found["prompts"]) == 3 and found["train"] == 256
    tokens = asker.context.tokenizer(found["prompts"][0]["text"])["input_ids"]
    assert len(tokens) == found["prompts"][0]["tokens"]
    assert (
        found["longest"]["tokens"]
        == found["tokens"]["max"]
        >= found["tokens"]["median"]
        >= found["tokens"]["min"]
        > 0
    )


def test_samples_repeat_with_their_seed_and_keep_to_their_limit(asker: Asker) -> None:
    ask = {"prompt": "6+8-3", "n": 3, "max_completion_length": 5}
    first, again, other = (asker.ask("sample", seed=seed, **ask)["result"]["samples"] for seed in (1, 1, 2))
    assert (
        [sample["text"] for sample in first]
        == [sample["text"] for sample in again]
        != [sample["text"] for sample in other]
    )
    assert all(sample["length"] <= 5 and sample["logprob_sum"] < 0 for sample in first)


def test_a_rehearsal_measures_a_step_and_leaves_the_model_as_it_was(asker: Asker) -> None:
    ask = {"prompt": "6+8-3", "n": 2, "seed": 1}
    before = asker.ask("sample", **ask)["result"]["samples"]
    found = asker.ask("rehearsal")["result"]
    assert found["answers"] == 4 and 0 < found["longest_answer"] <= 24
    assert found["peak_bytes"] > 100 * 2**20 and found["seconds"] > 0
    assert found["step_seconds_at_limit"] >= found["seconds"] * 0.99
    assert asker.ask("sample", **ask)["result"]["samples"] == before


@pytest.mark.parametrize(
    ("probe", "words"),
    [("dance", "There are: branch, prompts, rehearsal, sample, fresh"), ("sample", "needs a prompt")],
)
def test_what_cannot_be_answered_is_answered_with_the_reason(asker: Asker, probe: str, words: str) -> None:
    answer = asker.ask(probe)
    assert answer["ok"] is False and words in answer["text"] and answer["id"] == "id-1"


def test_a_model_that_cannot_be_loaded_is_an_answer_too(tmp_path: Path) -> None:
    answer = Asker(tmp_path, model=str(tmp_path / "none")).ask("prompts")
    assert answer["ok"] is False and "none" in answer["text"]


def test_a_training_run_does_not_rehearse_on_its_own_weights(asker: Asker) -> None:
    borrowed = ProbeContext(
        asker.config, asker.context.folder, asker.context.control, policy=asker.context.policy
    )
    reply(borrowed, Command("id-2", "probe", {"probe": "rehearsal"}))
    assert asker.answers[-1]["ok"] is False and "changes weights" in asker.answers[-1]["text"]
