"""The New run page: a form over all settings, with what the run will do, take and need shown before Start.

Fields, labels and help come from `config.settings()`; this file places them and connects their events to handlers.py.
"""

import secrets
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.components.base import Component

from workbench.core.config import RunConfig, settings
from workbench.core.presets import DEFAULT_PRESET, presets
from workbench.core.setting import SECTIONS, Section
from workbench.prompts import TASKS
from workbench.view.common import form, page_frame
from workbench.view.common.markup import tag
from workbench.view.common.run_store import RunStore
from workbench.view.new_run.form_values import EMBEDDED, OTHER
from workbench.view.new_run.handlers import Handlers
from workbench.view.new_run.panels import MAX_SAMPLES

_DATA = ("data", "data_split", "prompt_column", "answer_column", "heldout")
_LEVELS = ("min_level", "max_level")
_SMALL = ("prompts_per_step", "learning_rate", "temperature", "max_completion_length", "steps", "seed")
_PLACED = {
    "model",
    "use_peft",
    "dtype",
    "task",
    "rewards",
    "num_generations",
    "beta",
    *_DATA,
    *_LEVELS,
    *_SMALL,
}
"""Settings on the cards. All others are in the folded part, by section."""
_OPEN = "(id) => { if (id) location.assign('/?run=' + id); }"
_REWARD_IN_URL = "() => new URLSearchParams(location.search).get('reward')"
"""Number of a version of the reward lab to start with."""
_QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_SLOW: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "once"}


def build(store: RunStore, blocks: gr.Blocks) -> None:
    """Draws the page and connects its events."""
    page = _Page()
    page.draw()
    page.connect(Handlers(store, list(page.fields)), blocks)


class _Page:
    """The page's components while it is built; nothing of it is kept between requests."""

    def __init__(self) -> None:
        self.begin = RunConfig.build(DEFAULT_PRESET)
        self.fields: dict[str, Component] = {}
        self.rows: list[form.RewardRow] = []

    def draw(self) -> None:
        """The whole page, top to bottom."""
        self.headline = page_frame.markup("wb-headline")
        titles = [(entry.title, entry.name) for entry in presets()]
        self.preset = gr.Radio(
            titles, value=DEFAULT_PRESET, label="Start from", elem_id="wb-presets", elem_classes="wb-chips",
            container=False,
        )  # fmt: skip
        self.about = page_frame.markup("wb-about")
        with gr.Row(elem_id="wb-form"):
            with gr.Column(elem_id="wb-cards", min_width=0):
                with gr.Row(elem_classes="wb-pair"):
                    self._model_card()
                    self._task_card()
                self._group_card()
                self._other_settings()
            with gr.Column(elem_id="wb-rail", min_width=0):
                self.rail = page_frame.markup("wb-expect")
                self.problems = page_frame.markup("wb-problems")
                self.start = gr.Button("Start", variant="primary", elem_id="wb-start")
                self.dry = gr.Button("Dry run: the longest prompts once, nothing saved", elem_id="wb-dry-run")
                self.rehearsal = page_frame.markup("wb-rehearsal")
                page_frame.markup(
                    "wb-closing", tag("p", "Closing this page does not stop it.", class_="wb-note")
                )
                page_frame.mount("wb-form-words", "new_run/form")
        # One per page load: two clicks on Start, whichever process handles them, start one run.
        self.key = gr.State()
        self.started = gr.Textbox(visible=False)
        self.reward_in_url = gr.Textbox(visible=False)

    def _model_card(self) -> None:
        with gr.Column(elem_classes="wb-card", min_width=0):
            _title("1", "Model")
            self.choice = gr.Radio(
                [("The embedded model: ships with the workbench", EMBEDDED), ("Another model", OTHER)],
                value=EMBEDDED, label="Model", show_label=False, elem_classes="wb-options", container=False,
            )  # fmt: skip
            self._field("model", value="", visible=False, placeholder="Folder, or Hugging Face id")
            self.facts = page_frame.markup()
            with gr.Row(elem_classes="wb-fields two"):
                self._field("use_peft")
                self._field("dtype")

    def _task_card(self) -> None:
        with gr.Column(elem_classes="wb-card", min_width=0):
            _title("2", "Task and reward")
            with gr.Row(elem_classes="wb-fields task"):
                tasks = [(task.title, name) for name, task in TASKS.items()]
                self.fields["task"] = gr.Dropdown(
                    tasks, value=self.begin.task, filterable=False, **form.component_options("task")
                )
                with gr.Row(elem_classes="wb-fields two") as self.levels:
                    for name in _LEVELS:
                        self._field(name, placeholder="auto")
            with gr.Row(elem_classes="wb-fields three", visible=False) as self.data_fields:
                for name in _DATA:
                    self._field(name)
            self.example = page_frame.markup()
            self.rows = form.reward_rows(self.begin.rewards)
            self.versions = page_frame.markup("wb-lab-versions")
            with gr.Row(elem_classes="wb-links"):
                self.add = _link("Add a reward", "wb-add-reward")
                self.show = _link("Preview 5 prompts", "wb-preview")
            page_frame.markup("f-rewards", css="wb-field")  # form.js puts problems with the rewards here
            self.preview = page_frame.markup("wb-previewed")

    def _group_card(self) -> None:
        with gr.Column(elem_classes="wb-card", min_width=0):
            _title("3", "Group and update", "small grey figures are TRL's defaults")
            with gr.Row(elem_classes="wb-pair wide"):
                with gr.Column(min_width=0):
                    self.fields["num_generations"] = gr.Slider(
                        2, MAX_SAMPLES, value=self.begin.num_generations, step=1, buttons=[],
                        **form.component_options("num_generations"),
                    )  # fmt: skip
                    self.chance = page_frame.markup()
                with gr.Column(min_width=0):
                    self._field("beta")
                    self.beta_line = page_frame.markup()
            with gr.Row(elem_classes="wb-fields three"):
                for name in _SMALL:
                    self._field(name)
            self.choices = page_frame.markup()

    def _other_settings(self) -> None:
        with gr.Accordion("All other settings", open=False, elem_id="wb-all"):
            others = [info for info in settings() if info.name not in _PLACED]
            for section, title in SECTIONS.items():
                names = [info.name for info in others if info.section == section]
                if names:
                    self._section(section, title, names)

    def _section(self, section: Section, title: str, names: Sequence[str]) -> None:
        page_frame.markup(f"wb-section-{section}", tag("h3", title))
        with gr.Row(elem_classes="wb-fields four"):
            for name in names:
                self._field(name)

    def _field(self, name: str, **options: Any) -> None:
        value = options.pop("value", getattr(self.begin, name))
        self.fields[name] = form.field(name, value, **options)

    def connect(self, do: Handlers, blocks: gr.Blocks) -> None:
        """Connects events: every change is validated, a preset fills the fields, Start starts the run."""
        rewards = [part for row in self.rows for part in row.inputs()]
        values = [self.choice, *self.fields.values(), *rewards]
        inputs: list[Any] = [self.preset, *values]
        outputs: list[Any] = [
            self.headline, self.about, self.fields["model"], self.facts, self.levels, self.data_fields, self.example,
            self.chance, self.beta_line, self.choices, self.versions, self.rail, self.problems, self.start,
        ]  # fmt: skip
        checking: dict[str, Any] = {
            "fn": do.check, "inputs": inputs, "outputs": outputs, "trigger_mode": "always_last", **_QUIET,
        }  # fmt: skip
        # Not `input`: a Textbox fires it on key presses only, never when text is pasted or cut.
        changes = [component.change for component in values]  # type: ignore[attr-defined]
        gr.on(changes, **checking)
        blocks.load(_new_key, None, [self.key], **_QUIET)
        rows = [row.row for row in self.rows]
        from_link = blocks.load(
            do.fill_from_link, None, [self.problems, self.preset, *values, *rows], **_QUIET
        )
        from_lab = from_link.then(
            do.fill_from_lab, [self.reward_in_url], [*rewards, *rows], js=_REWARD_IN_URL, **_QUIET
        )
        from_lab.then(**checking)
        self.preset.input(do.fill, [self.preset], [*values, *rows], **_QUIET).then(**checking)
        self.add.click(do.add_reward, rewards, rows, **_QUIET)
        for row in self.rows:
            row.remove.click(_hide, None, [row.row, row.name], **_QUIET).then(**checking)
        probe: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "probe", **_SLOW}
        self.show.click(do.show_prompts, inputs, [self.problems, self.preview], **probe)
        self.dry.click(do.rehearse, inputs, [self.problems, self.rehearsal], **probe)
        self.start.click(
            do.launch, [self.key, *inputs], [self.problems, self.started, self.start], **_SLOW
        ).success(None, [self.started], None, js=_OPEN, api_visibility="private")


def _new_key() -> str:
    return secrets.token_hex(8)


def _hide() -> list[Any]:
    return [gr.update(visible=False), None]


def _link(text: str, elem_id: str) -> gr.Button:
    return gr.Button(text, size="sm", min_width=0, elem_classes="wb-link", elem_id=elem_id)


def _title(number: str, text: str, aside: str = "") -> None:
    beside = tag("span", aside, class_="wb-aside") if aside else None
    page_frame.markup(value=tag("h2", tag("span", number, class_="i3"), text, beside))
