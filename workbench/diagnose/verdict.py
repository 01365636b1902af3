"""The state of a run in one plain sentence, by rules over recorded metrics; a second line holds figures.

In: series of training steps and evaluations, the run's state, its settings. Out: a `Verdict`. Rules are tried in
order of urgency (failed, reward hacking, ..., flat); the first that applies gives the sentence.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from workbench.core.config import RunConfig
from workbench.record.reader import Reader

Word = Literal[
    "Starting", "Learning", "Flat", "Frozen", "Gaming", "Collapsing", "Diverging", "Nearly done", "Finished",
    "Stopped", "Failed", "Crashed", "Interrupted",
]  # fmt: skip
Level = Literal["info", "good", "watch", "bad"]
Series = Mapping[str, Sequence[float | None]]

LONGEST = 90
EARLY = 5
"""Fewer steps give no verdict."""
GAIN = 0.05
"""Smallest change of accuracy, or of reward as a share of its scale, that counts as a change."""
DEAD = 0.5
SOLVED = 0.6
ENTROPY_LEFT = 0.1
COPIES = 0.5
LONGER = 2.0
FROZEN_BETA, FROZEN_KL = 0.2, 0.02
UNWORKED = 0.4
TRAIN = (
    "reward", "accuracy", "frac_reward_zero_std", "frac_reward_zero_std/all_right",
    "frac_reward_zero_std/all_wrong", "completions/mean_length", "completions/clipped_ratio", "entropy",
    "kl", "beta", "diversity/duplicates", "reward/right_without_work", "reward/unscored",
    "record/nonfinite_dropped", "loss",
)  # fmt: skip
CHECK = tuple(f"heldout/{mode}/{name}" for mode in ("sampled", "greedy") for name in
              ("accuracy", "accuracy_low", "accuracy_high", "problems"))  # fmt: skip


class Move(NamedTuple):
    """A metric at the beginning and now, each the mean over a few steps."""

    first: float
    last: float

    @property
    def gain(self) -> float:
        return self.last - self.first


class Verdict(NamedTuple):
    """`sentence` has at most 90 characters and begins with `word`; `facts` may be empty."""

    word: Word
    level: Level
    sentence: str
    facts: str


class Seen(NamedTuple):
    """The input of the rules."""

    train: Series
    sampled: Series
    greedy: Series
    config: RunConfig
    state: str
    reason: str
    steps: int
    """Recorded training steps."""

    def move(self, name: str) -> Move | None:
        """From the first steps to the last ones; None for a metric that was not recorded."""
        values = [value for value in self.train.get(name, ()) if value is not None]
        if not values:
            return None
        begin, end = max(1, min(3, len(values) // 5)), max(1, min(4, len(values) // 5))
        return Move(sum(values[:begin]) / begin, sum(values[-end:]) / end)

    def last(self, name: str, default: float = 0.0) -> float:
        """The mean over the last steps."""
        move = self.move(name)
        return default if move is None else move.last

    def check(self, mode: str = "sampled", name: str = "accuracy") -> Move | None:
        """The first and the last held-out check; None with fewer than two."""
        table = self.sampled if mode == "sampled" else self.greedy
        values = [value for value in table.get(f"heldout/{mode}/{name}", ()) if value is not None]
        return Move(values[0], values[-1]) if len(values) > 1 else None

    @property
    def margin(self) -> float:
        """Half the 95 % interval of the newest held-out check; 0 where there is none."""
        low, high = (_newest(self.sampled, f"heldout/sampled/accuracy_{end}") for end in ("low", "high"))
        return 0.0 if low is None or high is None else (high - low) / 2

    @property
    def truth(self) -> Move | None:
        """Accuracy that decides whether it learns: held-out, else of the training samples."""
        return self.check() or self.move("accuracy")


def of_run(reader: Reader, state: str | None = None, reason: str = "") -> Verdict:
    """The verdict on what a run has recorded. `state` as `launch` derives it (crashed, interrupted); default: status.json."""
    found = reader.ends([*TRAIN, *CHECK])
    status = reader.status
    return verdict(
        found["train"],
        found["sampled"],
        found["greedy"],
        config=reader.config,
        state=state or str(status.get("state", "")),
        reason=reason or str(status.get("reason") or ""),
        steps=found["steps"],
    )


def verdict(
    train: Series,
    sampled: Series,
    greedy: Series,
    *,
    config: RunConfig,
    state: str = "running",
    reason: str = "",
    steps: int | None = None,
) -> Verdict:
    """The verdict of the first rule that applies. Series are lists by metric name, with `step`, as `Reader.series` or
    `ends` give them; `steps` is the number of training steps where the series hold only some."""
    number = len(train.get("step", ())) if steps is None else steps
    seen = Seen(train, sampled, greedy, config, state, reason, number)
    for rule in RULES:
        if (found := rule(seen)) is not None:
            word, level, sentence = found
            return Verdict(word, level, shorten(sentence), facts(seen))
    raise AssertionError("the last rule always applies")


# -- the rules ------------------------------------------------------------------------------------------

Ruling = tuple[Word, Level, str] | None


def broke(seen: Seen) -> Ruling:
    """The process is gone or gave up."""
    words: dict[str, Word] = {"crashed": "Crashed", "failed": "Failed", "interrupted": "Interrupted"}
    if seen.state not in words:
        return None
    why = seen.reason or ("the machine restarted" if seen.state == "interrupted" else "the worker is gone")
    if why.split()[0][1:].islower():  # a plain word, not the name of an error
        why = why[0].lower() + why[1:]
    return words[seen.state], "bad", f"{words[seen.state]} at step {seen.steps}: {why.rstrip('.')}."


def early(seen: Seen) -> Ruling:
    """Too few steps for a verdict."""
    if seen.steps == 0:
        waits = {
            "queued": "waiting for the device",
            "": "nothing is recorded yet",
            "stopped": "nothing was recorded",
        }
        return "Starting", "info", f"Starting: {waits.get(seen.state, 'the first step is under way')}."
    if seen.steps < EARLY and seen.state not in ("finished", "stopped"):
        return (
            "Starting",
            "info",
            f"Starting: {count(seen.steps, 'step')} done, too few to say where it goes.",
        )
    return None


def not_finite(seen: Seen) -> Ruling:
    """Recent metrics were not finite."""
    lately = [value for value in seen.train.get("record/nonfinite_dropped", ())[-10:] if value]
    if not lately:
        return None
    return (
        "Diverging",
        "bad",
        f"Diverging: loss or gradient were not finite in {len(lately)} of the last 10 steps.",
    )


def gaming(seen: Seen) -> Ruling:
    """The reward rises while accuracy falls."""
    reward, truth = seen.move("reward"), seen.truth
    if reward is None or truth is None:
        return None
    if reward.gain < GAIN * max(1.0, abs(reward.first)) or truth.gain > -max(0.04, seen.margin):
        return None
    moved = f"reward {figure(reward.first)} to {figure(reward.last)}"
    return (
        "Gaming",
        "bad",
        f"Gaming the reward: {moved} while accuracy fell from {share(truth.first)} to {share(truth.last)}.",
    )


def diverging(seen: Seen) -> Ruling:
    """Completions grow while accuracy falls."""
    length, truth = seen.move("completions/mean_length"), seen.truth
    if length is None or truth is None or length.last < LONGER * length.first:
        return None
    if truth.last > max(0.5 * truth.first, truth.first - 2 * GAIN):
        return None
    grew = f"samples grew from {length.first:.0f} to {length.last:.0f} tokens"
    return "Diverging", "bad", f"Diverging: {grew} while accuracy fell to {share(truth.last)}."


def collapsing(seen: Seen) -> Ruling:
    """Entropy, length or diversity collapse without high accuracy."""
    truth = seen.truth
    if truth is not None and (truth.last > 0.8 or truth.gain > 2 * GAIN):
        return None
    entropy, length = seen.move("entropy"), seen.move("completions/mean_length")
    at = f" while {share(truth.last)} are right" if truth is not None else ""
    if length is not None and length.last < length.first / 2 and truth is not None and truth.gain < 0:
        return (
            "Collapsing",
            "bad",
            f"Collapsing: samples shrank from {length.first:.0f} to {length.last:.0f} tokens{at}.",
        )
    if entropy is not None and entropy.first > 0 and entropy.last < ENTROPY_LEFT * entropy.first:
        return (
            "Collapsing",
            "bad",
            f"Collapsing: entropy {figure(entropy.first)} to {figure(entropy.last)}{at}.",
        )
    copies = seen.move("diversity/duplicates")
    if copies is not None and copies.last > COPIES and copies.gain > 0.2:
        return (
            "Collapsing",
            "bad",
            f"Collapsing: {share(copies.last)} of samples copy another of their group{at}.",
        )
    return None


def ended(seen: Seen) -> Ruling:
    """The run is over, and no rule before applies."""
    if seen.state not in ("finished", "stopped"):
        return None
    word: Word = "Finished" if seen.state == "finished" else "Stopped"
    where = " on unseen problems" if seen.check() else ""
    truth, reward = seen.truth, seen.move("reward")
    if truth is not None:
        level: Level = "good" if truth.gain >= GAIN else "watch"
        moved = f"{share(truth.first)} to {share(truth.last)} right{where}"
        return word, level, f"{word}: {moved} in {count(seen.steps, 'step')}."
    if reward is not None:
        level = "good" if reward.gain >= GAIN * max(1.0, abs(reward.first)) else "watch"
        return (
            word,
            level,
            f"{word}: reward {figure(reward.first)} to {figure(reward.last)} in {count(seen.steps, 'step')}.",
        )
    return word, "info", f"{word} after {count(seen.steps, 'step')}."


def unscored(seen: Seen) -> Ruling:
    """Most completions have no reward."""
    missing = seen.last("reward/unscored")
    return (
        ("Flat", "bad", f"Flat: {share(missing)} of samples got no reward, the reward code fails.")
        if missing > 0.5
        else None
    )


def nearly_done(seen: Seen) -> Ruling:
    """Most groups are all right."""
    solved = seen.last("frac_reward_zero_std/all_right")
    if solved < SOLVED:
        return None
    return (
        "Nearly done",
        "good",
        f"Nearly done: {part(solved)} groups are all right. Harder prompts would teach more.",
    )


def frozen(seen: Seen) -> Ruling:
    """A large KL coefficient, and no movement away from the reference."""
    kl, reward = seen.move("kl"), seen.move("reward")
    beta = seen.last("beta", seen.config.beta)
    if kl is None or reward is None or beta < FROZEN_BETA or kl.last > FROZEN_KL or seen.steps < 2 * EARLY:
        return None
    if reward.gain > 2 * GAIN * max(1.0, abs(reward.first)):
        return None
    return "Frozen", "watch", f"Frozen: beta {beta:g} holds the model at its start (KL {figure(kl.last, 3)})."


def learning(seen: Seen) -> Ruling:
    """Accuracy or reward rises; whether it also does on held-out problems."""
    right, reward, check = seen.move("accuracy"), seen.move("reward"), seen.check()
    moved = right if right is not None else reward
    if moved is None or moved.gain < GAIN * max(1.0, abs(moved.first)):
        return None
    shown = f"{share(moved.first)} to {share(moved.last)} right" if right is not None else (
        f"reward {figure(moved.first)} to {figure(moved.last)}")  # fmt: skip
    unworked = seen.move("reward/right_without_work")
    if right is not None and unworked is not None and unworked.last > UNWORKED:
        return (
            "Learning",
            "watch",
            f"Learning, but guessing: {share(unworked.last)} of right samples show no work.",
        )
    since = f"in {count(seen.steps, 'step')}"
    if check is None:
        return "Learning", "good", f"Learning: {shown} {since}."
    if check.gain >= min(GAIN, moved.gain / 3):
        return "Learning", "good", f"Learning: {shown} {since}, and it holds on unseen problems."
    return "Learning", "watch", f"Learning: {shown} {since}, but not on unseen problems."


def flat(seen: Seen) -> Ruling:
    """No change: because no reward differs within groups, or for another reason; by the loss where a stage has no reward."""
    dead = seen.last("frac_reward_zero_std")
    if dead > DEAD:
        return (
            "Flat",
            "watch",
            f"Flat: in {share(dead)} of groups every sample scored the same, so there is no gradient.",
        )
    reward, loss = seen.move("reward"), seen.move("loss")
    since = f"in {count(seen.steps, 'step')}"
    if reward is not None:
        return "Flat", "watch", f"Flat: reward {figure(reward.first)} to {figure(reward.last)} {since}."
    if loss is None:
        return "Flat", "watch", f"Flat: no reward {since}."
    falls = loss.gain <= -GAIN * max(1.0, abs(loss.first))
    word: Word = "Learning" if falls else "Flat"
    moved = f"loss {figure(loss.first)} to {figure(loss.last)}"
    return word, "good" if falls else "watch", f"{word}: {moved} {since}."


RULES: Sequence[Callable[[Seen], Ruling]] = (
    broke, early, not_finite, gaming, diverging, collapsing, ended, unscored, nearly_done, frozen, learning,
    flat,
)  # fmt: skip


# -- words ----------------------------------------------------------------------------------------------


def facts(seen: Seen) -> str:
    """Held-out accuracy with its margin, completion lengths at first and now, truncation, and groups without gradient."""
    sentences = []
    if held := _held_out(seen):
        sentences.append(held)
    length = seen.move("completions/mean_length")
    if length is not None and seen.steps >= EARLY:
        way = length.last / max(length.first, 1e-9)
        verb = "grew" if way > 1.2 else "shrank" if way < 0.8 else ""
        sentences.append(f"Samples {verb} from {length.first:.0f} to {length.last:.0f} tokens." if verb
                    else f"Samples stay near {length.last:.0f} tokens.")  # fmt: skip
    cut = seen.last("completions/clipped_ratio")
    if cut > 0.1:
        sentences.append(f"{share(cut)} of samples are cut at the limit.")
    right, wrong = (seen.last(f"frac_reward_zero_std/all_{side}") for side in ("right", "wrong"))
    if max(right, wrong) >= 0.1:
        side, much = ("right", right) if right >= wrong else ("wrong", wrong)
        sentences.append(f"{share(much)} of groups give no gradient: every sample is {side}.")
    return " ".join(sentences)


def _held_out(seen: Seen) -> str:
    figures = []
    for mode, table in (("sampled", seen.sampled), ("greedy", seen.greedy)):
        values = [value for value in table.get(f"heldout/{mode}/accuracy", ()) if value is not None]
        if values:
            figures.append(f"{share(values[-1])} {mode}")
    if not figures:
        return ""
    table = seen.sampled if seen.sampled.get("heldout/sampled/accuracy") else seen.greedy
    mode = "sampled" if table is seen.sampled else "greedy"
    low, high, problems = (
        _newest(table, f"heldout/{mode}/{name}") for name in ("accuracy_low", "accuracy_high", "problems")
    )
    margin = "" if low is None or high is None else f", ± {100 * (high - low) / 2:.0f} points"
    counted = f" ({problems:.0f} problems{margin})" if problems is not None else ""
    return f"Held-out {', '.join(figures)}{counted}."


def _newest(table: Series, name: str) -> float | None:
    return next((value for value in reversed(table.get(name, ())) if value is not None), None)


def share(value: float) -> str:
    """`19 %`."""
    return f"{100 * value:.0f} %"


def part(value: float) -> str:
    """A share as a small fraction, `3 of 4`."""
    parts = min((2, 3, 4, 5), key=lambda n: abs(round(value * n) / n - value))
    some = round(value * parts)
    return "all" if some == parts else f"{some} of {parts}"


def figure(value: float, digits: int = 2) -> str:
    """`.85`, `1.20`, `-.03`: without a leading zero."""
    text = f"{value:.{digits}f}".replace("-", "−")
    return (
        text.replace("0.", ".", 1)
        if abs(value) < 1 and not math.isclose(abs(round(value, digits)), 1)
        else text
    )


def count(number: int, noun: str) -> str:
    """`1 step`, `31 steps`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shorten(sentence: str) -> str:
    """At most 90 characters, cut between words."""
    if len(sentence) <= LONGEST:
        return sentence
    return sentence[: LONGEST - 1].rsplit(" ", 1)[0].rstrip(" ,;:") + "…"
