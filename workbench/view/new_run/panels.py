"""The parts of the New run page that depend on its fields: sentences, plots and figures, as markup.

In: the validated form (form_values.py) and results of earlier runs (expected_results.py). Out: `Markup`.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from workbench.algorithm import token_grads
from workbench.core import estimate
from workbench.core.config import RunConfig
from workbench.core.estimate import ModelFacts
from workbench.core.setting import SECTIONS
from workbench.prompts import Task
from workbench.view.common import form, plots
from workbench.view.common.markup import Child, join, tag
from workbench.view.new_run import wording
from workbench.view.new_run.expected_results import Expected
from workbench.view.new_run.form_values import CheckedForm

MAX_SAMPLES = 64
"""Right end of the slider for G; a preset may extend it."""
PAPER_BETA, STRONG_BETA = 0.04, 0.5
_TIME_CSS, _MEMORY_CSS = ("ink2", "ink3", "line2"), ("ink3", "ink2", "accent", "line2")


def headline(checked: CheckedForm) -> Markup:
    """The sentence on top."""
    if checked.config is None:
        count = len(checked.problems)
        need = "One setting needs" if count == 1 else f"{count} settings need"
        return tag("h1", f"{need} a change before this can start.")
    return tag("h1", wording.headline(checked.config, estimate.duration(checked.config, checked.facts)))


def start_line(config: RunConfig, about: str, given: Mapping[str, Any]) -> Markup:
    """What the form started from, and which settings have been changed since."""
    changed = []
    for name, info in form.INFOS.items():
        before = form.field_value(info, getattr(config, name)) if name != "rewards" else None
        if name in given and name not in ("rewards", "run_name") and str(before) != str(given[name]):
            was, now = form.format_value(before) or "empty", form.format_value(given[name]) or "empty"
            changed.append(tag("li", tag("b", info.label), " ", tag("span", was, class_="i3"), " → ", now))
    fold = None
    if changed:
        count = tag("summary", f"{wording.plural(len(changed), 'setting')} changed")
        fold = tag("details", count, tag("ul", changed))
    return tag("div", tag("p", about), fold, class_="wb-about")


def model_line(checked: CheckedForm) -> Markup:
    """Size and shape of the model, read without loading it."""
    facts = checked.facts
    if facts is None and "model" in checked.problems:
        return Markup("")
    if facts is None:
        lines = ["Not on this machine yet: it is fetched when the run starts, and its size is known then."]
    else:
        size = f"{wording.parameters(facts.parameters)}, {wording.size(facts.stored_bytes)}"
        lines = [
            f"{size}, {facts.architecture.removesuffix('ForCausalLM')} architecture",
            f"{facts.layers} layers, {facts.vocab:,} tokens in the vocabulary, reads up to {facts.context:,}",
        ]
    return tag("div", [tag("p", line, class_="wb-note") for line in lines])


def task_line(task: Task | None) -> Markup:
    """What the task asks, with an example."""
    if task is None:
        return Markup("")
    example = None
    if task.name != "data":
        question, answer = _cut(task.example.question), _cut(str(task.example.answer))
        words = [
            tag("span", "For example "),
            tag("code", question),
            tag("span", "reference answer "),
            tag("code", answer),
        ]
        example = tag("p", words, class_="wb-example")
    return tag("div", tag("p", task.about, class_="wb-note"), example)


def chance(checked: CheckedForm, base: float | None) -> Markup:
    """Probability that a group of G has both right and wrong samples: only such groups have advantages. The x axis is the
    slider's."""
    config = checked.valid_part
    chosen = config.num_generations if config else 8
    most = max(MAX_SAMPLES, chosen)
    rates = [base] if base is not None else [0.05, 0.2, 0.5]
    sizes = sorted({*range(2, 17), *range(2, most + 1, max(1, most // 64)), most, chosen})
    curves = [
        plots.Curve([(size, mixed(share, size)) for size in sizes], "ink2", f"{wording.percent(share)} right")
        for share in rates
    ]
    ticks = [
        (float(size), str(size))
        for size in (2, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
        if size == 2 or most / 8 <= size <= most
    ]
    share = rates[len(rates) // 2]
    mark = (float(chosen), mixed(share, chosen), f"{wording.percent(mixed(share, chosen))} at G = {chosen}")
    known = (
        f"one is right in {wording.percent(base)} of cases"
        if base is not None
        else "by how often one sample is right"
    )
    return tag(
        "div",
        tag("p", f"Chance that a group has both right and wrong samples: {known}", class_="wb-note"),
        plots.plot(
            curves,
            plots.Axis(2, most, ticks),
            plots.Axis(0, 1, [(0, "0 %"), (0.5, "50 %"), (1, "100 %")]),
            140,
            f"{mark[2]}: chance that a group has both right and wrong samples",
            mark,
        ),
        class_="wb-slider-plot",
    )


def mixed(share: float, size: int) -> float:
    """Probability that `size` samples, each right with probability `share`, are neither all right nor all wrong:
    1 - p^G - (1 - p)^G."""
    return 1.0 - share**size - (1.0 - share) ** size


def beta_line(checked: CheckedForm) -> Markup:
    """What β does: in words, and as a plot of the penalty of one token over its log-ratio to the base model."""
    config = checked.valid_part
    if config is None:
        return Markup("")
    if config.beta == 0:
        words = "No KL penalty: the policy may drift as far from the base model as the reward takes it."
        words += " KL is still measured." if config.record_kl else " KL is not measured either."
    else:
        where = "the loss" if config.kl_in == "loss" else "each sample's reward"
        words = f"{config.beta:g} × KL(policy ‖ base), {config.kl_estimator} estimate, goes into {where}."
        if config.beta >= STRONG_BETA:
            words += " A penalty this strong usually holds the policy near the base model."
    return tag("div", tag("p", words, class_="wb-note"), _penalty_plot(config))


def _penalty_plot(config: RunConfig) -> Markup:
    """β times the KL estimate of one token, over log2 of its probability under the policy / under the base model."""
    doublings = np.linspace(-3, 3, 49)
    penalty, _ = token_grads.kl_term(doublings * math.log(2), np.zeros_like(doublings), config.kl_estimator)
    shown = (
        [(config.beta, "plum", f"β {config.beta:g}")]
        if config.beta
        else [(0.0, "plum", "β 0: none"), (PAPER_BETA, "ink3", "β .04: paper")]
    )
    curves = [
        plots.Curve(list(zip(doublings.tolist(), (beta * penalty).tolist(), strict=True)), css, label)
        for beta, css, label in shown
    ]
    high = _round_up(max(value for curve in curves for _, value in curve.points))
    low = -high if any(value < 0 for curve in curves for _, value in curve.points) else 0.0
    x = plots.Axis(-3, 3, [(-3, "÷ 8"), (0, "as in the base model"), (3, "× 8")])
    y = plots.Axis(low, high, [(value, form.format_value(value)) for value in (low, (low + high) / 2, high)])
    alt = f"Penalty of a token eight times likelier than under the base model: {config.beta * float(penalty[-1]):.3g} nats"
    return tag(
        "div",
        tag(
            "p",
            "Penalty of one token, in nats, by its probability relative to the base model",
            class_="wb-note",
        ),
        plots.plot(curves, x, y, 122, alt),
    )


def _round_up(value: float) -> float:
    """To 1, 2, 4 or 6 times a power of ten, so that half of it is a round figure too."""
    step = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next((factor * step for factor in (1, 2, 4, 6) if factor * step >= value), 10 * step)


def choices(checked: CheckedForm) -> Markup:
    """Loss, advantage, clip and evaluation in one line."""
    if checked.valid_part is None:
        return Markup("")
    return tag(
        "p",
        [tag("span", f"{name}: ", tag("b", value)) for name, value in wording.algorithm(checked.valid_part)],
        class_="wb-choices",
    )


def rail(config: RunConfig, facts: ModelFacts | None, expected: Expected | None) -> Markup:
    """What to expect, how long it takes, whether it fits into memory."""
    return join([_expected(config, expected), _time(config, facts, expected), _memory(config, facts)])


def problem_list(problems: Mapping[str, str]) -> Markup:
    """All problems beside the Start button; form.js copies each to its field."""
    if not problems:
        return Markup("")
    items = [
        tag(
            "li",
            tag("a", _label(name), href=f"#f-{name}"),
            tag("span", sentence),
            data_setting=name,
            data_sentence=sentence,
        )
        for name, sentence in problems.items()
    ]
    return tag(
        "div",
        tag("h3", "Before this can start"),
        tag("ul", items),
        class_="wb-panel wb-problems",
        role="status",
    )


def working(words: str) -> Markup:
    """What the probe worker is doing."""
    return tag("p", words, class_="wb-note", role="status")


def failed(words: str) -> Markup:
    """Why there is no result."""
    return tag("p", words, class_="wb-warning", role="alert")


def preview(result: Mapping[str, Any]) -> Markup:
    """A few prompts exactly as the model reads them, with their reference answers."""
    tokens, train = result["tokens"], wording.plural(result["train"], "prompt")
    head = (
        f"{train} to train on, {result['heldout']:,} held out; {tokens['min']} to {tokens['max']} tokens, "
        f"half of them at most {tokens['median']}."
    )
    shown = []
    for prompt in result["prompts"]:
        aside = (
            f"{wording.plural(prompt['tokens'], 'token')} · reference answer {_cut(str(prompt['answer']))}"
        )
        shown.append(tag("li", tag("pre", prompt["text"]), tag("span", aside)))
    notes = [tag("p", warning, class_="wb-note") for warning in result.get("warnings", [])]
    return tag("div", tag("p", head, class_="wb-note"), tag("ol", shown), notes, class_="wb-preview")


def rehearsed(result: Mapping[str, Any], config: RunConfig) -> Markup:
    """Seconds and memory of one step on the longest prompts."""
    seconds, samples = result["seconds"], wording.plural(result["answers"], "sample")
    sampled, updated = wording.short(result["sample"]["seconds"]), wording.short(result["update"]["seconds"])
    device = estimate.device(config.device)
    lines = [
        f"One step on the longest prompts took {wording.short(seconds)}: sampling {sampled}, update {updated}.",
        f"{wording.plural(config.steps, 'step')} would take {wording.about(seconds * config.steps)}, "
        "evaluations not counted.",
        f"Peak memory {wording.size(result['peak_bytes'])} of {wording.size(device.bytes)}, with {samples} of "
        f"{result['mean_length']:.0f} tokens on average.",
        f"If every sample had {config.max_completion_length} tokens, a step would take "
        f"{wording.short(result['step_seconds_at_limit'])}.",
    ]
    return _panel("Dry run: it works", [tag("p", line) for line in lines])


def _expected(config: RunConfig, expected: Expected | None) -> Markup:
    if expected is None:
        return _panel(
            "What to expect",
            tag(
                "p",
                "Nothing is recorded for these settings yet. The base model is evaluated on "
                f"{wording.plural(config.eval_problems, 'held-out problem')} before the first step, so every "
                "gain shows.",
            ),
        )
    last = max(curve.points[-1][0] for curve in expected.curves)
    curves = [
        plots.Curve(
            curve.points,
            "accent" if i == 0 else "r3",
            f"{wording.figure(curve.points[-1][1])} seed {curve.seed}",
            dots=True,
        )
        for i, curve in enumerate(expected.curves)
    ]
    ticks = [(float(step), str(step)) for step in range(0, last + 1, max(1, round(last / 5)))]
    grown = (
        f"Samples grow from {expected.lengths[0]:.0f} to {expected.lengths[1]:.0f} tokens. "
        if expected.lengths and expected.lengths[1] > expected.lengths[0]
        else ""
    )
    words = tag("p", grown + expected.note) if grown or expected.note else None
    return _panel(
        "What to expect",
        tag("p", expected.source),
        plots.plot(
            curves,
            plots.Axis(0, last, ticks),
            plots.Axis(0, 1, [(0, "0"), (0.5, ".5"), (1, "1")]),
            150,
            "Held-out accuracy by step",
        ),
        words,
    )


def _time(config: RunConfig, facts: ModelFacts | None, expected: Expected | None) -> Markup:
    guess = estimate.duration(config, facts)
    if expected is not None and expected.seconds is not None:
        source = "Measured in the runs above" if expected.curves else "Measured"
        phases = expected.phases or (guess._asdict() if guess else {})
        title, total = f"Time: {wording.about(expected.seconds)}", expected.seconds
    elif guess is not None:
        source, phases = "From the rate measured on one quiet core", guess._asdict()
        title, total = f"Time: {wording.about(guess.total)}", guess.total
    else:
        return _panel(
            "Time: not known yet",
            tag(
                "p",
                "This model has not been measured here. A dry run measures one step on the longest prompts.",
            ),
        )
    scale = total / (sum(phases.values()) or 1.0)
    parts = [
        (f"{name} {wording.short(value * scale)}", value, css)
        for (name, value), css in zip(phases.items(), _TIME_CSS, strict=False)
    ]
    return _panel(
        title,
        tag("p", f"{source}; {wording.plural(config.steps, 'step')}."),
        plots.bar(parts) if parts else None,
    )


def _memory(config: RunConfig, facts: ModelFacts | None) -> Markup:
    device = estimate.device(config.device)
    if facts is None:
        return _panel(
            f"Memory: unknown of {wording.size(device.bytes)}",
            tag("p", "Known once the model is on this machine."),
        )
    need = estimate.memory(config, facts)
    moment = ("update", need.update) if need.update >= need.sampling else ("sampling", need.sampling)
    weights = need.weights + need.reference
    parts = [
        ("PyTorch", need.runtime + need.working),
        ("weights" + (" and reference" if need.reference else ""), weights),
        ("optimiser", need.optimizer),
        moment,
    ]
    drawn = [
        (f"{name} {wording.size(count)}", float(count), css)
        for (name, count), css in zip(parts, _MEMORY_CSS, strict=True)
    ]
    warning = wording.memory(need, device.bytes)
    return _panel(
        f"Memory: {wording.size(need.total)} of {wording.size(device.bytes)}",
        tag("p", f"Estimated for {device.name}, with every sample at {config.max_completion_length} tokens."),
        plots.bar(drawn, max(float(device.bytes), float(need.total))),
        tag("p", warning, class_="wb-warning") if warning else None,
    )


def _panel(title: str, *content: Child) -> Markup:
    return tag("section", tag("h3", title), content, class_="wb-panel")


def _label(name: str) -> str:
    info = form.INFOS.get(name)
    if not name:
        return "This cannot start"
    return (
        f"{info.label} ({SECTIONS[info.section]})" if info and not info.core else info.label if info else name
    )


def _cut(text: str, most: int = 80) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
