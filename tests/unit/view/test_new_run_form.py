"""The New run form: from settings to fields and back, what the page shows of them, and what Start does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from tests.fakes import write_fake_run
from workbench import launch
from workbench.core.config import RunConfig, settings
from workbench.core.errors import ConfigError, RunError, SandboxError
from workbench.core.estimate import Device, Duration, Memory
from workbench.core.presets import presets
from workbench.launch import command_client, lifecycle, preflight
from workbench.prompts import TASKS
from workbench.record.folder import RunFolder
from workbench.view.common import form, plots, temporary_probe
from workbench.view.common.markup import join, tag, text
from workbench.view.common.run_store import RunStore
from workbench.view.new_run import expected_results, form_values, handlers, panels, sandbox_badge, wording
from workbench.view.new_run.handlers import Handlers

NAMES = [info.name for info in settings() if info.name != "rewards"]


def typed(preset: str = "embedded", **changes: Any) -> list[Any]:
    """The raw values of the form as the page sends them, some of them changed by hand."""
    config = RunConfig.build(preset)
    fields = {name: form.field_value(form.INFOS[name], getattr(config, name)) for name in NAMES}
    choice = form_values.EMBEDDED if config.model == "embedded" else form_values.OTHER
    rewards = changes.pop("rewards", form.reward_values(config.rewards))
    choice = changes.pop("choice", choice)
    return [preset, choice, *(fields | changes).values(), *rewards]


def checked(**changes: Any) -> form_values.CheckedForm:
    preset, choice, *values = typed(**changes)
    return form_values.check(form_values.read(preset, choice, NAMES, values))


# -- markup ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        "<img src=x onerror=alert(1)>",
        "${alert(1)}",
        "{{constructor}}",
        "`x`",
        "</textarea><script>",
        "a\\${b}",
    ],
)
def test_no_text_becomes_markup_or_a_template(payload: str) -> None:
    made = str(tag("p", payload, title=payload))
    inner = made.removeprefix("<p").removesuffix("</p>")
    assert not set("<${}`\\") & set(inner)
    assert Markup(made).striptags() == " ".join(payload.split()) or "<" in payload


def test_elements_nest_and_absent_things_leave_nothing() -> None:
    assert tag("p", "a ", tag("b", 1), None, ["c", ("d",)], class_="x", title=None, hidden=True, data_tip="t") == (
        '<p class="x" hidden data-tip="t">a <b>1</b>cd</p>')  # fmt: skip
    assert tag("br") == "<br>" and join([text("&"), Markup("<i></i>")]) == "&amp;<i></i>"


# -- fields ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0004, "4e-4"),
        (1e-6, "1e-6"),
        (1.0, "1.0"),
        (0.95, "0.95"),
        (0.0, "0.0"),
        (-0.5, "-0.5"),
        (12, "12"),
        (None, ""),
        ("chat", "chat"),
        (1.5e7, "1.5e7"),
        (0.00012345, "1.2345e-4"),
    ],
)
def test_numbers_are_shown_as_people_type_them(value: Any, shown: str) -> None:
    assert form.format_value(value) == shown


@pytest.mark.parametrize("preset", [entry.name for entry in presets()])
def test_what_a_preset_fills_in_is_read_back_as_the_preset(preset: str) -> None:
    before = RunConfig.build(preset)
    raw = typed(preset)
    config = RunConfig.parse(form_values.read(preset, raw[1], NAMES, raw[2:]))
    assert config == before


def test_every_setting_has_a_field() -> None:
    for name in NAMES:
        component = form.field(name, RunConfig.build().model_dump()[name])
        assert component.elem_id == f"f-{name}" and component.label


def test_rewards_are_read_from_their_rows_and_empty_rows_are_none() -> None:
    rows = ["correct", "1.0", True, None, "1.0", True, " mine.py:f ", "x", False, "", "2", True]
    read = form.parse_rewards(rows + [None, "1.0", True] * 2, {"correct": {"limit": 3}})
    assert read == [
        {"name": "correct", "weight": "1.0", "enabled": True, "options": {"limit": 3}},
        {"name": "mine.py:f", "weight": "x", "enabled": False, "options": {}}]  # fmt: skip


def test_a_free_row_is_shown_for_another_reward() -> None:
    shown = Handlers.add_reward(*["correct", "1", True, None, "1", True, None, "1", True])
    assert [update.get("visible") for update in shown] == [None, True, None]


# -- checks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("num_generations", 1, "at least 2"),
        ("beta", "-1", "cannot be negative"),
        ("learning_rate", "nan", "finite"),
        ("learning_rate", "fast", "number"),
        ("steps", "", "steps"),
        ("temperature", "0", "temperature"),
        ("max_completion_length", "1024", "at most 1024 tokens"),
        ("seed", "1.5", "seed"),
        ("min_level", "99", "min_level"),
    ],
)
def test_bad_input_is_a_sentence_at_its_field(name: str, value: Any, words: str) -> None:
    found = checked(**{name: value})
    assert found.config is None and words in found.problems[name]


def test_several_mistakes_are_named_together() -> None:
    found = checked(beta="-1", learning_rate="nan", choice=form_values.OTHER, model="/no/such/folder")
    assert set(found.problems) == {"beta", "learning_rate", "model"}
    assert "no such folder" in found.problems["model"]


def test_another_model_must_be_named() -> None:
    assert "Hugging Face id" in checked(choice=form_values.OTHER, model=" ").problems["model"]


def test_own_data_must_be_named_and_rewards_must_count() -> None:
    assert "set data" in checked(task="data").problems["data"]
    assert (
        "Switch one on" in checked(rewards=["correct", "0", True] + [None, "1", True] * 5).problems["rewards"]
    )
    assert "rewards" in checked(rewards=["correct", "heavy", True] + [None, "1", True] * 5).problems


def test_what_is_right_stays_while_something_is_wrong() -> None:
    found = checked(beta="-1", num_generations=20)
    assert found.valid_part is not None and found.valid_part.num_generations == 20
    assert "G = 20" in panels.chance(found, None)


# -- words and pictures --------------------------------------------------------------------------------------


def test_the_headline_says_what_start_will_do() -> None:
    config = RunConfig.build("embedded")
    assert wording.headline(config, Duration(35, 28, 6)) == (
        "16 prompts × 12 samples = 192 samples per update. 50 updates take about 70 seconds here.")  # fmt: skip
    two = wording.headline(config.changed(num_iterations=2, steps=1), None)
    assert two.endswith(
        "per step of 2 updates. How long 1 step takes is not known here yet: a dry run measures it."
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (2, "about 5 seconds"),
        (18, "about 20 seconds"),
        (69, "about 70 seconds"),
        (89, "about 90 seconds"),
        (100, "about 2 minutes"),
        (3000, "about 50 minutes"),
        (7300, "about 2 hours"),
        (20000, "about 6 hours"),
    ],
)
def test_durations_are_rounded_as_a_person_would(seconds: float, words: str) -> None:
    assert wording.about(seconds) == words


@pytest.mark.parametrize(
    ("value", "figure"),
    [(0.93, ".93"), (1.0, "1"), (0.0, ".00"), (-0.5, "−.50"), (0.996, "1"), (1.25, "1.25")],
)
def test_rewards_have_two_decimals_and_a_real_minus(value: float, figure: str) -> None:
    assert wording.figure(value) == figure


def test_memory_warns_only_where_it_may_not_fit() -> None:
    need = Memory(*[0] * 11, total=31 * 2**30)
    assert wording.memory(need, 64 * 2**30) == ""
    assert "need about 31.0 GiB, there are 24.0 GiB" in wording.memory(need, 24 * 2**30)


def test_every_loss_and_divisor_has_words() -> None:
    for info in settings():
        if info.name in ("loss_type", "scale_rewards", "advantage_baseline"):
            for choice in info.choices:
                assert all(
                    words for _, words in wording.algorithm(RunConfig.build(overrides={info.name: choice}))
                )


def test_the_chance_of_a_mixed_group_is_one_minus_all_right_minus_all_wrong() -> None:
    assert panels.mixed(0.5, 2) == 0.5 and panels.mixed(0.0, 8) == 0.0 and panels.mixed(1.0, 8) == 0.0
    assert panels.mixed(0.24, 12) == pytest.approx(1 - 0.24**12 - 0.76**12)
    assert "96 % at G = 12" in panels.chance(checked(), 0.24)


def test_the_kl_penalty_is_drawn_with_the_chosen_estimator() -> None:
    # k3 of a token eight times likelier: 1/8 - 1 + ln 8 = 1.2044; times beta 0.04
    assert "0.0482 nats" in panels.beta_line(checked(beta="0.04"))
    assert "0.0865 nats" in panels.beta_line(checked(beta="0.04", kl_estimator="k2"))  # (ln 8)^2 / 2 = 2.162
    assert "holds the policy near" in panels.beta_line(checked(beta="2"))
    assert "not measured" in panels.beta_line(checked(record_kl=False))


def test_labels_at_line_ends_never_cover_each_other() -> None:
    placed = plots.apart([50, 52, 51, 120], 150)
    gaps = [b - a for a, b in zip(sorted(placed), sorted(placed)[1:], strict=False)]
    assert min(gaps) >= plots.LINE_HEIGHT
    crowded = plots.apart([150, 149, 148], 150)
    assert (
        max(crowded) <= 150
        and min(b - a for a, b in zip(sorted(crowded), sorted(crowded)[1:], strict=False)) >= 14
    )


def test_a_plot_says_in_words_what_it_shows() -> None:
    axis = plots.Axis(0, 10, [(0, "0"), (10, "10")])
    drawn = plots.plot(
        [plots.Curve([(0, 0), (10, 5)], "accent", "5 <b>", dots=True)], axis, axis, 100, "half way up"
    )
    assert (
        'aria-label="half way up"' in drawn and "5 &lt;b&gt;" in drawn and "0.00,100.00 100.00,50.00" in drawn
    )


def test_what_was_changed_in_a_preset_is_listed() -> None:
    raw = typed(beta="0.02")
    given = form_values.read("embedded", form_values.EMBEDDED, NAMES, raw[2:])
    line = panels.start_line(RunConfig.build("embedded"), "", given)
    assert "1 setting changed" in line and re.search(r"0\.0</span> → 0\.02", line)
    raw = typed()
    given = form_values.read("embedded", form_values.EMBEDDED, NAMES, raw[2:])
    assert "changed" not in panels.start_line(RunConfig.build("embedded"), "", given)


def test_the_rail_says_time_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panels.estimate, "device", lambda setting: Device("this machine", 24 * 2**30))
    found = checked()
    assert found.config is not None
    drawn = Markup(panels.rail(found.config, found.facts, None)).striptags()
    assert (
        "Time: about 60 seconds" in drawn
        and "of 24.0 GiB" in drawn
        and "Nothing is recorded for these settings" in drawn
    )


# -- what to expect ------------------------------------------------------------------------------------------


def test_earlier_runs_with_the_same_settings_are_what_to_expect(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_fake_run(tmp_path, steps=11, groups=2, samples=2, seed=seed)
    store = RunStore(tmp_path)
    config = RunFolder(next(tmp_path.iterdir())).config()
    known = expected_results.expected_results(store, config.changed(seed=99, run_name="mine"))
    assert known is not None and {curve.seed for curve in known.curves} == {1, 2}
    assert "two earlier runs" in known.source and known.lengths is not None
    assert known.base == pytest.approx(sum(curve.points[0][1] for curve in known.curves) / 2)
    assert expected_results.expected_results(store, config.changed(beta=0.5)) is None
    drawn = panels.rail(config, None, known)
    assert "seed 1" in drawn and "seed 2" in drawn


def test_figures_of_finished_runs_are_shipped_beside_their_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [write_fake_run(tmp_path, steps=11, groups=2, samples=2, seed=seed) for seed in (1, 2, 3)]
    made = json.loads(
        json.dumps(expected_results.figures(folders, "three runs of <this> version", "A note."))
    )
    monkeypatch.setattr(expected_results, "_records", lambda: {"embedded": made})
    known = expected_results.shipped(RunConfig.build("embedded", {"seed": 7}))
    assert known is not None and known.seconds == pytest.approx(70, abs=1) and len(known.curves) == 3
    assert known.curves[0].points[0] == (
        0,
        expected_results._points(folders[0] and expected_results.Reader(folders[0]).series())[0][1],
    )
    assert sum(known.phases.values()) == pytest.approx(70, abs=2)
    assert "&lt;this&gt;" in panels.rail(RunConfig.build("embedded"), None, known)
    assert expected_results.shipped(RunConfig.build("embedded", {"beta": 1})) is None


# -- actions -------------------------------------------------------------------------------------------------


@pytest.fixture
def do(tmp_path: Path) -> Handlers:
    return Handlers(RunStore(tmp_path / "runs"), NAMES)


def test_all_parts_of_the_page_follow_one_check(do: Handlers) -> None:
    outputs = do.check(*typed())
    assert len(outputs) == 14 and "192 samples" in outputs[0] and outputs[-1]["value"] == "Start 50 steps"
    wrong = do.check(*typed(beta="-1"))
    assert "One setting needs a change" in wrong[0] and 'data-setting="beta"' in wrong[-2]


def test_a_task_shows_what_belongs_to_it(do: Handlers) -> None:
    levels, own = 4, 5
    assert [do.check(*typed())[place]["visible"] for place in (levels, own)] == [True, False]
    assert [do.check(*typed(task="data"))[place]["visible"] for place in (levels, own)] == [False, True]
    assert [do.check(*typed(task="qa"))[place]["visible"] for place in (levels, own)] == [False, False]
    for task in TASKS.values():
        assert task.about.split()[0] in Markup(panels.task_line(task)).striptags()


def test_start_sends_the_key_of_the_page_and_moves_on(
    do: Handlers, monkeypatch: pytest.MonkeyPatch, run: RunFolder
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        preflight, "start", lambda config, root, key: asked.append((config, root, key)) or run
    )
    problems, started, _ = do.launch("key-1", *typed(seed="7"))
    assert (problems, started) == ("", run.id)
    assert asked[0][0] == RunConfig.build("embedded", {"seed": 7}) and asked[0][1:] == (
        do.store.root,
        "key-1",
    )


def test_start_with_bad_input_starts_nothing_and_says_why(
    do: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "start", lambda *a, **k: pytest.fail("started"))
    problems, started, _ = do.launch("key", *typed(num_generations=1))
    assert started == "" and 'data-setting="num_generations"' in problems


@pytest.mark.parametrize(
    "error", [ConfigError("x", {"data": "row 3 is <empty>"}), RunError("Runs cannot be kept <there>")]
)
def test_what_preflight_finds_is_said_and_escaped(
    do: Handlers, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(preflight, "start", refuse)
    problems, started, _ = do.launch("key", *typed())
    assert started == "" and re.search("&lt;(empty|there)&gt;", problems)
    assert [words for _, words in do.rehearse(*typed())][-1] == ""


def test_a_preset_fills_every_field_and_shows_its_rewards(do: Handlers) -> None:
    filled = do.fill("paper-grpo")
    assert len(filled) == 1 + len(NAMES) + 4 * form.REWARD_ROWS
    values = dict(zip(NAMES, filled[1:], strict=False))
    assert values["num_generations"]["value"] == 64 and values["beta"]["value"] == "0.04"
    assert [row["visible"] for row in filled[-form.REWARD_ROWS :]][:2] == [True, False]


# -- probes --------------------------------------------------------------------------------------------------


def test_a_probe_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "runs"
    progress = _probe(root, monkeypatch, {"ok": True, "text": "prompts took 1 s", "result": {"prompts": []}})
    assert progress[-1].result == {"prompts": []} and progress[-1].over
    assert list(root.iterdir()) == []


def test_a_probe_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress = _probe(tmp_path / "runs", monkeypatch, {"ok": False, "text": "no such file"})
    assert progress[-1].failed and progress[-1].words == "no such file"


def test_a_probe_worker_that_dies_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress = _probe(tmp_path / "runs", monkeypatch, None, state="failed")
    assert progress[-1].failed and progress[-1].words


def _probe(
    root: Path, monkeypatch: pytest.MonkeyPatch, reply: dict[str, Any] | None, state: str = "running"
) -> list[temporary_probe.Progress]:
    """`temporary_probe.run` before a worker that is not there: its events and its state are made up."""
    folder = write_fake_run(root, steps=1, groups=2, samples=2, state="stopped")
    monkeypatch.setattr(preflight, "start", lambda config, root, kind: folder)
    monkeypatch.setattr(launch, "stop", lambda *a, **k: None)
    monkeypatch.setattr(folder.__class__, "put", lambda self, command, args: "the-id")
    now = launch.state(folder)
    monkeypatch.setattr(
        lifecycle, "state", lambda folder: now._replace(state=state, reason="It ended with exit code 1.")
    )
    events = [] if reply is None else [{"id": 1, "data": {"id": "the-id", **reply}}]
    monkeypatch.setattr(command_client.Reader, "events", lambda self, since, kind, limit: events)
    return list(temporary_probe.run(RunConfig.build(), root, "prompts"))


def test_what_a_probe_worker_does_is_said_in_words(run: RunFolder) -> None:
    state = launch.state(run)
    assert "another run" in temporary_probe.describe(state._replace(state="queued", reason=""))
    assert "61 of 192" in temporary_probe.describe(
        state._replace(state="running", phase="sample", phase_done=61, phase_total=192)
    )
    assert (
        temporary_probe.describe(state._replace(state="starting", phase="load model")) == "Loading the model…"
    )


def test_results_of_a_probe_worker_are_drawn_as_text() -> None:
    result = {"prompts": [{"text": "<|user|>${x}", "tokens": 5, "answer": "<b>"}], "train": 1, "heldout": 0,
              "tokens": {"min": 1, "median": 2, "max": 3}, "warnings": ["a <warning>"]}  # fmt: skip
    drawn = panels.preview(result)
    assert "&lt;|user|&gt;&#36;&#123;x&#125;" in drawn and "<b>" not in drawn and "a &lt;warning&gt;" in drawn
    rehearsal = {"seconds": 2.0, "sample": {"seconds": 1.2}, "update": {"seconds": 0.8}, "peak_bytes": 2**30, "answers": 192,
                 "mean_length": 21.4, "step_seconds_at_limit": 7.5}  # fmt: skip
    text_shown = Markup(panels.rehearsed(rehearsal, RunConfig.build())).striptags()
    assert "50 steps would take about 2 minutes" in text_shown and "192 samples of 21 tokens" in text_shown


def test_errors_of_no_field_are_told_apart() -> None:
    assert handlers.problems_of(RunError("full")) == {"": "full"}
    assert handlers.problems_of(ConfigError("x", {"beta": "y"})) == {"beta": "y"}
    assert "This cannot start" in panels.problem_list({"": "full"})


def test_a_reward_that_runs_programs_shows_what_contains_them(monkeypatch: pytest.MonkeyPatch) -> None:
    runs_code = RunConfig.build(None, {"rewards": "code_tests=1"})
    text_shown = Markup(sandbox_badge.badge(runs_code)).striptags()
    assert (
        text_shown.startswith("contained Model-written code runs inside")
        and "escape attempts failed" in text_shown
    )
    attempts = re.search(r"(\d+) of (\d+) escape attempts failed", text_shown)
    assert attempts and attempts[1] == attempts[2]
    assert sandbox_badge.badge(RunConfig.build()) == "" and sandbox_badge.badge(None) == ""

    def refuse() -> None:
        raise SandboxError("Landlock is <missing>.")

    monkeypatch.setattr(sandbox_badge, "Sandbox", refuse)
    sandbox_badge._self_test.cache_clear()
    refused = sandbox_badge.badge(runs_code)
    sandbox_badge._self_test.cache_clear()
    assert "chip warn" in refused and "Landlock is &lt;missing&gt;." in refused
