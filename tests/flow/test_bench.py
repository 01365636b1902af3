"""A bench: a real worker with the embedded model, asked from outside, that makes way for runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import Yard
from workbench import bench, launch
from workbench.config import RunConfig
from workbench.errors import RunError


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path / "runs")
    yield made
    if folder := bench.living(made.root):
        made.started.append(folder)
    made.close()


def test_a_bench_answers_about_any_settings_and_goes_when_a_run_wants_its_device(yard: Yard) -> None:
    config = RunConfig.build(None, {"device": "cpu", "max_completion_length": 16})
    found = bench.ask(yard.root, config, "prompts", count=2)
    assert [sorted(prompt) for prompt in found["prompts"]] == [
        ["answer", "id", "question", "text", "tokens"]
    ] * 2
    folder = bench.living(yard.root)
    assert folder is not None and launch.state(folder).device == ""  # no model, no device
    # Others are asked of the same bench.
    plain = bench.ask(yard.root, config.changed(template="plain"), "sample", prompt="6+8-3", n=2)
    assert len(plain["samples"]) == 2 and plain["prompt"]["text"] == "6+8-3"
    assert bench.living(yard.root) == folder and launch.state(folder).device == "cpu"
    with pytest.raises(RunError, match="There is no probe 'dance'"):
        bench.ask(yard.root, config, "dance")
    run = yard.start(steps=400)
    yard.goes_on(run, timeout=60)
    assert launch.state(folder).state == "finished"
