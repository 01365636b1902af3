"""Probes: requests to a model outside training (render prompts, time a step, sample, continue from a token). Torch-free.

In: a runs root and settings, or a run. Out: plain results. A training run replies between two steps; otherwise a probe
worker does, in a run folder of kind `probe`, which ends after five idle minutes, and at once when a run waits for its device.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.core.config import RunConfig
from workbench.core.errors import RunError
from workbench.launch import lease, lifecycle
from workbench.launch.command_client import REPLY_SECONDS, SentCommand, send_and_wait
from workbench.record import checkpoints
from workbench.record import folder as record
from workbench.record.files import STATE_FOLDER
from workbench.record.folder import RunFolder
from workbench.record.notes import Notes

BRANCH_NOTES = "branch"
"""Kind of the notes that hold results of `branch`."""


# -- one probe and its result ------------------------------------------------------------------------------


def run_probe(
    root: Path | str,
    config: RunConfig,
    probe: str,
    *,
    timeout: float = REPLY_SECONDS,
    worker: Sequence[str] | None = None,
    **args: Any,
) -> dict[str, Any]:
    """The result of a probe (`prompts`, `rehearsal`, `sample`, `fresh`; see `probes.HANDLERS`) under these settings, from the
    probe worker of `root`, started where none runs. Raises RunError with the worker's reason where it fails."""
    command = {"probe": probe, "config": config.model_dump(mode="json"), **args}
    for attempt in (1, 2):
        folder = living_worker(root) or start_worker(root, config, worker)
        try:
            reply = send_and_wait(folder, "probe", command, timeout)
        except RunError:
            if attempt == 2 or lifecycle.state(folder).state != "finished":
                raise
            continue  # it ended for idleness in the moment of the request
        if not reply["ok"]:
            raise RunError(str(reply["text"]))
        return dict(reply["result"])
    raise AssertionError("unreachable")


ask = run_probe
"""Its name in notebooks of earlier versions, as `workbench.bench.ask`."""


def sample(
    run: RunFolder, prompt: str, count: int = 4, *, step: int | None = None, base: bool = False, **args: Any
) -> dict[str, Any]:
    """Fresh completions of a run's model for a prompt of one's own: {prompt, samples, model}, with `base` also
    `base`: those of the model it began with.

    A living run samples between two steps with its current policy; of another, the final model or the checkpoint of
    `step` is used. Raises RunError.
    """
    given = {"prompt": prompt, "n": count, **args}
    sent = send_probe(run, "sample", step=step, **given)
    sent_to_base = send_probe(run, "sample", base=True, **given) if base else None
    found = {**sent.result(), "model": sent.model}
    return {**found, "base": sent_to_base.result()["samples"]} if sent_to_base else found


def branch(
    run: RunFolder, step: int, k: int, sample: int, tok: int, n: int = 16, **args: Any
) -> dict[str, Any]:
    """Value of a token of a recorded completion by Monte Carlo: see `probes.branch`. The result is kept in the run's notes.
    Raises RunError."""
    result = send_probe(run, "branch", step=step, k=k, sample=sample, tok=tok, n=n, **args).result()
    save_branch(run, result)
    return result


# -- a probe that is waited for later ----------------------------------------------------------------------


class SentProbe(SentCommand):
    """A probe in the inbox of a worker, and the wait for its result."""

    def __init__(self, folder: RunFolder, id: str, model: str = "") -> None:
        super().__init__(folder, id)
        self.model = model
        """Which model the result will come from, for people."""

    def result(self, timeout: float = REPLY_SECONDS) -> dict[str, Any]:
        """Wait for the result. Raises RunError: refused, or no reply."""
        state, reply, _ = self.wait(timeout)
        if reply is not None:
            if not reply["ok"]:
                raise RunError(str(reply["text"]))
            return dict(reply["result"])
        if state.over:
            raise RunError(f"{self.folder.id} ended before it answered. Ask again.")
        raise RunError(f"No answer within {timeout:.0f} s. Is another run holding the device?")


def send_probe(
    run: RunFolder,
    probe: str,
    *,
    step: int | None = None,
    base: bool = False,
    worker: Sequence[str] | None = None,
    **args: Any,
) -> SentProbe:
    """Send a probe about a run to the worker that has the model for it, and do not wait.

    `sample`: a living run's current policy, else its final model or the checkpoint after `step` steps; with `base` the
    model it began with. `branch`: the living run's policy, else the saved one closest to the policy that sampled the
    completion at `step`. Raises RunError.
    """
    config, now = run.config(), lifecycle.state(run)
    if probe == "branch":
        args["step"] = step
    lives = now.alive and not now.over
    if lives and (probe == "branch" or base or step is None):
        if probe == "branch":
            args["policy_step"] = now.step
        model = "the base model" if base else f"{run.id} at step {now.step}"
        command = {"probe": probe, **args, **({"base": True} if base else {})}
        return SentProbe(run, lifecycle.send(run, "probe", command), model)
    if base:
        path, model = config.model, "the base model"
    elif probe == "branch":
        path, policy_step = closest_policy(run, int(args["step"]))
        args |= {"run": str(run.path.absolute()), "policy_step": policy_step}
        model = f"the policy after {policy_step} steps" if policy_step else "the base model"
    else:
        path = str(model_folder(run, step))
        model = f"{run.id}, {Path(path).name}"
    settings = config.changed(model=path, use_peft=False)
    folder = living_worker(run.root) or start_worker(run.root, settings, worker)
    command = {"probe": probe, "config": settings.model_dump(mode="json"), **args}
    return SentProbe(folder, folder.put("probe", command), model)


def closest_policy(run: RunFolder, step: int) -> tuple[str, int]:
    """The saved policy nearest to the one after `step` steps: its folder, and after how many steps it was saved."""
    config = run.config()
    saved = {
        0: config.model,
        **{found.step: str(found.path) for found in checkpoints.listing(run) if not found.problem},
    }
    if final := final_model(run):
        saved.setdefault(config.steps, str(final))
    nearest = min(saved, key=lambda other: (abs(other - step), other))
    return saved[nearest], nearest


def final_model(run: RunFolder) -> Path | None:
    """A plain Hugging Face folder with the trained model or adapter; None before the run has written it."""
    return None if checkpoints.final_problem(run) else run.final


def model_folder(run: RunFolder, step: int | None = None) -> Path:
    """The folder of a run's final model, or that of a checkpoint. Raises RunError."""
    if step is not None:
        return checkpoints.at(run, step)
    if final := final_model(run):
        return final
    # Not `latest`: that tidies up, and a living worker may be writing there.
    kept = [found for found in checkpoints.listing(run) if not found.problem]
    if not kept:
        raise RunError(f"Run {run.id} has neither a final model nor a checkpoint yet.")
    return kept[-1].path


# -- the probe worker --------------------------------------------------------------------------------------


def living_worker(root: Path | str) -> RunFolder | None:
    """The folder of the newest probe worker that still takes commands, None where there is none."""
    for folder in record.folders(root):
        now = lifecycle.state(folder)
        if now.kind == "probe" and now.alive and not now.over and now.state != "stopping":
            return folder
    return None


def start_worker(root: Path | str, config: RunConfig, worker: Sequence[str] | None = None) -> RunFolder:
    """Start a probe worker; two callers at once get the same one."""
    root = Path(root).expanduser().absolute()
    with lease.locked(root / STATE_FOLDER / "bench.lock"):
        return living_worker(root) or lifecycle.start(config, root, "probe", worker=worker)


# -- results of `branch` in the run's notes ----------------------------------------------------------------


def save_branch(run: RunFolder, result: Mapping[str, Any]) -> None:
    """Keep a result of `branch` for everyone who looks at the token later."""
    group = _group_key(result["step"], result["k"], result["kind"], result["mode"])
    Notes(run).keep(BRANCH_NOTES, f"{group}{result['sample']}/{result['tok']}", dict(result))


def saved_branches(
    run: RunFolder, step: int, k: int, kind: str = "train", mode: str | None = None
) -> list[dict[str, Any]]:
    """The results of `branch` in one group, oldest first."""
    group = _group_key(step, k, kind, mode)
    return [value for key, value in Notes(run).kept(BRANCH_NOTES).items() if key.startswith(group)]


def _group_key(step: int, k: int, kind: str, mode: str | None) -> str:
    return f"{kind}/{mode or ''}/{step}/{k}/"
