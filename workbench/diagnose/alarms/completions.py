"""Alarms about completions: truncated, duplicated, and wrong ones that grow."""

from workbench.diagnose.alarms import remedies as do
from workbench.diagnose.alarms.history import BETTER, Finding, History, limits
from workbench.diagnose.verdict import figure, share

COPIES, DISTINCT, UNIQUE = "diversity/duplicates", "diversity/distinct_2", "diversity/unique_answers"
WRONG, RIGHT = "completions/mean_length_wrong", "completions/mean_length_right"


def truncation(seen: History) -> Finding | None:
    """Many completions are truncated."""
    name = "completions/clipped_ratio"
    found, move = seen.excess(name, "truncation"), seen.move(name)
    if found is None or move is None:
        return None
    length = seen.now("completions/mean_length")
    mean = "" if length is None else f" They have {length:.0f} tokens on average."
    return Finding(
        "critical" if found.far else "warning",
        f"{share(move.last)} of samples truncated",
        f"{share(move.first)} → {share(move.last)} of the samples end at the limit of "
        f"{seen.config.max_completion_length} tokens, above {share(found.limit)} since step {found.since}.{mean}",
        found.since,
        {"from": move.first, "value": move.last, "limit": found.limit},
        do.available(
            do.longer_completions(seen.config, seen.around),
            None
            if seen.config.mask_truncated_completions
            else do.fork("Fork, truncated samples masked", found.since, mask_truncated_completions=True),
            do.lower_learning_rate(seen.config, 4),
        ),
    )


def collapse(seen: History) -> Finding | None:
    """Completions of a group repeat each other, without high accuracy."""
    limit = limits("collapse")
    if not seen.faltering:
        return None
    copies, distinct, unique = (seen.move(name) for name in (COPIES, DISTINCT, UNIQUE))
    if copies is None or distinct is None:
        return None
    sinces = (
        seen.above(COPIES, max(limit["copies"], copies.first + limit["rise"]), limit["steps"]),
        seen.below(DISTINCT, limit["distinct"] * distinct.first, limit["steps"]),
    )
    known = [since for since in sinces if since is not None]
    if not known:
        return None
    # Until accuracy peaked, duplicates did no harm.
    since = (
        max(min(known), seen.peak[0])
        if seen.peak[1] > BETTER + (seen.start("accuracy") or 0.0)
        else min(known)
    )
    variety = (
        ""
        if unique is None
        else f" Different final answers in a group: {unique.first:.1f} → {unique.last:.1f}."
    )
    return Finding(
        "warning",
        f"{share(copies.last)} of samples are copies"
        if sinces[0] is not None
        else f"Distinct-2 fell to {share(distinct.last / distinct.first)}",
        f"Copies in a group {share(copies.first)} → {share(copies.last)}, distinct-2 {figure(distinct.first)} → "
        f"{figure(distinct.last)}, since step {since}.{variety}",
        since,
        {"from": copies.first, "value": copies.last, "distinct_2": distinct.last},
        do.available(
            do.higher_temperature(seen.config),
            do.fork(f"Fork from step {since}, slower", since, learning_rate=seen.config.learning_rate / 4),
        ),
    )


def long_wrong(seen: History) -> Finding | None:
    """Wrong completions grow and become longer than right ones."""
    limit, start = limits("long_wrong"), seen.start(WRONG)
    wrong, right, accuracy = (seen.column(name) for name in (WRONG, RIGHT, "accuracy"))
    if not start or not wrong or not right or not accuracy:
        return None

    def longer_when_wrong(row: int) -> bool:
        a, w, r = accuracy[row], wrong[row], right[row]
        if a is None or w is None or a > limit["accuracy"]:
            return False
        return w > limit["grown"] * start and (r is None or w > limit["ratio"] * r)

    since, now, other = seen.held(longer_when_wrong, limit["steps"]), seen.now(WRONG), seen.now(RIGHT)
    if since is None or now is None:
        return None
    beside = "" if other is None else f" Right ones have {other:.0f}."
    biased = seen.config.loss_type == "grpo"
    return Finding(
        "warning",
        f"Wrong samples grew to {now:.0f} tokens",
        f"{start:.0f} → {now:.0f} tokens, since step {since}.{beside}",
        since,
        {"from": start, "value": now, **({} if other is None else {"right": other})},
        do.available(
            do.also_correct(seen.config, seen.around),
            do.fork("Fork with loss dr_grpo", since, loss_type="dr_grpo") if biased else None,
            do.fork(f"Fork from step {since}, half the limit", since,
                    max_completion_length=max(1, seen.config.max_completion_length // 2)),
        ),
    )  # fmt: skip


RULES = {"truncation": truncation, "collapse": collapse, "long_wrong": long_wrong}
