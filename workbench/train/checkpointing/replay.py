"""What a resumed run must repeat from its record: later changes of live settings, and scores that came from a server or a person.

In: the run's record and the finished steps of its checkpoint. Out: the changes due at a step, and the scores a completion got then.
Everything else follows from seeds.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from workbench.core.types import Score
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.record.rows import clean
from workbench.rewards.api.reward_input import RewardInput

CHANGES = ("set",)
"""Commands that change what later steps do."""


class Change(NamedTuple):
    """A command that took effect at a boundary, before step `step`."""

    step: int
    args: dict[str, Any]


class Replay:
    """What lies in the record beyond `first` finished steps. Read once, before the record goes on."""

    def __init__(self, folder: RunFolder, first: int) -> None:
        self._reader = Reader(folder)
        self.changes = later_changes(self._reader.events(kind="command", limit=2**31), first)
        reached = self._reader.furthest_step()
        self.last = -1 if reached is None else reached
        self.begun = reached is not None
        """Whether anything was recorded before."""
        self.checked = all(first in self._reader.steps("eval", mode) for mode in ("sampled", "greedy"))
        """Whether the held-out check at `first` is in the record: the checkpoint was written after it."""
        self._first = first
        self._scores: tuple[int, dict[tuple[str, str], deque[Score]]] = (-1, {})

    def due(self, step: int) -> dict[str, Any]:
        """The settings that changed at this boundary then, as their last change left them."""
        found: dict[str, Any] = {}
        for change in self.changes:
            if change.step == step:
                found |= change.args
        return found

    def forget(self, step: int, names: Iterable[str]) -> None:
        """A new command for these settings came: what was recorded for them from this step on is not repeated."""
        self.changes = without(self.changes, step, names)

    def scores(self, step: int, group: RewardInput, names: Collection[str]) -> list[Score] | None:
        """The recorded results of these rewards for a group in this step; None unless there is one for every completion (the step was
        not finished, the completions differ now, or dynamic sampling replaced the group)."""
        if not self._first <= step <= self.last:
            return None
        if self._scores[0] != step:
            self._scores = step, self._read(step)
        known = self._scores[1]
        keys = [(group["id"], clean(text)) for text in group["completions"]]
        if any(len(known.get(key, ())) < count for key, count in Counter(keys).items()):
            return None
        found = [known[key].popleft() for key in keys]
        if any(name not in part.values for part in found for name in names):
            return None
        return [
            Score(
                {name: part.values[name] for name in names},
                {name: reason for name, reason in part.reasons.items() if name in names},
                logs=part.logs,
            )
            for part in found
        ]

    def knows(self, step: int, completions: Collection[tuple[str, str]]) -> bool:
        """Whether all these completions (prompt id, text) were scored in this step before."""
        return (
            self._first <= step <= self.last
            and {(prompt_id, clean(text)) for prompt_id, text in completions} <= self._read(step).keys()
        )

    def _read(self, step: int) -> dict[tuple[str, str], deque[Score]]:
        found: dict[tuple[str, str], deque[Score]] = {}
        for row in self._reader.scores(step):
            part = Score(row["values"], row["reasons"], logs=row["logs"])
            found.setdefault((row["prompt_id"], row["text"]), deque()).append(part)
        return found


def later_changes(events: list[dict[str, Any]], first: int) -> list[Change]:
    """The changes of settings at boundaries from `first` on, over all attempts of a run, in the order in which they take effect.

    A later attempt's change of a setting stands in for what earlier ones did to it from that step on.
    """
    found: list[Change] = []
    for event in events:
        data, step = event["data"], event["step"]
        if data.get("command") in CHANGES and data.get("ok") and step is not None and step >= first:
            found = [*without(found, step, data["args"]), Change(step, dict(data["args"]))]
    return found


def without(changes: list[Change], step: int, names: Iterable[str]) -> list[Change]:
    """`changes`, but none of the settings `names` from `step` on."""
    names = set(names)
    kept = [
        change
        if change.step < step
        else change._replace(args={name: value for name, value in change.args.items() if name not in names})
        for change in changes
    ]
    return [change for change in kept if change.args]
