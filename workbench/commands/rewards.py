"""The commands about rewards and human ratings of recorded samples: rescore, rate, ratings. See cli.py."""

import sys
import time
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from workbench.commands.options import DEFAULT_ROOT, AsJson, Root, RunName, print_json
from workbench.core.errors import ConfigError
from workbench.diagnose import agreement, rescoring
from workbench.record import folder as record
from workbench.record import preferences, rating
from workbench.record.notes import Notes
from workbench.record.reader import Reader

Rewards = Annotated[
    list[str], Parameter(negative="", help="name, name=weight, or file.py:name; once for each reward.")
]


def rescore(
    run: RunName,
    *,
    reward: Rewards,
    since: Annotated[int | None, Parameter(help="First step to look at.")] = None,
    until: Annotated[int | None, Parameter(help="Last step to look at.")] = None,
    kind: Literal["train", "eval"] = "train",
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """Score recorded samples again with other rewards: what they would have reinforced instead."""
    started = time.perf_counter()
    reader = Reader(record.find(run, runs))
    found = rescoring.rescore(reader, reward, since=since, until=until, kind=kind)
    summary = found.summary() | {"seconds": round(time.perf_counter() - started, 3)}
    if json:
        print_json({"run": reader.folder.id, "rewards": [one.name for one in found.sources], **summary})
        return 0
    print(f"{summary['samples']} samples in {summary['groups']} groups, {summary['seconds']:.1f} s")
    print(f"  reward changes for          {summary['changed']} samples")
    print(f"  pushed the other way        {summary['advantage_flips']} samples")
    print(f"  another winner              {summary['winner_flips']} groups")
    print(f"  dead groups                 {summary['dead_before']} before, {summary['dead_after']} after")
    for name, failed in summary["failed"].items():
        if failed:
            first = next(score.reasons[name] for score in found.scores if name in score.reasons)
            print(f"  {name} failed on            {failed} samples: {first}")
    return 0


def rate(
    run: RunName,
    *,
    step: int,
    group: int,
    sample: Annotated[int, Parameter(help="Place in the group, from 0.")],
    good: Annotated[bool, Parameter(negative="")] = False,
    bad: Annotated[bool, Parameter(negative="")] = False,
    place: Annotated[int | None, Parameter(help="Its place in the group, 1 the best.")] = None,
    clear: Annotated[bool, Parameter(negative="", help="Take the rating back.")] = False,
    kind: Literal["train", "eval"] = "train",
    mode: Literal["sampled", "greedy"] | None = None,
    runs: Root = DEFAULT_ROOT,
) -> int:
    """Rate a sample as good or bad, or give it its place in its group."""
    if good + bad + (place is not None) + clear != 1:
        raise ConfigError("Give one of --good, --bad, --place and --clear.")
    thumb = None if clear or place is not None else good
    rating.rate(Reader(record.find(run, runs)), step, group, sample, thumb, place=place, kind=kind, mode=mode)
    return 0


def ratings(
    run: RunName,
    *,
    reward: Rewards | None = None,
    pairs: Annotated[Path | None, Parameter(help="Write preference pairs to this file (JSON lines).")] = None,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """Human ratings of samples: how many there are, with --reward how far rewards agree with them, with --pairs as a
    file of preferences to train on."""
    reader = Reader(record.find(run, runs))
    rated = Notes(reader.folder).ratings()
    found = {
        "run": reader.folder.id,
        "ratings": len(rated),
        "good": sum(one.thumb is True for one in rated),
        "bad": sum(one.thumb is False for one in rated),
        "ranked": sum(one.place is not None for one in rated),
        "pairs": len(preferences.rows(reader)) if pairs is None else preferences.export(reader, pairs),
    }
    held = agreement.agreement(reader, reward) if reward else None
    if held is not None:
        found |= {
            "agree": held.agree,
            "of": held.total,
            "absent": held.absent,
            "disagreements": [one.as_json() for one in held.disagreements],
        }
    if json:
        print_json(found)
        return 0
    print(
        f"{found['ratings']} samples rated: {found['good']} good, {found['bad']} bad, {found['ranked']} ranked; "
        f"{found['pairs']} pairs"
    )
    if pairs is not None:
        print(f"Written to {pairs}", file=sys.stderr)
    if held is not None:
        print(f"The rewards agree with {held.agree} of {held.total}.")
        for one in held.disagreements:
            than = f" than {one.other!r}" if one.other is not None else ""
            print(
                f"  step {one.step}, group {one.k}, sample {one.sample}: you said {one.judgement}{than}; it scores "
                f"{one.value:.3f} against {one.against:.3f}"
            )
    return 0
