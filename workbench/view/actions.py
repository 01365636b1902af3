"""What happens on New run when something is typed, chosen or pressed.

In: the raw values of the form's fields, in the order `inputs` of the page. Out: values for its components.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from workbench import preflight
from workbench.config import RunConfig
from workbench.errors import ConfigError, WorkbenchError
from workbench.prompts import TASKS
from workbench.view import bench, expect, form, parts
from workbench.view.check import EMBEDDED, OTHER, Checked, check, read
from workbench.view.store import Store

Values = Sequence[Any]


class Actions:
    """`names`: the settings behind the page's fields, in their order."""

    def __init__(self, store: Store, names: Sequence[str]) -> None:
        self.store = store
        self.names = list(names)

    def check(self, preset: str, choice: str, *values: Any) -> list[Any]:
        """Everything on the page that depends on the fields, in the order of the page's `outputs`."""
        given = read(preset, choice, self.names, values)
        checked = check(given)
        known = expect.expected(self.store, checked.sketch) if checked.sketch else None
        task = TASKS.get(str(given.get("task")))
        config = checked.config
        return [
            str(parts.headline(checked)),
            str(parts.preset_line(preset, given)),
            gr.update(visible=choice == OTHER),
            str(parts.model_line(checked)),
            gr.update(visible=task is not None and task.levels is not None),
            gr.update(visible=given.get("task") == "data"),
            str(parts.task_line(task)),
            str(parts.chance(checked, known.base if known else None)),
            str(parts.beta_line(checked)),
            str(parts.choices(checked)),
            str(parts.rail(config, checked.facts, known)) if config else gr.skip(),  # stays as it was
            str(parts.problem_list(checked.problems)),
            gr.update(value=f"Start {config.steps} steps") if config else gr.skip(),
        ]

    def fill(self, preset: str) -> list[Any]:
        """All fields as a preset has them."""
        config = RunConfig.build(preset)
        embedded = config.model == EMBEDDED
        fields = []
        for name in self.names:
            value: Any = form.shown(form.INFOS[name], getattr(config, name))
            if name == "model" and embedded:
                value = ""
            elif name == "num_generations":
                value = config.num_generations
            most = {"maximum": max(parts.MOST_SAMPLES, value)} if name == "num_generations" else {}
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
        checked = check(read(preset, choice, self.names, values))
        yield from self._ask("prompts", checked, lambda result, config: parts.preview(result))

    def rehearse(self, preset: str, choice: str, *values: Any) -> Iterator[tuple[Any, Any]]:
        """One step on the longest prompts."""
        yield from self._ask("rehearsal", check(read(preset, choice, self.names, values)), parts.rehearsed)

    def _ask(
        self, probe: str, checked: Checked, drawn: Callable[[Mapping[str, Any], RunConfig], Markup]
    ) -> Iterator[tuple[Any, Any]]:
        """(problems, part) again and again: what a bench worker is at, and at last its answer."""
        if checked.config is None:
            yield str(parts.problem_list(checked.problems)), ""
            return
        yield "", str(parts.asking("Starting a worker…"))
        try:
            for told in bench.ask(checked.config, self.store.root, probe):
                if told.result is not None:
                    yield gr.skip(), str(drawn(told.result, checked.config))
                else:
                    yield gr.skip(), str((parts.failed if told.failed else parts.asking)(told.words))
        except WorkbenchError as error:
            yield str(parts.problem_list(sentences(error))), ""

    def launch(self, key: str, preset: str, choice: str, *values: Any) -> tuple[Any, Any, Any]:
        """(problems, id of the run, Start button). What stands in the way is said beside each field;
        nothing that was typed is lost."""
        checked = check(read(preset, choice, self.names, values))
        if checked.config is None:
            return str(parts.problem_list(checked.problems)), "", gr.skip()
        try:
            folder = preflight.start(checked.config, self.store.root, key=key)
        except WorkbenchError as error:
            return str(parts.problem_list(sentences(error))), "", gr.skip()
        return "", folder.id, gr.update(value="Starting…", interactive=False)


def sentences(error: WorkbenchError) -> dict[str, str]:
    """What stands in the way, by setting; "" for what belongs to none."""
    return (error.problems if isinstance(error, ConfigError) else {}) or {"": str(error)}
