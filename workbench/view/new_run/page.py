"""New run: what will be trained, on what, for which reward, and what that costs. Everything is said before
Start.

The fields come from `config.settings()`; this file only says where each one stands and what each event calls
(handlers.py).
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
from workbench.view.new_run.panels import MOST_SAMPLES

_OWN = ("data", "data_split", "prompt_column", "answer_column", "heldout")
_LEVELS = {"min_level": "Easiest", "max_level": "Hardest"}
_SMALL = ("prompts_per_step", "learning_rate", "temperature", "max_completion_length", "steps", "seed")
_PLACED = {
    "model",
    "use_peft",
    "dtype",
    "task",
    "rewards",
    "num_generations",
    "beta",
    *_OWN,
    *_LEVELS,
    *_SMALL,
}
"""Settings with a place of their own on the cards. All others lie in the fold, by section."""
_OPEN = "(id) => { if (id) location.assign('/?run=' + id); }"
_ASKED = "() => new URLSearchParams(location.search).get('reward')"
"""A version of the reward lab to start with."""
_QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_SLOW: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "once"}


def build(store: RunStore, blocks: gr.Blocks) -> None:
    """Draws the page and wires it."""
    page = _Page()
    page.draw()
    page.wire(Handlers(store, list(page.fields)), blocks)


class _Page:
    """The page's components while it is drawn and wired; nothing of it is kept between requests."""

    def __init__(self) -> None:
        self.begin = RunConfig.build(DEFAULT_PRESET)
        self.fields: dict[str, Component] = {}
        self.rows: list[form.RewardRow] = []

    def draw(self) -> None:
        """All of it, top to bottom."""
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
        # One per page shown: two clicks on Start, in whatever process they end up, are one run.
        self.key = gr.State()
        self.started = gr.Textbox(visible=False)
        self.asked = gr.Textbox(visible=False)

    def _model_card(self) -> None:
        with gr.Column(elem_classes="wb-card", min_width=0):
            _title("1", "Model")
            self.choice = gr.Radio(
                [("The embedded model: ships with the workbench", EMBEDDED), ("Another model", OTHER)],
                value=EMBEDDED, label="Model", show_label=False, elem_classes="wb-options", container=False,
            )  # fmt: skip
            self._field("model", value="", visible=False, label="Folder, or Hugging Face id",
                        placeholder="Qwen/Qwen2.5-0.5B-Instruct")  # fmt: skip
            self.facts = page_frame.markup()
            with gr.Row(elem_classes="wb-fields two"):
                train = form.component_options("use_peft", "Train") | {"info": None}
                self.fields["use_peft"] = gr.Radio(
                    [("All weights", False), ("LoRA", True)], value=self.begin.use_peft, **train
                )
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
                    for name, label in _LEVELS.items():
                        self._field(name, label=label, placeholder="auto")
            with gr.Row(elem_classes="wb-fields three", visible=False) as self.own:
                for name in _OWN:
                    self._field(name)
            self.example = page_frame.markup()
            self.rows = form.reward_rows(self.begin.rewards)
            self.versions = page_frame.markup("wb-lab-versions")
            with gr.Row(elem_classes="wb-links"):
                self.add = _link("Add a reward", "wb-add-reward")
                self.show = _link("Preview 5 prompts", "wb-preview")
            page_frame.markup("f-rewards", css="wb-field")  # where a sentence about the rewards appears
            self.preview = page_frame.markup("wb-previewed")

    def _group_card(self) -> None:
        with gr.Column(elem_classes="wb-card", min_width=0):
            _title("3", "Group and update", "small grey figures are the defaults of TRL")
            with gr.Row(elem_classes="wb-pair wide"):
                with gr.Column(min_width=0):
                    self.fields["num_generations"] = gr.Slider(
                        2, MOST_SAMPLES, value=self.begin.num_generations, step=1, buttons=[],
                        **form.component_options("num_generations", "Samples in a group, G"),
                    )  # fmt: skip
                    self.chance = page_frame.markup()
                with gr.Column(min_width=0):
                    self._field("beta", label="Pull to the base model, β")
                    self.beta_line = page_frame.markup()
            with gr.Row(elem_classes="wb-fields six"):
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

    def wire(self, do: Handlers, blocks: gr.Blocks) -> None:
        """Every change is checked at once; a preset fills the fields; Start starts."""
        rewards = [part for row in self.rows for part in row.inputs()]
        filled = [self.choice, *self.fields.values(), *rewards]
        inputs: list[Any] = [self.preset, *filled]
        outputs: list[Any] = [
            self.headline, self.about, self.fields["model"], self.facts, self.levels, self.own, self.example,
            self.chance, self.beta_line, self.choices, self.versions, self.rail, self.problems, self.start,
        ]  # fmt: skip
        checking: dict[str, Any] = {
            "fn": do.check, "inputs": inputs, "outputs": outputs, "trigger_mode": "always_last", **_QUIET,
        }  # fmt: skip
        # Not `input`: a Textbox's fires on key presses alone, never when text is pasted or taken away.
        changes = [component.change for component in filled]  # type: ignore[attr-defined]
        gr.on(changes, **checking)
        blocks.load(_new_key, None, [self.key], **_QUIET)
        rows = [row.row for row in self.rows]
        arriving = blocks.load(do.arrive, None, [self.problems, self.preset, *filled, *rows], **_QUIET)
        bringing = arriving.then(do.bring, [self.asked], [*rewards, *rows], js=_ASKED, **_QUIET)
        bringing.then(**checking)
        self.preset.input(do.fill, [self.preset], [*filled, *rows], **_QUIET).then(**checking)
        self.add.click(do.add_reward, rewards, rows, **_QUIET)
        for row in self.rows:
            row.remove.click(_hide, None, [row.row, row.name], **_QUIET).then(**checking)
        bench: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "bench", **_SLOW}
        self.show.click(do.show_prompts, inputs, [self.problems, self.preview], **bench)
        self.dry.click(do.rehearse, inputs, [self.problems, self.rehearsal], **bench)
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
