"""The what-if drawer's questions: other settings over every recorded step, or over those whose tokens are kept.

In: a run and `name=value` texts. Out: plain JSON, the recorded ask and the other one side by side. What was
read of a record is kept, so that a second question costs only its arithmetic.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError
from workbench.diagnose import whatif, whatif_tokens
from workbench.record.arrays import SampleArrays
from workbench.record.reader import Reader
from workbench.view.whatif.scored import Scores

Json = dict[str, Any]
REMEMBERED = 8
"""Runs whose samples are kept in memory."""
TOKEN_SECONDS = 0.6
"""How long one answer about tokens may take; the rest follows when it is asked for."""
_NOTE = "What each recorded step would have asked for with these settings, not how the run would have gone."


class _Asked(NamedTuple):
    """Everything a question needs to know of a run."""

    samples: SampleArrays
    settings: list[tuple[int, RunConfig]]
    names: dict[str, str]
    changes: dict[str, str]
    token_changes: dict[str, str]


class WhatIf:
    """All runs' samples, as far as somebody asked. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, SampleArrays] = OrderedDict()
        self._lock = threading.Lock()
        self._scores = Scores()

    def samples(self, reader: Reader) -> SampleArrays:
        """The run's samples, brought up to date."""
        key = str(reader.folder.path)
        with self._lock:
            known = self._known.get(key)
            if known is None or reader.forgotten(known.cursor):
                known = reader.arrays()
            elif len((new := reader.arrays(known.cursor)).id_B):
                known = known + new
            self._known[key] = known
            self._known.move_to_end(key)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            return known

    def score(self, reader: Reader, reward: str) -> None:
        """Begins to score the recorded answers with a reward that the run never had. Raises RewardError."""
        self._scores.start(reader, reward)

    def answer(self, reader: Reader, sets: Sequence[str], step: int | None = None) -> Json:
        """The sample-level question over all recorded steps; with `step`, also what each of its answers
        would have been asked, by group. Raises ConfigError for what cannot be asked."""
        asked = self._asked(reader, sets)
        samples = asked.samples
        before = whatif.recorded(samples, asked.settings)
        other, scoring = self._ask(reader, asked)
        return {
            "steps": samples.steps().tolist(),
            "samples": len(samples.id_B),
            "recorded": dict(whatif.rounded(whatif.timeline(samples, before))),
            "asked": dict(whatif.rounded(whatif.timeline(samples, other))),
            "difference": dict(whatif.rounded(whatif.difference(samples, before, other))),
            "groups": None if step is None else _of_step(samples, other, step),
            "scoring": scoring,
            "note": _NOTE,
        }

    def tokens(self, reader: Reader, sets: Sequence[str], after: int = -1) -> Json:
        """The token-level question over the kept steps above `after`, as many as fit into one answer; `next`
        is where to go on, None at the end."""
        asked = self._asked(reader, sets)
        samples = asked.samples
        other, _ = self._ask(reader, asked)
        kept = [step for step in reader.token_steps() if step > after]
        found: Json = {"steps": [], "recorded": [], "asked": [], "moved": []}
        deadline = time.monotonic() + TOKEN_SECONDS
        last = None
        for step in kept:
            here_B = samples.step_B == step
            tokens_B = reader.step_tokens(step) if here_B.any() else None
            last = step
            if tokens_B is not None:
                config = _in_force(asked.settings, step)
                changed = config.changed(**asked.changes, **asked.token_changes)
                views = []
                for one, advantage_B, drawn_B in (
                    (config, np.nan_to_num(samples.advantage_B), np.ones_like(other.inside_B)),
                    (changed, other.advantage_B, other.inside_B),
                ):
                    left_out = (samples.cut_B == 1) & one.mask_truncated_completions | ~drawn_B
                    batch = whatif_tokens.batch(tokens_B, samples.group_B[here_B], left_out[here_B])
                    views.append(whatif_tokens.view(batch, advantage_B[here_B], one))
                found["steps"].append(step)
                found["recorded"].append(_view(views[0]))
                found["asked"].append(_view(views[1]))
                found["moved"].append(
                    round(0.5 * float(np.abs(views[0].share_B - views[1].share_B).sum()), 5)
                )
            if time.monotonic() > deadline:
                break
        more = last is not None and last != kept[-1]
        return {**found, "next": last if more else None, "of": len(samples.steps()), "note": _NOTE}

    def _asked(self, reader: Reader, sets: Sequence[str]) -> _Asked:
        about = reader.folder.about()
        config = reader.config
        labels = [source.get("name") for source in about.get("rewards", [])]
        names = {
            spec.name: str(label or spec.name.rpartition(":")[2])
            for spec, label in zip(config.rewards, [*labels, *[None] * len(config.rewards)], strict=False)
        }
        tokens = [text for text in sets if text.partition("=")[0] in whatif_tokens.TOKEN_SETTINGS]
        return _Asked(
            self.samples(reader),
            whatif.settings_over_time(reader),
            names,
            whatif.askable([text for text in sets if text not in tokens]),
            {name: value for name, _, value in (text.partition("=") for text in tokens)},
        )

    def _ask(self, reader: Reader, asked: _Asked) -> tuple[whatif.Ask, Json | None]:
        """The other ask; and how far a reward has come that the run never had."""
        specs = reader.config.changed(**asked.changes).rewards if "rewards" in asked.changes else []
        new = [
            spec.name for spec in specs if asked.names.get(spec.name, spec.name) not in asked.samples.names
        ]
        scoring: Json | None = None
        rescored = {}
        for name in new:
            found = self._scores.values(reader, asked.samples, name)
            if found is None:
                continue  # `whatif.ask` says what to do
            if found.error:
                raise ConfigError(found.error, {"rewards": found.error})
            rescored[name] = found.values_B
            if scoring is None or found.done < scoring["done"]:
                scoring = {
                    "name": name,
                    "done": found.done,
                    "of": len(found.values_B),
                    "failed": found.failed,
                }
        return whatif.ask(asked.samples, asked.settings, asked.changes, asked.names, rescored), scoring


def _of_step(samples: SampleArrays, asked: whatif.Ask, step: int) -> dict[str, list[float | None]]:
    """Each group's advantages, in sample order; None for an answer that would not have been drawn."""
    found: dict[str, list[float | None]] = {}
    for i in np.flatnonzero(samples.step_B == step):
        value = round(float(asked.advantage_B[i]), 5) if asked.inside_B[i] else None
        found.setdefault(str(samples.k_B[i]), []).append(value)
    return found


def _in_force(settings: Sequence[tuple[int, RunConfig]], step: int) -> RunConfig:
    return [config for start, config in settings if start <= step][-1]


def _view(found: whatif_tokens.TokenView) -> Json:
    return {
        name: None if value is None else round(value, 5)
        for name, value in found._asdict().items()
        if name != "share_B"
    }
