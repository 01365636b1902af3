"""The report of `workbench doctor RUN`: verdict, alarms with remedies, and why the loss is near 0.

In: the record of a run. Out: plain data, and the same as text.
"""

from typing import Any

from workbench.core.config import RunConfig
from workbench.core.glossary import ALARMS
from workbench.diagnose import verdict
from workbench.diagnose.verdict import figure, share
from workbench.record.reader import Reader

Json = dict[str, Any]
SMALL = 1e-3
"""A loss below this is explained."""


def report(reader: Reader, state: str, reason: str = "", *, over: bool = False) -> Json:
    """{"run", "state", "verdict", "facts", "loss": [sentences], "alarms": [open first, then by level]}. `over`: the run has ended,
    so that a remedy which would change a live setting becomes a fork."""
    found = verdict.of_run(reader, state, reason)
    order = {"critical": 0, "warning": 1, "info": 2}
    alarms = sorted(
        reader.alarms(),
        key=lambda alarm: (
            alarm["cleared_step"] is not None,
            order.get(alarm["level"], 3),
            -alarm["since_step"],
        ),
    )
    return {
        "run": reader.folder.id,
        "state": state,
        "verdict": found.sentence,
        "facts": found.facts,
        "loss": loss(reader, reader.config),
        "alarms": [_with_remedies(alarm, over) for alarm in alarms],
    }


def loss(reader: Reader, config: RunConfig) -> list[str]:
    """Why the loss is 0 or flat, in sentences with this run's figures."""
    train = reader.ends(["loss", "grad_norm", "kl", "beta", "frac_reward_zero_std", "reward"])["train"]
    now = {name: _mean(train[name][-5:]) for name in train if name != "step"}
    value = now.get("loss")
    if value is None:
        return ["Nothing is recorded yet, so there is no loss to explain."]
    dead = now.get("frac_reward_zero_std") or 0.0
    found = [f"The loss is {_signed(value)} on average over the last {min(5, len(train['step']))} steps."]
    beta, kl = now.get("beta") or 0.0, now.get("kl")
    if abs(value) < SMALL:
        found.append(
            "That alone says nothing: advantages sum to 0 in every group, so the loss of an on-policy step is 0 up to "
            "completion lengths whatever is learned. The gradient is not."
        )
    if beta and kl is not None and config.kl_in == "loss":
        found.append(f"Beta times KL is {_signed(beta * kl)} of it; that part rises as the model moves.")
    norm = now.get("grad_norm")
    if dead > 0.9:
        found.append(
            f"{share(dead)} of the groups are dead (every sample scored the same), so there is next to no gradient: this "
            "run learns nothing now."
        )
    elif dead > 0.5:
        found.append(
            f"{share(dead)} of the groups are dead; the other {share(1 - dead)} carry the whole gradient."
        )
    if norm is not None:
        found.append(
            "The gradient is 0 too: nothing moves."
            if norm < 1e-8
            else f"The gradient's norm is {figure(norm, 3)}: the weights do move. Judge by reward and held-out accuracy."
        )
    return found


def words(found: Json) -> str:
    """The report as text."""
    lines = [found["verdict"], found["facts"], "", "Why is the loss what it is?"]
    lines += [f"  {sentence}" for sentence in found["loss"]]
    now = [alarm for alarm in found["alarms"] if alarm["cleared_step"] is None]
    past = [alarm for alarm in found["alarms"] if alarm["cleared_step"] is not None]
    lines += ["", f"Alarms: {len(now) or 'none'} on, {len(past) or 'none'} over."]
    marks = {"critical": "!!", "warning": " !", "info": " i"}
    for alarm in now:
        lines += [
            "",
            f"{marks.get(alarm['level'], ' ?')} {alarm['claim']} ({alarm['label']})",
            f"   {alarm['text']}",
        ]
        lines += [f"   raised when: {alarm['condition']}"] if alarm["condition"] else []
        lines += [f"   look: {one}" for one in alarm["look"][:1]]
        lines += [f"   do:   {one}" for one in alarm["do"]]
    for alarm in past:
        lines += ["", f"    over: {alarm['claim']} (step {alarm['since_step']} to {alarm['cleared_step']})"]
    return "\n".join(line for i, line in enumerate(lines) if line or i)


def _with_remedies(alarm: Json, over: bool) -> Json:
    row = ALARMS.get(alarm["name"])
    samples = alarm["evidence"].get("samples", [])
    return {
        **alarm,
        "label": row.label if row else alarm["name"],
        "condition": row.condition if row else "",
        "look": [
            f"workbench show RUN --step {one['step']} --group {one['group']}"
            for one in samples
            if isinstance(one, dict) and {"step", "group"} <= one.keys()
        ],
        "do": [
            as_command(remedy, alarm["since_step"] if over else None)
            for remedy in alarm["remedies"]
            if not over or "fork" in remedy or remedy.get("command") == "set"
        ],
    }


def as_command(remedy: Json, fork_at: int | None = None) -> str:
    """A remedy as a shell command; `fork_at`: the run is over, so its settings change in a fork from that step."""
    pairs = {**remedy.get("args", {}), **remedy.get("fork", {})}
    changes = " ".join(f"{name}={_value(value)}" for name, value in pairs.items())
    if "fork" in remedy or fork_at is not None:
        return f"workbench fork RUN --step {remedy.get('step', fork_at or 0)} --set {changes}"
    return f"workbench {remedy.get('command')} RUN {changes}".rstrip()


def _value(value: Any) -> str:
    if isinstance(value, list):  # rewards
        parts = [f"{one['name']}={one['weight'] if one.get('enabled', True) else 0:g}" for one in value]
        return f"'{','.join(parts)}'"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
