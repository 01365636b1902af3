"""The workbench from a notebook or a script: start a run, open one, try and rescore with rewards of your own.

`import workbench` offers these names lazily. Everything here goes through the same run folder as the
dashboard and the command line; what one does with a run is in `run.py`.
"""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import launch
from workbench.core import estimate
from workbench.core.config import RewardSpec, RunConfig
from workbench.core.errors import ConfigError, RewardError, RunError
from workbench.core.presets import presets
from workbench.core.types import GroupKind
from workbench.diagnose import rescoring
from workbench.launch import preflight
from workbench.prompts import TASKS
from workbench.record import folder as record
from workbench.record import provenance
from workbench.rewards import trial
from workbench.rewards.api.decorator import reward
from workbench.run import RewardLike, Run, reward_specs

if TYPE_CHECKING:
    import pandas

__all__ = [
    "TASKS",
    "RewardSpec",
    "Run",
    "RunConfig",
    "embedded_model",
    "open_run",
    "presets",
    "rescore",
    "reward",
    "runs",
    "start",
    "try_reward",
]


def start(
    config: RunConfig | None = None,
    *,
    preset: str | None = None,
    runs: Path | str = "runs",
    rewards: Mapping[RewardLike, float] | Iterable[RewardLike] | None = None,
    **settings: Any,
) -> Run:
    """Start a run in the background and return it.

    From a RunConfig, or from a preset (`embedded` where none is named) with settings by name. `rewards`:
    names, file.py:function or functions of your own, with weights as a mapping: `{"correct": 1.0, my_reward:
    0.2}`. Raises ConfigError with a sentence per setting; nothing is started then.
    """
    if config is not None and (preset or settings):
        raise ConfigError(
            "Give a RunConfig, or a preset with settings; not both. `config.changed(steps=10)` changes a "
            "RunConfig."
        )
    if rewards is not None:
        settings["rewards"] = reward_specs(rewards)
    config = RunConfig.build(preset, settings) if config is None else config.changed(**settings)
    return Run(preflight.start(config, runs))


def try_reward(
    reward: RewardLike, samples: "Run | Iterable[Any] | pandas.DataFrame", **options: Any
) -> "pandas.DataFrame":
    """Score samples with a reward as a run would: its source is saved, and that copy runs in a process of its
    own.

    `samples`: a Run (the completions of its newest step), texts, rows with at least `completion` (`prompt`,
    `answer` and columns beside it), or a frame of such rows. One row a sample comes back: completion, value
    (NaN: none), reason. What was guessed from the reward's code is warned of, and in `frame.attrs["guessed"]`. Raises RewardError.
    """
    import pandas as pd  # noqa: PLC0415 (only this needs it)

    name: Any = reward.name if isinstance(reward, RewardSpec) else reward
    rows = _rows(samples)
    scores, guessed = trial.try_reward(name, rows, options=options)
    found = pd.DataFrame(rows)
    found["value"] = [next(iter(score.values.values())) for score in scores]
    found["value"] = found["value"].astype("float64")
    found["reason"] = [next(iter(score.reasons.values()), "") for score in scores]
    found.attrs["guessed"] = guessed
    for sentence in guessed:
        warnings.warn(sentence, stacklevel=2)
    return found


def rescore(
    run: "Run | str | Path",
    reward: rescoring.Rewards,
    *,
    steps: tuple[int, int] | None = None,
    kind: GroupKind = "train",
    runs: Path | str = "runs",
    **options: Any,
) -> "pandas.DataFrame":
    """Score a run's recorded completions again: what another reward would have reinforced instead.

    `reward` in any form, or several as a list or with weights as a mapping; they alone make the new reward.
    `steps`: first and last to look at. One row a completion: step, k, prompt_id, question, `answer`, i, text, reward
    and new_reward, a column `rewards/<name>` for each new reward, advantage and new_advantage (under the run's own
    settings), place and new_place in its group, flip (pushed the other way) and reason. `frame.attrs["summary"]`
    counts what changed. Raises RewardError, RunError.
    """
    run = run if isinstance(run, Run) else open_run(run, runs)
    since, until = steps if steps is not None else (None, None)
    found = rescoring.rescore(
        run.reader, reward, since=since, until=until, kind=kind, options=options or None
    )
    return found.frame()


def _rows(samples: Any) -> list[dict[str, Any]]:
    if isinstance(samples, Run):
        step = samples.reader.last_step()
        if step is None:
            raise RunError(f"Run {samples.id} has no step yet, so there are no samples to try on.")
        groups = [samples.reader.group(step, row["k"]) for row in samples.reader.groups(step)]
        return [
            {
                "group": group["group"], "prompt": group["question"], "answer": group["answer"],
                "completion": sample["text"], "columns": group["columns"], "length": sample["length"],
                "finish_reason": sample["finish_reason"], "tokens": sample["token_ids"],
            }
            for group in sorted(groups, key=lambda group: int(group["group"]))
            for sample in group["samples"]
        ]  # fmt: skip
    if hasattr(samples, "to_dict"):
        return [dict(row) for row in samples.to_dict("records")]
    return [_row(number, sample) for number, sample in enumerate(samples)]


def _row(number: int, sample: Any) -> dict[str, Any]:
    if isinstance(sample, str):
        return {"completion": sample}
    if isinstance(sample, Mapping):
        return dict(sample)
    raise RewardError(
        f"sample {number} is a {type(sample).__name__}. Give a text, or a row with at least {{'completion': text}}."
    )


def open_run(run: str | Path, runs: Path | str = "runs") -> Run:
    """A run by its id below `runs`, or by its path. Raises RunError."""
    return Run(record.find(run, runs))


def runs(root: Path | str = "runs") -> list[Run]:
    """All runs, newest first."""
    return [Run(folder) for folder in record.folders(root)]


def embedded_model() -> Path:
    """Folder of the base model that ships with the workbench; `AutoModelForCausalLM.from_pretrained` loads
    it."""
    return estimate.EMBEDDED


def machine(root: Path | str = "runs") -> dict[str, Any]:
    """What this machine offers: versions, processor, memory, devices, and what is busy below `root`."""
    device = estimate.device()
    return {
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "device": launch.device_kind("auto"),
        "device_name": device.name,
        "device_bytes": device.bytes,
        "runs": str(Path(root).absolute()),
        "busy": [one.id for one in launch.runs(root) if one.alive],
    }
