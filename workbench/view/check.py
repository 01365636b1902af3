"""Everything on New run that depends on what stands in its fields, computed in one go.

In: the raw values of all fields. Out: a valid RunConfig or a sentence per field, and the page's parts as markup.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from workbench import estimate, weights
from workbench.config import SECTIONS, RunConfig, load_preset
from workbench.errors import ConfigError, ModelError, WorkbenchError
from workbench.estimate import ModelFacts
from workbench.prompts import TASKS
from workbench.view import expect, form, pictures
from workbench.view import sentences as say
from workbench.view.markup import join, tag
from workbench.view.store import Store

EMBEDDED, OTHER = "embedded", "other"
MOST_SAMPLES = 64
"""Right end of the slider for G; a preset may push it further."""
PAPER_BETA, STRONG_BETA = 0.04, 0.5
_TIME_CSS, _MEMORY_CSS = ("ink2", "ink3", "line2"), ("ink3", "ink2", "accent", "line2")


class Checked(NamedTuple):
    """What the fields come to."""

    config: RunConfig | None
    problems: dict[str, str]
    facts: ModelFacts | None


def read(preset: str, choice: str, names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Plain values for RunConfig.parse from the form's raw ones: `names` first, then the reward rows."""
    given: dict[str, Any] = dict(zip(names, values, strict=False))
    if choice == EMBEDDED:
        given["model"] = EMBEDDED
    options = {spec.name: spec.options for spec in RunConfig.build(preset).rewards}
    given["rewards"] = form.read_rewards(values[len(names):], options)
    return given


def check(given: Mapping[str, Any]) -> Checked:
    """Validates; a model that cannot be is a problem of the field `model`."""
    problems: dict[str, str] = {}
    facts = None
    model = str(given.get("model") or "").strip()
    if not model:
        problems["model"] = "Name a folder on this machine, or a Hugging Face id such as Qwen/Qwen2.5-0.5B-Instruct."
    else:
        try:
            facts = estimate.facts(model)
        except ModelError as error:
            problems["model"] = str(error)
    try:
        config = RunConfig.parse(given)
    except ConfigError as error:
        return Checked(None, {**error.problems, **problems} or {"rewards": str(error)}, facts)
    if facts and config.max_completion_length >= facts.context:
        problems["max_completion_length"] = (f"max_completion_length = {config.max_completion_length}, but this model reads at most {facts.context} "
                                             "tokens, prompt included. Set less.")
    return Checked(None if problems else config, problems, facts)


def headline(checked: Checked) -> Markup:
    """The sentence on top."""
    if checked.config is None:
        count = len(checked.problems)
        return tag("h1", f"{'One setting needs' if count == 1 else f'{count} settings need'} a change before this can start.")
    return tag("h1", say.headline(checked.config, estimate.seconds(checked.config, checked.facts)))


def preset_line(preset: str, given: Mapping[str, Any]) -> Markup:
    """What the preset is for, and what has been changed in it since."""
    chosen = load_preset(preset)
    before = RunConfig.build(preset)
    changed = [info for name, info in form.INFOS.items() if name not in ("rewards", "run_name")
               and name in given and str(form.shown(info, getattr(before, name))) != str(given[name])]
    words = [tag("li", tag("b", info.label), " ", tag("span", form.compact(getattr(before, info.name)) or "empty", class_="i3"), " → ",
                 form.compact(given[info.name]) or "empty") for info in changed]
    fold = tag("details", tag("summary", f"{say.plural(len(changed), 'setting')} changed"), tag("ul", words)) if changed else None
    return tag("div", tag("p", chosen.about), fold, class_="wb-about")


def model_line(checked: Checked) -> Markup:
    """What is known of the model without loading it."""
    facts = checked.facts
    if facts is None:
        words = "" if "model" in checked.problems else "Not on this machine yet: it is fetched when the run starts, and its size is known then."
        return tag("p", words, class_="wb-note")
    lines = [f"{say.parameters(facts.parameters)}, {say.size(facts.stored_bytes)}, {facts.architecture.removesuffix('ForCausalLM')} architecture",
             f"{facts.layers} layers, {facts.vocab:,} tokens in the vocabulary, reads up to {facts.context:,}"]
    return tag("div", [tag("p", line, class_="wb-note") for line in lines])


def task_line(task: str) -> Markup:
    """What the task asks, with one example as it is asked."""
    found = TASKS.get(task)
    if found is None:
        return Markup("")
    example = [] if task == "data" else [
        tag("p", tag("span", "For example "), tag("code", _cut(found.example.question)), tag("span", "gold "),
            tag("code", _cut(str(found.example.answer))), class_="wb-example")]
    return tag("div", tag("p", found.about, class_="wb-note"), example)


def chance(checked: Checked, base: float | None) -> Markup:
    """How likely a group of G has both right and wrong samples: only such groups teach. The axis is the slider's."""
    config = checked.config
    chosen = config.num_generations if config else 8
    most = max(MOST_SAMPLES, chosen)
    shares = [base] if base is not None else [0.05, 0.2, 0.5]
    sizes = sorted({*range(2, 17), *range(2, most + 1, max(1, most // 64)), most, chosen})
    curves = [pictures.Curve([(size, mixed(share, size)) for size in sizes], "ink2", f"{say.percent(share)} right") for share in shares]
    ticks = [(float(size), str(size)) for size in (2, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096) if size == 2 or most / 8 <= size <= most]
    share = shares[len(shares) // 2]
    mark = (float(chosen), mixed(share, chosen), f"{say.percent(mixed(share, chosen))} at G = {chosen}")
    known = f"one is right in {say.percent(base)} of cases" if base is not None else "by how often one sample is right"
    return tag("div", tag("p", f"Chance that a group has both right and wrong samples: {known}", class_="wb-note"),
               pictures.plot(curves, pictures.Axis(2, most, ticks), pictures.Axis(0, 1, [(0, "0 %"), (0.5, "50 %"), (1, "100 %")]), 140,
                             f"{mark[2]}: chance that a group has both right and wrong samples", mark), class_="wb-slider-plot")


def mixed(share: float, size: int) -> float:
    """Chance that `size` samples, each right with probability `share`, are neither all right nor all wrong: 1 - p^G - (1-p)^G."""
    return 1.0 - share**size - (1.0 - share) ** size


def beta_line(checked: Checked) -> Markup:
    """What the choice of beta means: in words, and as what a token pays for having drifted."""
    config = checked.config
    if config is None:
        return Markup("")
    if config.beta == 0:
        words = "No pull: answers may drift as far from the base model as the reward takes them."
        words += " Drift is still measured." if config.record_kl else " Drift is not measured either."
    else:
        where = "the loss" if config.kl_in == "loss" else "each sample's reward"
        words = f"{config.beta:g} × KL(policy ‖ base), {config.kl_estimator} estimate, goes into {where}."
        if config.beta >= STRONG_BETA:
            words += " This strong a pull usually freezes the model near its start."
    return tag("div", tag("p", words, class_="wb-note"), _pull(config))


def _pull(config: RunConfig) -> Markup:
    """beta times the KL estimate of one token, over how much likelier the policy made it than the base model."""
    doublings = np.linspace(-3, 3, 49)
    paid, _ = weights.kl_term(doublings * math.log(2), np.zeros_like(doublings), config.kl_estimator)
    shown = [(config.beta, "plum", f"β {config.beta:g}")] if config.beta else [(0.0, "plum", "β 0: free"), (PAPER_BETA, "ink3", "β .04: paper")]
    curves = [pictures.Curve(list(zip(doublings.tolist(), (beta * paid).tolist(), strict=True)), css, label) for beta, css, label in shown]
    high = max(value for curve in curves for _, value in curve.points) or 1.0
    low = min(0.0, *(value for curve in curves for _, value in curve.points))
    x = pictures.Axis(-3, 3, [(-3, "÷ 8"), (0, "as in the base model"), (3, "× 8")])
    y = pictures.Axis(low, high, [(value, form.compact(value)) for value in (0.0, _round(high / 2), _round(high))])
    alt = f"A token eight times likelier than in the base model pays {config.beta * float(paid[-1]):.3g} nats"
    return tag("div", tag("p", "What a token pays, in nats, once the policy has made it rarer or likelier", class_="wb-note"),
               pictures.plot(curves, x, y, 122, alt))


def _round(value: float) -> float:
    """Down to one figure, for ticks that lie inside the plot."""
    step = 10.0 ** math.floor(math.log10(value))
    return math.floor(value / step) * step


def choices(checked: Checked) -> Markup:
    """The algorithm in one line."""
    if checked.config is None:
        return Markup("")
    return tag("p", [tag("span", f"{name}: ", tag("b", value)) for name, value in say.losses(checked.config)], class_="wb-choices")


def rail(checked: Checked, expected: expect.Expected | None) -> Markup:
    """What to expect, how long it takes, whether it fits."""
    config, facts = checked.config, checked.facts
    if config is None:
        return Markup("")
    return join([_expected(config, expected), _time(config, facts, expected), _memory(config, facts)])


def problem_list(problems: Mapping[str, str]) -> Markup:
    """Every sentence once more beside the button; form.js copies each to its field."""
    if not problems:
        return Markup("")
    items = [tag("li", tag("a", _label(name), href=f"#f-{name}"), tag("span", sentence), data_setting=name, data_sentence=sentence)
             for name, sentence in problems.items()]
    return tag("div", tag("h3", "Before this can start"), tag("ul", items), class_="wb-panel wb-problems", role="status")


def _expected(config: RunConfig, expected: expect.Expected | None) -> Markup:
    if expected is None:
        return _panel("What to expect", tag("p", "Nothing is recorded for these settings yet. The base model is checked on "
                                            f"{say.plural(config.eval_problems, 'held-out problem')} before the first step, so every gain shows."))
    last = max(curve.points[-1][0] for curve in expected.curves)
    curves = [pictures.Curve(curve.points, "accent" if i == 0 else "r3", f"{say.figure(curve.points[-1][1])} seed {curve.seed}", dots=True)
              for i, curve in enumerate(expected.curves)]
    ticks = [(float(step), str(step)) for step in range(0, last + 1, max(1, round(last / 5)))]
    grown = (f"Answers grow from {expected.lengths[0]:.0f} to {expected.lengths[1]:.0f} tokens. " if expected.lengths and
             expected.lengths[1] > expected.lengths[0] else "")
    words = tag("p", grown + expected.note) if grown or expected.note else None
    return _panel("What to expect", tag("p", expected.source),
                  pictures.plot(curves, pictures.Axis(0, last, ticks), pictures.Axis(0, 1, [(0, "0"), (0.5, ".5"), (1, "1")]), 150,
                                "Held-out accuracy by step"), words)


def _time(config: RunConfig, facts: ModelFacts | None, expected: expect.Expected | None) -> Markup:
    guess = estimate.seconds(config, facts)
    if expected is not None and expected.seconds is not None:
        source = "Measured in the runs above" if expected.curves else "Measured"
        phases = expected.phases or (guess._asdict() if guess else {})
        title, whole = f"Time: {say.about(expected.seconds)}", expected.seconds
    elif guess is not None:
        source, phases = "From the rate measured on one quiet core", guess._asdict()
        title, whole = f"Time: {say.about(guess.total)}", guess.total
    else:
        return _panel("Time: not known yet", tag("p", "Nobody has measured this model here. A dry run takes one step on the longest prompts and "
                                                 "tells."))
    scale = whole / (sum(phases.values()) or 1.0)
    parts = [(f"{name} {say.short(value * scale)}", value, css) for (name, value), css in zip(phases.items(), _TIME_CSS, strict=False)]
    return _panel(title, tag("p", f"{source}; {say.plural(config.steps, 'step')}."), pictures.bar(parts) if parts else None)


def _memory(config: RunConfig, facts: ModelFacts | None) -> Markup:
    device = estimate.device(config.device)
    if facts is None:
        return _panel(f"Memory: unknown of {say.size(device.bytes)}", tag("p", "Known once the model is on this machine."))
    need = estimate.memory(config, facts)
    update = need.gradients + need.logits + need.activations
    moment = ("update", update) if update >= need.kv_cache else ("sampling", need.kv_cache)
    weights = need.weights + need.reference
    parts = [("PyTorch", need.runtime), ("weights" + (" and reference" if need.reference else ""), weights), ("optimiser", need.optimizer), moment]
    drawn = [(f"{name} {say.size(count)}", float(count), css) for (name, count), css in zip(parts, _MEMORY_CSS, strict=True)]
    warning = say.memory(need, device.bytes)
    return _panel(f"Memory: {say.size(need.total)} of {say.size(device.bytes)}",
                  tag("p", f"Estimated for {device.name}, with every answer at {config.max_completion_length} tokens."),
                  pictures.bar(drawn, max(float(device.bytes), float(need.total))), tag("p", warning, class_="wb-warning") if warning else None)


def _panel(title: str, *content: Markup | None) -> Markup:
    return tag("section", tag("h3", title), content, class_="wb-panel")


def _label(name: str) -> str:
    info = form.INFOS.get(name)
    return f"{info.label} ({SECTIONS[info.section]})" if info and not info.core else info.label if info else name


def _cut(text: str, most: int = 80) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
