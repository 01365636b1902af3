"""A probe worker: a real process with the embedded model that ends when a run waits for its device."""

import pytest

from tests.helpers import Yard
from workbench import launch
from workbench.core.config import RunConfig
from workbench.core.errors import RunError
from workbench.launch import probe_client
from workbench.prompts import task_of
from workbench.prompts.stream import PromptStream


def test_a_probe_worker_serves_any_settings_and_ends_when_a_run_wants_its_device(yard: Yard) -> None:
    config = RunConfig.build(None, {"device": "cpu", "max_completion_length": 16})
    found = probe_client.run_probe(yard.root, config, "prompts", count=2)
    assert [sorted(prompt) for prompt in found["prompts"]] == [
        ["answer", "id", "question", "text", "tokens"]
    ] * 2
    folder = probe_client.living_worker(yard.root)
    assert folder is not None and launch.state(folder).device == ""  # no model, no device
    # Other settings go to the same worker.
    plain = probe_client.run_probe(yard.root, config.changed(template="plain"), "sample", prompt="6+8-3", n=2)
    assert len(plain["samples"]) == 2 and plain["prompt"]["text"] == "6+8-3"
    assert probe_client.living_worker(yard.root) == folder and launch.state(folder).device == "cpu"
    # Completions to try rewards on: those a run with these settings would sample first, with all a reward may ask for.
    fresh = probe_client.run_probe(yard.root, config.changed(prompts_per_step=2), "fresh", prompts=2, n=3)[
        "groups"
    ]
    first = PromptStream(task_of(config).load(config).train, 2, config.seed).at(0)
    assert [(group["question"], group["answer"]) for group in fresh] == [
        (p.question, p.answer) for p in first
    ]
    for group in fresh:
        assert len({sample["text"] for sample in group["samples"]}) > 1 and group["columns"]["level"] >= 1
        assert all(len(sample["tokens"]) == sample["length"] <= 16 for sample in group["samples"])
    with pytest.raises(RunError, match="There is no probe 'dance'"):
        probe_client.run_probe(yard.root, config, "dance")
    run = yard.start(steps=400)
    yard.goes_on(run, timeout=60)
    assert launch.state(folder).state == "finished"
