"""What happens on New run when something is typed, chosen or pressed.

In: the raw values of the form's fields, in the order `inputs` of the page. Out: values for its components.
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
    """`names`: the settings behind the page's fields, in their order."""

    def __init__(self, store: RunStore, names: Sequence[str]) -> None:
        self.store = store
        self.names = list(names)

    def check(self, preset: str, choice: str, *values: Any) -> list[Any]:
        """Everything on the page that depends on the fields, in the order of the page's `outputs`."""
        base = starting_point.starting_point(self.store, preset)
        given = read(base.config, choice, self.names, values)
        checked = check(given)
        known = expected_results.expected_results(self.store, checked.sketch) if checked.sketch else None
        task = TASKS.get(str(given.get("task")))
        config = checked.config
        ahead = _ahead(config, base) if config else None
        return [
            str(panels.headline(checked._replace(config=ahead))),
            str(panels.base_line(base.config, base.about, given)),
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
                + sandbox_badge.badge(checked.sketch)
            ),
            str(panels.rail(ahead, checked.facts, known)) if ahead else gr.skip(),  # stays as it was
            str(panels.problem_list(checked.problems)),
            gr.update(value=_start_words(config, base)) if config else gr.skip(),
        ]

    def bring(self, number: str | None) -> list[Any]:
        """The reward rows as a version of the lab has them, where the address names one."""
        version = version_rewards.asked_for(self.store.root, number)
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
        """All fields as a preset, or the run that is forked, has them."""
        return self._filled(starting_point.starting_point(self.store, preset).config)

    def arrive(self, request: gr.Request) -> list[Any]:
        """Problems, the choice "Start from" and all fields, where the page was opened by a link that forks a run."""
        fields = len(self.names) + 1 + form.REWARD_ROWS * (form.REWARD_PARTS + 1)
        try:
            found = starting_point.from_link(self.store, dict(request.query_params))
        except WorkbenchError as error:
            return [str(panels.problem_list(sentences(error))), *[gr.skip()] * (fields + 1)]
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
            most = {"maximum": max(panels.MOST_SAMPLES, value)} if name == "num_generations" else {}
            fields.append(gr.update(value=value, **most))
        rewards = form.reward_values(config.rewards)
        visible = [gr.update(visible=bool(name)) for name in rewards[:: form.REWARD_PARTS]]
        return [EMBEDDED if embedded else OTHER, *fields, *rewards, *visible]

    @staticmethod
    def add_reward(*values: Any) -> list[Any]:
        """Shows the first reward row that is free."""
        names = values[:: form.REWARD_PARTS]
        free = next((number for number, name in enumerate(names) if not name), None)
        return [gr.update(visible=True) if number == free else gr.skip() for number in range(len(names))]

    def show_prompts(self, preset: str, choice: str, *values: Any) -> Iterator[tuple[Any, Any]]:
        """A few prompts as the model will read them."""
        checked = check(self._read(preset, choice, values))
        yield from self._ask("prompts", checked, lambda result, config: panels.preview(result))

    def rehearse(self, preset: str, choice: str, *values: Any) -> Iterator[tuple[Any, Any]]:
        """One step on the longest prompts."""
        yield from self._ask("rehearsal", check(self._read(preset, choice, values)), panels.rehearsed)

    def _read(self, preset: str, choice: str, values: Values) -> dict[str, Any]:
        return read(starting_point.starting_point(self.store, preset).config, choice, self.names, values)

    def _ask(
        self, probe: str, checked: CheckedForm, drawn: Callable[[Mapping[str, Any], RunConfig], Markup]
    ) -> Iterator[tuple[Any, Any]]:
        """(problems, part) again and again: what a bench worker is at, and at last its answer."""
        if checked.config is None:
            yield str(panels.problem_list(checked.problems)), ""
            return
        yield "", str(panels.asking("Starting a worker…"))
        try:
            for told in temporary_probe.run(checked.config, self.store.root, probe):
                if told.result is not None:
                    yield gr.skip(), str(drawn(told.result, checked.config))
                else:
                    yield gr.skip(), str((panels.failed if told.failed else panels.asking)(told.words))
        except WorkbenchError as error:
            yield str(panels.problem_list(sentences(error))), ""

    def launch(self, key: str, preset: str, choice: str, *values: Any) -> tuple[Any, Any, Any]:
        """(problems, id of the run, Start button). What stands in the way is said beside each field;
        nothing that was typed is lost."""
        try:
            base = starting_point.starting_point(self.store, preset)
            checked = check(read(base.config, choice, self.names, values))
            if checked.config is None:
                return str(panels.problem_list(checked.problems)), "", gr.skip()
            if base.parent is not None and base.origin is not None:
                wanted = starting_point.changes(base, checked.config)
                folder = steer.fork(base.parent, base.origin.step, wanted, self.store.root, key=key)
            else:
                folder = preflight.start(checked.config, self.store.root, key=key)
        except WorkbenchError as error:
            return str(panels.problem_list(sentences(error))), "", gr.skip()
        return "", folder.id, gr.update(value="Starting…", interactive=False)


def _ahead(config: RunConfig, base: starting_point.StartingPoint) -> RunConfig:
    """The settings with the steps that are still to be made: a fork begins behind its parent's."""
    done = base.origin.step if base.origin else 0
    return config.changed(steps=max(1, config.steps - done)) if done else config


def _start_words(config: RunConfig, base: starting_point.StartingPoint) -> str:
    if base.origin is None or not base.origin.step:
        return f"Start {config.steps} steps"
    return f"Start the fork: steps {base.origin.step} to {config.steps}"


def sentences(error: WorkbenchError) -> dict[str, str]:
    """What stands in the way, by setting; "" for what belongs to none."""
    return (error.problems if isinstance(error, ConfigError) else {}) or {"": str(error)}
