"""New run: what will be trained, on what, for which reward, and what that costs. Everything is said before Start.

The fields come from `config.settings()`; this file only says where each one stands. One function reads them all and answers with
everything on the page that depends on them (check.py).
"""

import secrets
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.components.base import Component

from workbench import preflight
from workbench.config import DEFAULT_PRESET, SECTIONS, RunConfig, Section, presets, settings
from workbench.errors import ConfigError, WorkbenchError
from workbench.prompts import TASKS
from workbench.view import check, expect, form
from workbench.view.check import EMBEDDED, MOST_SAMPLES, OTHER
from workbench.view.form import RewardRow
from workbench.view.markup import tag
from workbench.view.pages import shell
from workbench.view.store import Store

_OWN = ("data", "data_split", "prompt_column", "answer_column", "heldout")
_LEVELS = ("min_level", "max_level")
_SMALL = ("prompts_per_step", "learning_rate", "temperature", "max_completion_length", "steps", "seed")
_PLACED = {"model", "use_peft", "dtype", "task", *_OWN, *_LEVELS, "num_generations", "beta", *_SMALL, "rewards"}
"""Settings with a place of their own on the cards. All others lie in the fold, by section."""


class _Page:
    """The page's components while it is drawn and wired; nothing of it is kept between requests."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.start_from = RunConfig.build(DEFAULT_PRESET)
        self.fields: dict[str, Component] = {}
        self.rows: list[RewardRow] = []

    # -- drawing -------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """All of it, top to bottom."""
        shell.top("new")
        self.headline = _markup("wb-headline")
        self.preset = gr.Radio([(entry.title, entry.name) for entry in presets()], value=DEFAULT_PRESET, label="Start from",
                               elem_id="wb-presets", elem_classes="wb-chips", container=False)
        self.about = _markup("wb-about")
        with gr.Row(elem_id="wb-form"):
            with gr.Column(elem_id="wb-cards", min_width=0):
                with gr.Row(elem_classes="wb-pair"):
                    self._model_card()
                    self._task_card()
                self._group_card()
                self._other_settings()
            with gr.Column(elem_id="wb-rail", min_width=0):
                self.rail = _markup("wb-expect")
                self.problems = _markup("wb-problems")
                self.start = gr.Button("Start", variant="primary", elem_id="wb-start")
                _markup("wb-closing", str(tag("p", "Closing this page does not stop it.", class_="wb-note")))
        # One per page shown: two clicks, or two clicks in two windows of it, start one run.
        self.key = gr.State(lambda: secrets.token_hex(8))
        self.started = gr.Textbox(visible=False, elem_id="wb-started")

    def _model_card(self) -> None:
        with gr.Column(elem_classes="wb-card", min_width=0):
            _title("1", "Model")
            self.choice = gr.Radio([("The embedded model: ships with the workbench", EMBEDDED), ("Another model", OTHER)], value=EMBEDDED,
                                   show_label=False, elem_classes="wb-options", container=False)
            self._field("model", value="", visible=False, label="Folder, or Hugging Face id", placeholder="Qwen/Qwen2.5-0.5B-Instruct")
            self.facts = _markup()
            with gr.Row(elem_classes="wb-fields two"):
                self._radio("use_peft", "Train", [("All weights", False), ("LoRA", True)])
                self._field("dtype")

    def _task_card(self) -> None:
        with gr.Column(elem_classes="wb-card", min_width=0):
            _title("2", "Task and reward")
            with gr.Row(elem_classes="wb-fields task"):
                self.fields["task"] = gr.Dropdown([(task.title, name) for name, task in TASKS.items()], value=self.start_from.task,
                                                  filterable=False, **self._common("task"))
                with gr.Row(elem_classes="wb-fields two") as self.levels:
                    for name, label in zip(_LEVELS, ("Easiest", "Hardest"), strict=True):
                        self._field(name, label=label)
            with gr.Row(elem_classes="wb-fields three", visible=False) as self.own:
                for name in _OWN:
                    self._field(name)
            self.example = _markup()
            self._reward_rows()

    def _reward_rows(self) -> None:
        values = form.reward_values(self.start_from.rewards)
        choices = form.catalogue()
        for number in range(form.REWARD_ROWS):
            name, weight, counts = values[3 * number : 3 * number + 3]
            with gr.Row(elem_classes="wb-reward", visible=bool(name)) as row:
                self.rows.append(RewardRow(
                    row,
                    gr.Dropdown(choices, value=name, allow_custom_value=True, label="Reward", show_label=False, container=False, min_width=0,
                                elem_classes="wb-reward-name"),
                    gr.Textbox(weight, label="Weight", show_label=False, container=False, min_width=0, max_lines=1,
                               elem_classes="wb-reward-weight"),
                    gr.Checkbox(counts, label="counts", container=False, min_width=0, elem_classes="wb-reward-counts"),
                    gr.Button("Remove", size="sm", min_width=0, elem_classes="wb-link wb-reward-remove")))
        with gr.Row(elem_classes="wb-links"):
            self.add = gr.Button("Add a reward", size="sm", min_width=0, elem_classes="wb-link", elem_id="wb-add-reward")
        _markup("f-rewards", "", "wb-field")

    def _group_card(self) -> None:
        with gr.Column(elem_classes="wb-card", min_width=0):
            _title("3", "Group and update", "small grey figures are the defaults of TRL")
            with gr.Row(elem_classes="wb-pair wide"):
                with gr.Column(min_width=0):
                    self.fields["num_generations"] = gr.Slider(2, MOST_SAMPLES, value=self.start_from.num_generations, step=1,
                                                               **self._common("num_generations", "Samples in a group, G"), buttons=[])
                    self.chance = _markup()
                with gr.Column(min_width=0):
                    self._field("beta", label="Pull to the base model, β")
                    self.beta_line = _markup()
            with gr.Row(elem_classes="wb-fields six"):
                for name in _SMALL:
                    self._field(name)
            self.choices = _markup()

    def _other_settings(self) -> None:
        with gr.Accordion("All other settings", open=False, elem_id="wb-all"):
            for section, title in SECTIONS.items():
                names = [info.name for info in settings() if info.section == section and info.name not in _PLACED]
                if names:
                    self._section(section, title, names)

    def _section(self, section: Section, title: str, names: Sequence[str]) -> None:
        _markup(f"wb-section-{section}", str(tag("h3", title)))
        with gr.Row(elem_classes="wb-fields four"):
            for name in names:
                self._field(name)

    def _common(self, name: str, label: str | None = None) -> dict[str, Any]:
        info = form.INFOS[name]
        return {"label": label or info.label, "info": str(form.shown(info, info.default)), "elem_id": f"f-{name}",
                "elem_classes": ["wb-field"], "min_width": 0}

    def _field(self, name: str, **options: Any) -> None:
        value = options.pop("value", getattr(self.start_from, name))
        self.fields[name] = form.field(name, value, **options)

    def _radio(self, name: str, label: str, choices: list[tuple[str, Any]]) -> None:
        common = self._common(name, label) | {"info": None}
        self.fields[name] = gr.Radio(choices, value=getattr(self.start_from, name), **common)

    # -- wiring --------------------------------------------------------------------------------------------------

    def wire(self, blocks: gr.Blocks) -> None:
        """Every change is checked at once; a preset fills the fields; Start starts."""
        inputs, outputs = self._inputs(), self._outputs()
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        checking: dict[str, Any] = {"fn": self.check, "inputs": inputs, "outputs": outputs, "trigger_mode": "always_last", **quiet}
        typed = [component.input for component in [self.choice, *self.fields.values(), *self._reward_inputs()]]
        gr.on(typed, **checking)
        blocks.load(self.check, inputs, outputs, **quiet)
        self.preset.input(self.fill, [self.preset], [self.choice, *self.fields.values(), *self._reward_inputs(), *(row.row for row in self.rows)],
                          **quiet).then(**checking)
        self.add.click(self.add_reward, self._reward_inputs(), [row.row for row in self.rows], **quiet)
        for number, row in enumerate(self.rows):
            row.remove.click(lambda: [gr.update(visible=False), None], None, [row.row, row.name], **quiet).then(**checking)
        self.start.click(self.launch, [self.key, *inputs], [self.problems, self.started, self.start], concurrency_limit=4,
                         show_progress="hidden", api_visibility="private",
                         trigger_mode="once").success(None, [self.started], None, js="(id) => { if (id) location.assign('/?run=' + id); }")

    def _reward_inputs(self) -> list[Component]:
        return [part for row in self.rows for part in (row.name, row.weight, row.counts)]

    def _inputs(self) -> list[Component]:
        return [self.preset, self.choice, *self.fields.values(), *self._reward_inputs()]

    def _outputs(self) -> list[Any]:
        return [self.headline, self.about, self.fields["model"], self.facts, self.levels, self.own, self.example, self.chance, self.beta_line,
                self.choices, self.rail, self.problems, self.start]

    # -- what happens --------------------------------------------------------------------------------------------

    def check(self, preset: str, choice: str, *values: Any) -> list[Any]:
        """The parts of the page that depend on the fields, in the order of `_outputs`."""
        given = check.read(preset, choice, list(self.fields), values)
        checked = check.check(given)
        known = expect.expected(self.store, checked.config) if checked.config else None
        base = known.base if known else None
        task = TASKS.get(str(given.get("task")))
        stays = checked.config is None  # a picture stays as it was while a field is being typed
        return [
            str(check.headline(checked)), str(check.preset_line(preset, given)), gr.update(visible=choice == OTHER), str(check.model_line(checked)),
            gr.update(visible=task is not None and task.levels is not None), gr.update(visible=given.get("task") == "data"),
            str(check.task_line(str(given.get("task")))),
            *(gr.skip() if stays else str(part) for part in (check.chance(checked, base), check.beta_line(checked), check.choices(checked),
                                                             check.rail(checked, known))),
            str(check.problem_list(checked.problems)),
            gr.skip() if checked.config is None else gr.update(value=f"Start {checked.config.steps} steps")]

    def fill(self, preset: str) -> list[Any]:
        """All fields as a preset has them."""
        config = RunConfig.build(preset)
        embedded = config.model == EMBEDDED
        fields = []
        for name in self.fields:
            value: Any = form.shown(form.INFOS[name], getattr(config, name))
            if name == "model":
                value = "" if embedded else value
            if name == "num_generations":
                fields.append(gr.update(value=config.num_generations, maximum=max(MOST_SAMPLES, config.num_generations)))
            else:
                fields.append(gr.update(value=value))
        rows = form.reward_values(config.rewards)
        return [EMBEDDED if embedded else OTHER, *fields, *rows, *(gr.update(visible=bool(name)) for name in rows[::3])]

    @staticmethod
    def add_reward(*values: Any) -> list[Any]:
        """Shows the first row that is free."""
        free = next((number for number, name in enumerate(values[::3]) if not name), None)
        return [gr.update(visible=True) if number == free else gr.skip() for number in range(form.REWARD_ROWS)]

    def launch(self, key: str, preset: str, choice: str, *values: Any) -> tuple[Any, Any, Any]:
        """Starts the run, or says beside each field what stands in the way; nothing that was typed is lost."""
        checked = check.check(check.read(preset, choice, list(self.fields), values))
        if checked.config is None:
            return str(check.problem_list(checked.problems)), "", gr.skip()
        try:
            folder = preflight.start(checked.config, self.store.root, key=key)
        except ConfigError as error:
            return str(check.problem_list(error.problems or {"": str(error)})), "", gr.skip()
        except WorkbenchError as error:
            return str(check.problem_list({"": str(error)})), "", gr.skip()
        return "", folder.id, gr.update(value="Starting…", interactive=False)


def build(store: Store, blocks: gr.Blocks) -> None:
    """Draws the page and wires it."""
    page = _Page(store)
    page.draw()
    page.wire(blocks)


def _markup(elem_id: str | None = None, value: str = "", css: str = "") -> gr.HTML:
    return gr.HTML(value, elem_id=elem_id, elem_classes=["wb", "wb-bare", *([css] if css else [])], apply_default_css=False)


def _title(number: str, text: str, aside: str = "") -> None:
    _markup(value=str(tag("h2", tag("span", number, class_="i3"), text, tag("span", aside, class_="wb-aside") if aside else None)))
