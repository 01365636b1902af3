"""The what-if drawer: advantages of every recorded step recomputed with other settings, and per-token weights where tokens are kept.

In: a run and `name=value` texts. Out: plain JSON, recorded and recomputed figures side by side. What was read of a record stays in
memory, so that a second query costs only its arithmetic.
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
from workbench.view.whatif.background_scores import BackgroundScores

Json = dict[str, Any]
REMEMBERED = 8
"""Runs whose samples are kept in memory."""
TOKEN_SECONDS = 0.6
"""Time limit of one response about tokens; the client asks for the rest."""
_NOTE = "What each recorded step would have computed with these settings, not how the run would have gone."


class _Query(NamedTuple):
    """The changed settings, and all of the run that is needed to apply them."""

    samples: SampleArrays
    settings: list[tuple[int, RunConfig]]
    """The settings in force from each step on."""
    names: dict[str, str]
    """Names under which rewards were recorded, by their names in the settings."""
    changes: dict[str, str]
    token_changes: dict[str, str]
    """Changes whose effect needs log-probabilities of tokens."""


class WhatIfDrawer:
    """What-if queries about runs; the samples of the runs last asked about stay in memory. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, SampleArrays] = OrderedDict()
        self._lock = threading.Lock()
        self._scores = BackgroundScores()

    def samples(self, reader: Reader) -> SampleArrays:
        """The run's samples, brought up to date."""
        key = str(reader.folder.path)
        with self._lock:
            known = self._known.get(key)
            if known is None or reader.has_replaced(known.cursor):
                known = reader.arrays()
            elif len((new := reader.arrays(known.cursor)).id_B):
                known = known + new
            self._known[key] = known
            self._known.move_to_end(key)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            return known

    def score(self, reader: Reader, reward: str) -> None:
        """Starts to score the recorded completions with a reward that the run never had. Raises RewardError."""
        self._scores.start(reader, reward)

    def recompute(self, reader: Reader, sets: Sequence[str], step: int | None = None) -> Json:
        """Advantages of all recorded steps with the settings `sets`; for `step` also the advantage of each of its samples, by group.
        Raises ConfigError for a setting that cannot be changed after the fact."""
        query = self._query(reader, sets)
        samples = query.samples
        before = whatif.as_recorded(samples, query.settings)
        other, progress = self._recompute(reader, query)
        return {
            "steps": samples.steps().tolist(),
            "samples": len(samples.id_B),
            "recorded": dict(whatif.as_json(whatif.timeline(samples, before))),
            "asked": dict(whatif.as_json(whatif.timeline(samples, other))),
            "difference": dict(whatif.as_json(whatif.difference(samples, before, other))),
            "groups": None if step is None else _of_step(samples, other, step),
            "scoring": progress,
            "note": _NOTE,
        }

    def recompute_tokens(self, reader: Reader, sets: Sequence[str], after: int = -1) -> Json:
        """Clipping and token weights of the steps after `after` whose tokens are kept, as many as fit into the time limit; `next` is
        the `after` of the next call, None at the end."""
        query = self._query(reader, sets)
        samples = query.samples
        other, _ = self._recompute(reader, query)
        kept = [step for step in reader.token_steps() if step > after]
        found: Json = {"steps": [], "recorded": [], "asked": [], "moved": []}
        deadline = time.monotonic() + TOKEN_SECONDS
        last = None
        for step in kept:
            here_B = samples.step_B == step
            tokens_B = reader.step_tokens(step) if here_B.any() else None
            last = step
            if tokens_B is not None:
                config = _in_force(query.settings, step)
                changed = config.changed(**query.changes, **query.token_changes)
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

    def _query(self, reader: Reader, sets: Sequence[str]) -> _Query:
        about = reader.folder.about()
        config = reader.config
        labels = [source.get("name") for source in about.get("rewards", [])]
        names = {
            spec.name: str(label or spec.name.rpartition(":")[2])
            for spec, label in zip(config.rewards, [*labels, *[None] * len(config.rewards)], strict=False)
        }
        tokens = [text for text in sets if text.partition("=")[0] in whatif_tokens.TOKEN_SETTINGS]
        return _Query(
            self.samples(reader),
            whatif.settings_over_time(reader),
            names,
            whatif.parse_changes([text for text in sets if text not in tokens]),
            {name: value for name, _, value in (text.partition("=") for text in tokens)},
        )

    def _recompute(self, reader: Reader, query: _Query) -> tuple[whatif.Recomputed, Json | None]:
        """The recomputed advantages; and how far the scoring of a new reward has come."""
        specs = reader.config.changed(**query.changes).rewards if "rewards" in query.changes else []
        new = [
            spec.name for spec in specs if query.names.get(spec.name, spec.name) not in query.samples.names
        ]
        progress: Json | None = None
        rescored = {}
        for name in new:
            found = self._scores.values(reader, query.samples, name)
            if found is None:
                continue  # not started: `whatif.ask` refuses and says how to start it
            if found.error:
                raise ConfigError(found.error, {"rewards": found.error})
            rescored[name] = found.values_B
            if progress is None or found.done < progress["done"]:
                progress = {
                    "name": name,
                    "done": found.done,
                    "of": len(found.values_B),
                    "failed": found.failed,
                }
        return whatif.recompute(query.samples, query.settings, query.changes, query.names, rescored), progress


def _of_step(samples: SampleArrays, other: whatif.Recomputed, step: int) -> dict[str, list[float | None]]:
    """Each group's advantages, in sample order; None for a sample beyond a smaller group size."""
    found: dict[str, list[float | None]] = {}
    for i in np.flatnonzero(samples.step_B == step):
        value = round(float(other.advantage_B[i]), 5) if other.inside_B[i] else None
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
