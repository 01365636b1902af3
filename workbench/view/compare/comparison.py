"""Two or more runs compared: settings that differ, curves, and samples of the same prompts.

In: the store and run ids. Out: plain JSON values for the page's routes.
"""

from collections.abc import Sequence
from typing import Any

from workbench import launch
from workbench.core.config import RunConfig, settings
from workbench.core.errors import RunError
from workbench.record.reader import Reader
from workbench.view.common.curves import HELDOUT_METRICS, heldout_evaluations, run_status, thin
from workbench.view.common.run_header import is_binary, reward_range
from workbench.view.common.run_store import RunStore
from workbench.view.common.visits import SHOWN_CHARACTERS

Json = dict[str, Any]
MAX_RUNS = 6
CURVES = (
    "reward", "accuracy", "frac_reward_zero_std", "completions/mean_length", "entropy", "kl", "grad_norm", "beta",
)  # fmt: skip
_NOT_COMPARED = {"run_name", "wandb", "wandb_project", "device", "threads"}
"""Settings without influence on training."""


def compare(store: RunStore, runs: Sequence[str]) -> Json:
    """Everything that the page shows except samples. Raises RunError for fewer than two runs, or too many."""
    chosen = list(dict.fromkeys(runs))
    if not 2 <= len(chosen) <= MAX_RUNS:
        raise RunError(f"{len(chosen)} runs were given. Compare takes 2 to {MAX_RUNS} different ones.")
    readers = [store.reader(run) for run in chosen]
    return {
        "runs": [_run(reader) for reader in readers],
        "differences": differences([reader.config for reader in readers]),
        "changes": [_changes(reader) for reader in readers],
        "prompts": common(readers),
    }


def _run(reader: Reader) -> Json:
    config = reader.config
    found = reader.series(names=[*CURVES, *HELDOUT_METRICS])
    train = found["train"]
    steps = train.pop("step")
    order = sorted(range(len(steps)), key=lambda i: int(steps[i]))
    kept = [order[i] for i in thin([steps[i] for i in order], [train["reward"][i] for i in order])]
    return {
        "id": reader.folder.id,
        "name": config.run_name,
        "parent": reader.folder.about().get("parent"),
        "status": run_status(launch.state(reader.folder)),
        "binary": is_binary(config),
        "reward_range": reward_range(config),
        "steps": [steps[i] for i in kept],
        "metrics": {name: [values[i] for i in kept] for name, values in train.items()},
        "checks": heldout_evaluations(found),
    }


def differences(configs: Sequence[RunConfig]) -> list[Json]:
    """The settings that are not the same in every run, core ones first: {"name", "label", "values"}."""
    found = []
    for info in sorted(settings(), key=lambda info: not info.core):
        if info.name in _NOT_COMPARED:
            continue
        values = [getattr(config, info.name) for config in configs]
        if any(value != values[0] for value in values):
            found.append(
                {"name": info.name, "label": info.label, "values": [_plain(value) for value in values]}
            )
    return found


def _plain(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return ", ".join(
        f"{spec.name} × {spec.weight:g}{'' if spec.enabled else ' (recorded only)'}" for spec in value
    )


def _changes(reader: Reader) -> list[Json]:
    """Settings that were changed during the run: {"step", "text"}."""
    return [
        {
            "step": event["step"],
            "text": ", ".join(
                f"{name} {_figure(change['from'])} → {_figure(change['to'])}"
                for name, change in event["data"].items()
                if isinstance(change, dict) and "to" in change and name != "rewards"
            )
            or "rewards",
        }
        for event in reader.events(kind="setting_changed")
    ]


def _figure(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def common(readers: Sequence[Reader]) -> list[Json]:
    """The prompts that all runs have in common, watched ones first: {"prompt_id", "question", "answer", "watched"}."""
    first, *rest = ({prompt["prompt_id"]: prompt for prompt in reader.prompts()} for reader in readers)
    watched = set.intersection(*({*reader.watched()} for reader in readers))
    shared = [prompt for name, prompt in first.items() if all(name in other for other in rest)]
    found = [{**prompt, "watched": prompt["prompt_id"] in watched} for prompt in shared]
    return sorted(found, key=lambda prompt: not prompt["watched"])[:200]


def completions(store: RunStore, runs: Sequence[str], prompt_id: str, step: int | None) -> Json:
    """The same prompt in each run: its last visit up to `step` (None: the newest) with the samples, and the number of right samples
    at every visit. Visits are held-out evaluations where the run has some of this prompt, else training steps."""
    return {
        "prompt_id": prompt_id,
        "runs": [{"id": run, **_visit(store.reader(run), prompt_id, step)} for run in dict.fromkeys(runs)],
    }


def _visit(reader: Reader, prompt_id: str, step: int | None) -> Json:
    visits = reader.prompt_history(prompt_id)
    evaluated = [visit for visit in visits if visit["kind"] == "eval" and visit["mode"] == "sampled"]
    visits = evaluated or [visit for visit in visits if visit["kind"] == "train"]
    past = [visit for visit in visits if step is None or visit["step"] <= step] or visits[:1]
    history = [
        {"step": v["step"], "right": v["right"], "n": v["n"], "reward": v["reward_mean"]} for v in visits
    ]
    if not past:
        return {"visit": None, "history": history}
    visit = past[-1]
    samples = [
        {
            "index": sample["i"],
            **{name: sample[name] for name in ("reward", "right", "length", "advantage")},
            "text": sample["text"][:SHOWN_CHARACTERS],
        }
        for sample in visit["samples"]
    ]
    return {
        "visit": {**{name: visit[name] for name in ("step", "kind", "mode", "k", "n")}, "samples": samples},
        "history": history,
    }
