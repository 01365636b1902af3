"""A stage without groups, samples and rewards is recorded, read and shown; what it did not record is absent, never 0."""

import sqlite3
from pathlib import Path

import pytest

from tests.fakes import fake_config, token_text
from tests.unit.view.test_web_routes import get, serve
from workbench.core.errors import RunError
from workbench.core.types import StepRecord
from workbench.diagnose.alarms.recorder import AlarmRecorder
from workbench.diagnose.alarms.remedies import RunLimits
from workbench.diagnose.verdict import of_run
from workbench.record import folder as record
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.record.wandb_sink import WandbSink
from workbench.record.writer import Writer
from workbench.view.common.run_store import RunStore

STEPS = 6
LOSSES = [2.0 - step / 10 for step in range(STEPS)]


def supervised(step: int) -> StepRecord:
    return StepRecord(step, "train", stage="sft", metrics={"loss": LOSSES[step]})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished supervised stage, with its alarms."""
    folder, config = record.create(tmp_path, fake_config()), fake_config()
    with Writer(folder, token_text=token_text) as writer:
        alarms = AlarmRecorder(folder, writer, config, RunLimits())
        for step in range(STEPS):
            writer.step(supervised(step))
            alarms.step(supervised(step), config)
        alarms.end()
    return folder


def test_its_steps_are_read_back_without_groups_and_samples(run: RunFolder) -> None:
    reader = Reader(run)
    assert reader.steps() == list(range(STEPS)) and reader.last_step() == STEPS - 1
    assert reader.series()["train"] == {"step": list(range(STEPS)), "loss": LOSSES}
    assert reader.ends(["loss", "reward"], head=1, tail=1)["train"]["reward"] == [None, None]
    ribbon = reader.ribbon()
    assert ribbon["steps"] == [] and ribbon["cursor"] == STEPS
    assert reader.groups(1) == [] and reader.samples().empty and reader.prompts() == []
    assert reader.phases()[0] == {"step": 0}
    frame = reader.metrics()
    assert frame["loss"].tolist() == LOSSES and frame["seconds"].isna().all()
    assert len(reader.arrays().id_B) == 0 and list(reader.completions()) == [] and reader.search("x") == []
    with pytest.raises(RunError, match="Step 1 has no groups"):
        reader.group(1, 0)
    with sqlite3.connect(run.db_path) as db:
        stored = db.execute("SELECT DISTINCT stage, seconds, group_summary_json FROM steps").fetchall()
    assert stored == [("sft", None, None)]


def test_the_pages_get_its_figures_and_no_invented_ones(run: RunFolder) -> None:
    client = serve(RunStore(run.root))
    assert get(client, f"runs/{run.id}")["id"] == run.id
    delta = get(client, f"runs/{run.id}/delta")
    assert delta["steps"] == list(range(STEPS)) and delta["metrics"] == {"loss": LOSSES}
    assert delta["ribbon"] == [] and delta["metric_parts"] == {} and delta["checks"] == []
    [row] = get(client, "runs")["runs"]
    assert row["heldout"] == {"sampled": None, "greedy": None}


def test_its_verdict_is_by_the_loss_and_it_raises_no_alarm(run: RunFolder) -> None:
    reader = Reader(run)
    assert of_run(reader, "running").sentence == "Learning: loss 2.00 to 1.50 in 6 steps."
    assert reader.alarms() == []


def test_the_tracker_gets_its_metrics_and_no_groups(run: RunFolder) -> None:
    entry = WandbSink(run, fake_config(wandb="offline"))._entry(supervised(0))
    assert entry.metrics == {"step": 0, "loss": 2.0} and entry.groups == []
