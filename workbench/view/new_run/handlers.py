"""Event handlers of the New run page.

In: the raw values of the form's fields, in the order of the page's `inputs`. Out: values for its components.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError, WorkbenchError
from workbench.core.presets import presets
from workbench.launch import preflight, steer
from workbench.prompts import TASKS
from workbench.view.common import form, temporary_probe
from workbench.view.common.run_store import RunStore
from workbench.view.lab import version_rewards
from workbench.view.new_run import expected_results, panels, sandbox_badge, starting_point
from workbench.view.new_run.form_values import EMBEDDED, OTHER, CheckedForm, check, read

Values = Sequence[Any]


class Handlers:
    """`names`: the settings of the page's fields, in order."""

    def __init__(self, store: RunStore, names: Sequence[str]) -> None:
        self.store = store
        self.names = list(names)

    def check(self, preset: str, choice: str, *values: Any) -> list[Any]:
        """Everything on the page that depends on the fields, in the order of the page's `outputs`."""
        base = starting_point.starting_point(self.store, preset)
        given = read(base.config, choice, self.names, values)
        checked = check(given)
        known = (
            expected_results.expected_results(self.store, checked.valid_part) if checked.valid_part else None
        )
        task = TASKS.get(str(given.get("task")))
        config = checked.config
        remaining = _remaining(config, base) if config else None
        return [
            str(panels.headline(checked._replace(config=remaining))),
            str(panels.start_line(base.config, base.about, given)),
            gr.update(visible=choice == OTHER),
            str(panels.model_line(checked)),
            gr.update(visible=task is not None and task.levels is not None),
            gr.update(visible=given.get("task") == "data"),
            str(panels.task_line(task)),
            str(panels.chance(checked, known.base if known else None)),
            str(panels.beta_line(checked)),
            str(panels.choices(checked)),
            str(
                version_rewards.line(
                    version_rewards.used(self.store.root, (spec["name"] for spec in given["rewards"]))
                )
                + sandbox_badge.badge(checked.valid_part)
            ),
            str(panels.rail(remaining, checked.facts, known)) if remaining else gr.skip(),  # stays as it was
            str(panels.problem_list(checked.problems)),
            gr.update(value=_start_label(config, base)) if config else gr.skip(),
        ]

    def fill_from_lab(self, number: str | None) -> list[Any]:
        """The reward rows as a version of the reward lab has them, where the URL names one."""
        version = version_rewards.from_url(self.store.root, number)
        if version is None:
            return [gr.skip() for _ in range(form.REWARD_ROWS * (form.REWARD_PARTS + 1))]
        specs = version_rewards.specs(version)[: form.REWARD_ROWS]
        known = [
            (version_rewards.label(spec.name) or spec.name, spec.name) for spec in specs
        ] + form.reward_choices()
        values: list[Any] = form.reward_values(specs)
        visible = [gr.update(visible=bool(name)) for name in values[:: form.REWARD_PARTS]]
        for place in range(0, len(values), form.REWARD_PARTS):
            values[place] = gr.update(choices=known, value=values[place])
        return [*values, *visible]

    def fill(self, preset: str) -> list[Any]:
        """All fields with the values of a preset, or of the run to fork."""
        return self._filled(starting_point.starting_point(self.store, preset).config)

    def fill_from_link(self, request: gr.Request) -> list[Any]:
        """(problems, the choice "Start from", all fields) where the page was opened by a link to fork a run."""
        fields = len(self.names) + 1 + form.REWARD_ROWS * (form.REWARD_PARTS + 1)
        try:
            found = starting_point.from_link(self.store, dict(request.query_params))
        except WorkbenchError as error:
            return [str(panels.problem_list(problems_of(error))), *[gr.skip()] * (fields + 1)]
        if found is None:
            return [gr.skip()] * (fields + 2)
        titles = [(found.title, found.choice), *((entry.title, entry.name) for entry in presets())]
        return ["", gr.update(choices=titles, value=found.choice), *self._filled(found.config)]

    def _filled(self, config: RunConfig) -> list[Any]:
        embedded = config.model == EMBEDDED
        fields = []
        for name in self.names:
            value: Any = form.field_value(form.INFOS[name], getattr(config, name))
            if name == "model" and embedded:
                value = ""
            elif name == "num_generations":
                value = config.num_generations
            most = {"maximum": max(panels.MAX_SAMPLES, value)} if name == "num_generations" else {}
            fields.append(gr.update(value=value, **most))
        rewards = form.reward_values(config.rewards)
        visible = [gr.update(visible=bool(name)) for name in rewards[:: form.REWARD_PARTS]]
        return [EMBEDDED if embedded else OTHER, *fields, *rewards, *visible]

    @staticmethod
    def add_reward(*values: Any) -> list[Any]:
        """Shows the first free reward row."""
        names = values[:: form.REWARD_PARTS]
        free = next((number for number, name in enumerate(names) if not name), None)
        return [gr.update(visible=True) if number == free else gr.skip() for number in range(len(names))]

    def show_prompts(self, preset: str, choice: str, *values: Any) -> Iterator[tuple[Any, Any]]:
        """A few prompts exactly as the model reads them."""
        checked = check(self._read(preset, choice, values))
        yield from self._probe("prompts", checked, lambda result, config: panels.preview(result))

    def rehearse(self, preset: str, choice: str, *values: Any) -> Iterator[tuple[Any, Any]]:
        """A dry run: one step on the longest prompts."""
        yield from self._probe("rehearsal", check(self._read(preset, choice, values)), panels.rehearsed)

    def _read(self, preset: str, choice: str, values: Values) -> dict[str, Any]:
        return read(starting_point.starting_point(self.store, preset).config, choice, self.names, values)

    def _probe(
        self, probe: str, checked: CheckedForm, draw: Callable[[Mapping[str, Any], RunConfig], Markup]
    ) -> Iterator[tuple[Any, Any]]:
        """(problems, panel) repeatedly: what the probe worker is doing, and finally its result."""
        if checked.config is None:
            yield str(panels.problem_list(checked.problems)), ""
            return
        yield "", str(panels.working("Starting a worker…"))
        try:
            for progress in temporary_probe.run(checked.config, self.store.root, probe):
                if progress.result is not None:
                    yield gr.skip(), str(draw(progress.result, checked.config))
                else:
                    yield (
                        gr.skip(),
                        str((panels.failed if progress.failed else panels.working)(progress.words)),
                    )
        except WorkbenchError as error:
            yield str(panels.problem_list(problems_of(error))), ""

    def launch(self, key: str, preset: str, choice: str, *values: Any) -> tuple[Any, Any, Any]:
        """(problems, id of the run, Start button). Problems are shown beside their fields; nothing that was typed is lost."""
        try:
            base = starting_point.starting_point(self.store, preset)
            checked = check(read(base.config, choice, self.names, values))
            if checked.config is None:
                return str(panels.problem_list(checked.problems)), "", gr.skip()
            if base.parent is not None and base.fork is not None:
                wanted = starting_point.changes(base, checked.config)
                folder = steer.fork(base.parent, base.fork.step, wanted, self.store.root, key=key)
            else:
                folder = preflight.start(checked.config, self.store.root, key=key)
        except WorkbenchError as error:
            return str(panels.problem_list(problems_of(error))), "", gr.skip()
        return "", folder.id, gr.update(value="Starting…", interactive=False)


def _remaining(config: RunConfig, base: starting_point.StartingPoint) -> RunConfig:
    """The settings with `steps` reduced to those still to run: a fork continues after its parent's."""
    done = base.fork.step if base.fork else 0
    return config.changed(steps=max(1, config.steps - done)) if done else config


def _start_label(config: RunConfig, base: starting_point.StartingPoint) -> str:
    if base.fork is None or not base.fork.step:
        return f"Start {config.steps} steps"
    return f"Start the fork: steps {base.fork.step} to {config.steps}"


def problems_of(error: WorkbenchError) -> dict[str, str]:
    """The error's sentences by setting; "" for one that belongs to no setting."""
    return (error.problems if isinstance(error, ConfigError) else {}) or {"": str(error)}
