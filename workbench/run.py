"""A run as a notebook or a script holds it: follow it, change it, look into its groups.

In: a run folder. Out: frames, pictures, and commands for its inbox.
"""

import importlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import launch
from workbench.core.config import RewardSpec, RunConfig
from workbench.core.errors import RunError
from workbench.core.types import GroupKind
from workbench.diagnose import agreement, rescoring
from workbench.launch import RunState, probe_client, steer
from workbench.launch.follow import follow, summary
from workbench.record import preferences
from workbench.record.folder import RunFolder
from workbench.record.notes import Notes
from workbench.record.rating import rate
from workbench.record.reader import Reader
from workbench.record.search import Filters, Sort
from workbench.rewards.api.decorator import declared, reward

if TYPE_CHECKING:
    import pandas

RewardLike = str | RewardSpec | Callable[..., Any]


class Group(dict[str, Any]):
    """A group as data, and as a picture: in a notebook it is drawn by the dashboard's own reader."""

    def __init__(self, folder: RunFolder, kind: GroupKind, data: Mapping[str, Any]) -> None:
        super().__init__(data)
        self._folder, self._kind = folder, kind

    def _repr_html_(self) -> str | None:
        if self._kind != "train":  # the picture shows advantages, which evaluations have not
            return None
        from workbench.view.reader import embed  # noqa: PLC0415 (Gradio takes seconds; only a picture needs it)

        return embed.frame(embed.group_page(self._folder, self["step"], self["group"]))


class Run:
    """One run: what it is now, what it has recorded, and the commands one can send it."""

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
        return probe_client.final_model(self.folder)

    def summary(self) -> dict[str, Any]:
        """Held-out accuracy and completion length at both ends, in one dict."""
        return summary(self.folder)

    def log(self, lines: int = 40) -> list[str]:
        """The last lines its process wrote."""
        return launch.logs(self.folder, lines)

    # -- what it has recorded ------------------------------------------------------------------------------

    def metrics(self, *names: str) -> "pandas.DataFrame":
        """One row a recorded step or evaluation, one column a metric."""
        return self.reader.metrics(list(names) or None)

    def samples(self, step: int | None = None, kind: str = "train") -> "pandas.DataFrame":
        """One row a completion: its text, reward and its parts, advantage, length, log-probability, KL. All
        steps, or one."""
        return self.reader.samples(step, kind)  # type: ignore[arg-type]

    def search(
        self, text: str = "", sort: Sort = "newest", limit: int = 1000, **filters: Any
    ) -> "pandas.DataFrame":
        """Completions that hold `text`, or whose prompt does, as a frame. `filters`: the fields of
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
        """All completions of one prompt in one step, with token ids and per-token figures: a dict that a notebook
        draws as the dashboard does. `k`: the group's number, or its prompt: the question or the prompt's id."""
        number = k if isinstance(k, int) else 0
        if isinstance(k, str):
            rows = self.reader.groups(step, kind)
            found = [row["k"] for row in rows if k in (row["prompt_id"], row["question"])]
            if not found:
                others = ", ".join(repr(row["question"][:40]) for row in rows[:5])
                raise RunError(f"Step {step} has no prompt {k[:80]!r}. It has, among others: {others}.")
            number = int(found[0])
        return Group(self.folder, kind, self.reader.group(step, number, kind, arrays=True))

    def html(self, path: Path | str, max_mb: float = 12.0) -> str:
        """Write the run as a page in one file that opens anywhere without a server: every curve, and as many
        steps with their groups as `max_mb` holds. Returns a sentence that says which."""
        from workbench.view.reader import embed  # noqa: PLC0415 (as in Group: only a picture needs it)

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
        from workbench.view.reader import embed  # noqa: PLC0415 (as in Group)

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
        """What happened to the run: commands and their replies, changed settings, checkpoints."""
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
        return self.send("pause")

    def resume(self, *, warm_start: bool = False, **settings: Any) -> str:
        """Go on: after a pause, or in a new process from the last complete checkpoint, exactly as if it had never
        stopped. `settings` change before the next step; `warm_start` goes on although something was lost."""
        if self.state.over:
            if "rewards" in settings:
                settings["rewards"] = reward_specs(settings["rewards"])
            commands = steer.commands_for(self.folder, settings) if settings else []
            launch.resume(self.folder, commands=commands, warm_start=warm_start)
            return f"goes on from step {self.state.step}"
        if settings:
            self.set(**settings)
        return self.send("resume")

    def rate(
        self, step: int, k: int, sample: int, good: bool | None = None, *, place: int | None = None,
        kind: GroupKind = "train",
    ) -> None:  # fmt: skip
        """Rate a completion as good or bad, or give it its place in the group (1 the best); neither takes the rating
        back."""
        rate(self.reader, step, k, sample, good, place=place, kind=kind)

    def ratings(self) -> "pandas.DataFrame":
        """Human ratings of completions: one row a rating."""
        import pandas as pd  # noqa: PLC0415 (only this needs it)

        rows = [{**rating.visit._asdict(), **rating._asdict()} for rating in Notes(self.folder).ratings()]
        return pd.DataFrame(
            rows, columns=["step", "kind", "mode", "prompt_id", "text", "thumb", "place", "time"]
        )

    def preferences(self, path: Path | str) -> int:
        """Write the ratings as preference pairs (JSON lines: prompt, chosen, rejected) and return how many."""
        return preferences.export(self.reader, Path(path).expanduser())

    def agreement(self, reward: rescoring.Rewards) -> agreement.Agreement:
        """How far a reward agrees with the human ratings, and where it does not."""
        return agreement.agreement(self.reader, reward)

    def stop(self, grace: float | None = None) -> RunState:
        """End after this step, with a checkpoint; by force once `grace` seconds are over."""
        return launch.stop(self.folder, grace)

    def checkpoint(self) -> str:
        """Write a checkpoint at the next step boundary."""
        return self.send("checkpoint")

    def set(self, **settings: Any) -> str:
        """Change live settings (beta, learning_rate, temperature, rewards, ...) from the next step on. Rewards may be names,
        files or functions, as for `start`; their code is sent along."""
        if "rewards" in settings:
            settings["rewards"] = reward_specs(settings["rewards"])
        return _text_of(steer.send_and_wait(self.folder, settings))

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

    def send(self, command: str, args: Mapping[str, Any] | None = None, timeout: float = 600.0) -> str:
        """Send a command and wait for its reply; returns its text. Raises RunError where it is refused or the run ends
        first."""
        return _text_of(launch.send_and_wait(self.folder, command, args, timeout))

    tell = send
    """The name of `send` in earlier versions."""

    def sample(
        self, prompt: str, n: int = 4, *, step: int | None = None, base: bool = False, **sampling: Any
    ) -> "pandas.DataFrame":
        """Fresh completions of a prompt of your own, from the run as it is, its final model, or a checkpoint;
        with `base` beside those of the model it began with."""
        import pandas as pd  # noqa: PLC0415 (only this needs it)

        found = probe_client.sample(self.folder, prompt, n, step=step, base=base, **sampling)
        frames = {"run": found["samples"], **({"base": found["base"]} if base else {})}
        return pd.concat(
            [pd.DataFrame(rows).assign(model=name) for name, rows in frames.items()], ignore_index=True
        )

    def export(self, model: Path | str, step: int | None = None, merge: bool = False) -> Path:
        """Write the model as a plain Hugging Face folder: the final one, or that of a checkpoint."""
        return export(self.folder, model, step, merge)


def _text_of(reply: Mapping[str, Any]) -> str:
    """The text of a reply. Raises RunError where the command was refused."""
    if not reply["ok"]:
        raise RunError(str(reply["text"]))
    return str(reply["text"])


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


def export(folder: RunFolder, model: Path | str, step: int | None = None, merge: bool = False) -> Path:
    """See `Run.export`. Loads torch."""
    target = Path(model).expanduser().absolute()
    # Only here: the rest of the notebook API stays free of torch.
    from workbench.train.checkpointing.export import export as write  # noqa: PLC0415

    write(folder, target, step, merge)
    return target
