"""The workbench from a notebook or a script: start a run, open one, follow it, steer it, look into its
groups.

`import workbench` offers these names lazily. Everything here goes through the same run folder as the
dashboard and the command line.
"""

import importlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import agreement, bench, estimate, launch, preflight, rescoring, steer
from workbench.config import RewardSpec, RunConfig
from workbench.errors import ConfigError, RunError
from workbench.follow import follow, summary
from workbench.launch import RunState
from workbench.presets import presets
from workbench.prompts import TASKS
from workbench.record import folder as record
from workbench.record import origin, preferences
from workbench.record.folder import RunFolder
from workbench.record.notes import Notes
from workbench.record.rating import rate
from workbench.record.reader import Reader
from workbench.record.search import Filters, Sort
from workbench.rewards import trial
from workbench.rewards.declare import declared, reward
from workbench.types import GroupKind

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

RewardLike = str | RewardSpec | Callable[..., Any]


class Group(dict[str, Any]):
    """A group as data, and as a picture: in a notebook it is drawn by the dashboard's own reader."""

    def __init__(self, folder: RunFolder, kind: GroupKind, data: Mapping[str, Any]) -> None:
        super().__init__(data)
        self._folder, self._kind = folder, kind

    def _repr_html_(self) -> str | None:
        if self._kind != "train":  # checks ask nothing, so there is no lens to show
            return None
        from workbench.view import embed  # noqa: PLC0415 (Gradio takes seconds; only a picture needs it)

        return embed.frame(embed.group_page(self._folder, self["step"], self["group"]))


class Run:
    """One run: what it is now, what it has recorded, and the wishes one can send it."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.reader = Reader(folder)

    def __repr__(self) -> str:
        now = self.state
        why = f", {now.reason}" if now.reason else ""
        return f"<Run {now.id}: {now.state}, step {now.step} of {now.steps}{why}>"

    # -- what it is ----------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Unique below its runs root."""
        return self.folder.id

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.folder.path

    @property
    def state(self) -> RunState:
        """What it is doing now."""
        return launch.state(self.folder)

    @property
    def config(self) -> RunConfig:
        """The settings it was started with."""
        return self.folder.config()

    @property
    def final_model(self) -> Path | None:
        """A plain Hugging Face folder with the trained model; None before the run has written it."""
        return (
            self.folder.final
            if (self.folder.final / "config.json").exists()
            or (self.folder.final / "adapter_config.json").exists()
            else None
        )

    def summary(self) -> dict[str, Any]:
        """Held-out accuracy and answer length at both ends, in one dict."""
        return summary(self.folder)

    def log(self, lines: int = 40) -> list[str]:
        """The last lines its process wrote."""
        return self.folder.log_tail(lines)

    # -- what it has recorded ------------------------------------------------------------------------------

    def metrics(self, *names: str) -> "pandas.DataFrame":
        """One row a recorded step or check, one column a metric."""
        return self.reader.metrics(list(names) or None)

    def samples(self, step: int | None = None, kind: str = "train") -> "pandas.DataFrame":
        """One row an answer: its text, reward and its parts, advantage, length, log-probability, KL. All
        steps, or one."""
        return self.reader.samples(step, kind)  # type: ignore[arg-type]

    def search(
        self, text: str = "", sort: Sort = "newest", limit: int = 1000, **filters: Any
    ) -> "pandas.DataFrame":
        """Answers that hold `text`, or whose question does, as a frame. `filters`: the fields of
        `record.search.Filters`, such as reward_min=0.5, finish_reason="length", words=("wait", "check")."""
        import pandas as pd  # noqa: PLC0415 (only this needs it)

        rows = [
            {
                **{k: v for k, v in hit.items() if k != "rewards"},
                **{f"rewards/{k}": v for k, v in hit["rewards"].items()},
            }
            for hit in self.reader.hits(text, Filters.of(filters), sort, limit)
        ]
        return pd.DataFrame(rows)

    def group(self, step: int, k: int | str = 0, kind: GroupKind = "train") -> "Group":
        """All answers to one prompt in one step, with token ids and per-token figures: a dict that a notebook
        draws as the dashboard does. `k`: the group's number, or its prompt: the question or the prompt's id."""
        number = k if isinstance(k, int) else 0
        if isinstance(k, str):
            rows = self.reader.groups(step, kind)
            found = [row["k"] for row in rows if k in (row["prompt_id"], row["question"])]
            if not found:
                asked = ", ".join(repr(row["question"][:40]) for row in rows[:5])
                raise RunError(f"Step {step} did not ask {k[:80]!r}. It asked, among others: {asked}.")
            number = int(found[0])
        return Group(self.folder, kind, self.reader.group(step, number, kind, arrays=True))

    def html(self, path: Path | str, max_mb: float = 12.0) -> str:
        """Write the run as a page in one file that opens anywhere without a server: every curve, and as many
        steps with their groups as `max_mb` holds. Returns a sentence that says which."""
        from workbench.view import embed  # noqa: PLC0415 (as in Group: only a picture needs it)

        page = embed.run_page(self.folder, int(max_mb * 2**20))
        Path(path).expanduser().write_text(page.html, encoding="utf-8")
        return page.words

    def live(self, every: float = 2.0) -> RunState:
        """In a notebook: draws the dashboard's overview here and draws it anew with every step, until the run is
        over. Interrupting ends only the watching. In a script it follows in words."""
        try:
            screen: Any = importlib.import_module("IPython.display")
        except ImportError:  # a script has no notebook
            return self.follow()
        from workbench.view import embed  # noqa: PLC0415 (as in Group)

        shown = None
        handle = screen.display(screen.HTML("<p>Waiting for the first step…</p>"), display_id=True)
        while True:
            now = self.state
            drawn = (self.reader.last_step(), now.state)
            if drawn != shown and handle is not None:
                shown = drawn
                handle.update(screen.HTML(embed.frame(embed.live_page(self.folder))))
            if now.over:
                return now
            time.sleep(every)

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What happened to the run: commands and their answers, changed settings, checkpoints."""
        return self.reader.events(kind=kind)

    def alarms(self, open_only: bool = False) -> "pandas.DataFrame":
        """What went wrong, newest first: one row an alarm with its claim, what it says, since when, the step at
        which it ended (missing: it goes on), and its remedies."""
        import pandas as pd  # noqa: PLC0415 (only frames need it)

        columns = [
            "name",
            "level",
            "claim",
            "text",
            "since_step",
            "last_step",
            "cleared_step",
            "evidence",
            "remedies",
        ]
        return pd.DataFrame(self.reader.alarms(open_only), columns=columns)

    # -- what one can do with it ---------------------------------------------------------------------------

    def follow(self, draw: bool = True) -> RunState:
        """Watch until it is over. Interrupting ends only the watching."""
        return follow(self.folder, draw)

    def pause(self) -> str:
        """Wait before the next step; the device stays taken."""
        return self.tell("pause")

    def resume(self, *, warm_start: bool = False, **settings: Any) -> str:
        """Go on: after a pause, or in a new process from the last whole checkpoint, exactly as if it had never
        stopped. `settings` change before the next step; `warm_start` goes on although something was lost."""
        if self.state.over:
            if "rewards" in settings:
                settings["rewards"] = reward_specs(settings["rewards"])
            orders = steer.orders(self.folder, settings) if settings else []
            launch.resume(self.folder, commands=orders, warm=warm_start)
            return f"goes on from step {self.state.step}"
        if settings:
            self.set(**settings)
        return self.tell("resume")

    def rate(
        self, step: int, k: int, sample: int, good: bool | None = None, *, place: int | None = None,
        kind: GroupKind = "train",
    ) -> None:  # fmt: skip
        """Say that an answer is good or bad, or give it its place in the group (1 the best); neither takes it
        back."""
        rate(self.reader, step, k, sample, good, place=place, kind=kind)

    def ratings(self) -> "pandas.DataFrame":
        """What people said about answers: one row a rating."""
        import pandas as pd  # noqa: PLC0415 (only this needs it)

        rows = [{**rating.visit._asdict(), **rating._asdict()} for rating in Notes(self.folder).ratings()]
        return pd.DataFrame(
            rows, columns=["step", "kind", "mode", "prompt_id", "text", "thumb", "place", "time"]
        )

    def preferences(self, path: Path | str) -> int:
        """Write the ratings as preference pairs (JSON lines: prompt, chosen, rejected) and return how many."""
        return preferences.export(self.reader, Path(path).expanduser())

    def agreement(self, reward: rescoring.Rewards) -> agreement.Agreement:
        """How far a reward goes along with what people said, and where it does not."""
        return agreement.agreement(self.reader, reward)

    def stop(self, grace: float | None = None) -> RunState:
        """End after this step, with a checkpoint; by force once `grace` seconds are over."""
        return launch.stop(self.folder, grace)

    def checkpoint(self) -> str:
        """Write a checkpoint at the next step boundary."""
        return self.tell("checkpoint")

    def set(self, **settings: Any) -> str:
        """Change live settings (beta, learning_rate, temperature, rewards, ...) from the next step on. Rewards may be names,
        files or functions, as for `start`; their code is sent along."""
        if "rewards" in settings:
            settings["rewards"] = reward_specs(settings["rewards"])
        answer = steer.ask(self.folder, settings)
        if not answer["ok"]:
            raise RunError(str(answer["text"]))
        return str(answer["text"])

    def fork(self, step: int, runs: Path | str | None = None, **settings: Any) -> "Run":
        """Start a run that goes on from this one's last checkpoint at or before `step` (0: from the base model) with other
        settings. Its `parent` says where it came from."""
        if "rewards" in settings:
            settings["rewards"] = reward_specs(settings["rewards"])
        return Run(steer.fork(self.folder, step, settings, runs))

    @property
    def parent(self) -> dict[str, Any] | None:
        """{"run", "step"} of the run this one was forked from; None for a run of its own."""
        found: dict[str, Any] | None = self.folder.about().get("parent")
        return found

    def tell(self, command: str, args: Mapping[str, Any] | None = None, timeout: float = 600.0) -> str:
        """Send a command and wait for its answer. Raises RunError where it is refused or the run ends
        first."""
        answer = launch.ask(self.folder, command, args, timeout)
        if not answer["ok"]:
            raise RunError(str(answer["text"]))
        return str(answer["text"])

    def sample(
        self, prompt: str, n: int = 4, *, step: int | None = None, base: bool = False, **sampling: Any
    ) -> "pandas.DataFrame":
        """Fresh answers to a prompt of your own, from the run as it is, its final model, or a checkpoint;
        with `base` beside those of the model it began with."""
        import pandas as pd  # noqa: PLC0415 (only this needs it)

        found = bench.sample(self.folder, prompt, n, step=step, base=base, **sampling)
        frames = {"run": found["samples"], **({"base": found["base"]} if base else {})}
        return pd.concat(
            [pd.DataFrame(rows).assign(model=name) for name, rows in frames.items()], ignore_index=True
        )

    def export(self, model: Path | str, step: int | None = None, merge: bool = False) -> Path:
        """Write the model as a plain Hugging Face folder: the final one, or that of a checkpoint."""
        return export(self.folder, model, step, merge)


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


def reward_specs(rewards: Mapping[RewardLike, float] | Iterable[RewardLike]) -> list[RewardSpec]:
    """Rewards as a run keeps them; functions without `@reward` are declared by the way."""
    pairs = rewards.items() if isinstance(rewards, Mapping) else [(item, None) for item in rewards]
    specs = []
    for item, weight in pairs:
        if isinstance(item, RewardSpec):
            spec = item
        elif callable(item):
            about = declared(item) or declared(reward(item))
            spec = RewardSpec(name=about.name if about else "")
        else:
            spec = RewardSpec.parse(item)
        specs.append(spec if weight is None else spec.model_copy(update={"weight": float(weight)}))
    return specs


def try_reward(
    reward: RewardLike, samples: "Run | Iterable[Any] | pandas.DataFrame", **options: Any
) -> "pandas.DataFrame":
    """Score samples with a reward as a run would: its source is saved, and that copy runs in a process of its
    own.

    `samples`: a Run (the answers of its newest step), texts, rows with at least `completion` (`prompt`,
    `answer` and columns beside it), or a frame of such rows. One row a sample comes back: completion, value
    (NaN: none), reason. Raises RewardError.
    """
    import pandas as pd  # noqa: PLC0415 (only this needs it)

    name: Any = reward.name if isinstance(reward, RewardSpec) else reward
    rows = _rows(samples)
    scores = trial.try_reward(name, rows, options=options)
    found = pd.DataFrame(rows)
    found["value"] = [next(iter(score.values.values())) for score in scores]
    found["value"] = found["value"].astype("float64")
    found["reason"] = [next(iter(score.reasons.values()), "") for score in scores]
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
    """Score a run's recorded answers again: what another reward would have asked of the model.

    `reward` in any form, or several as a list or with weights as a mapping; they alone make the new reward.
    `steps`: first and last to look at. One row an answer: step, k, prompt_id, question, answer, i, text, reward
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
    return [{"completion": sample} if isinstance(sample, str) else dict(sample) for sample in samples]


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
        "versions": origin.versions(),
        "hardware": origin.hardware(),
        "device": launch.device_kind("auto"),
        "device_name": device.name,
        "device_bytes": device.bytes,
        "runs": str(Path(root).absolute()),
        "busy": [one.id for one in launch.runs(root) if one.alive],
    }


def export(folder: RunFolder, model: Path | str, step: int | None = None, merge: bool = False) -> Path:
    """See `Run.export`. Loads torch."""
    target = Path(model).expanduser().absolute()
    # Only here: the rest of the notebook API stays free of torch.
    from workbench.export import export as write  # noqa: PLC0415

    write(folder, target, step, merge)
    return target
