"""Questions to a model without a run: what it reads, what a step costs, what it answers. Torch-free; a bench
worker does it.

In: a runs root and the settings asked about. Out: plain results. A bench lives in a run folder of kind
`bench`, goes when nobody has asked for five minutes, and at once when a run waits for its device.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench import launch
from workbench.core.config import RunConfig
from workbench.core.errors import RunError
from workbench.launch import lease
from workbench.record import checkpoints
from workbench.record import folder as record
from workbench.record.files import STATE_FOLDER
from workbench.record.folder import RunFolder
from workbench.record.notes import Notes
from workbench.record.reader import Reader

KEPT = "branch"
"""Kind of the notes that hold what branches found."""


def run_probe(
    root: Path | str,
    config: RunConfig,
    probe: str,
    *,
    timeout: float = 600.0,
    worker: Sequence[str] | None = None,
    **args: Any,
) -> dict[str, Any]:
    """The result of a probe (`prompts`, `rehearsal`, `sample`; see `probes.HANDLERS`) about these settings.
    Starts a bench where none lives. Raises RunError with the bench's reason where it cannot answer."""
    for attempt in (1, 2):
        folder = living_worker(root) or start_worker(root, config, worker)
        try:
            answer = launch.send_and_wait(
                folder, "probe", {"probe": probe, "config": config.model_dump(mode="json"), **args}, timeout
            )
        except RunError:
            if attempt == 2 or not launch.state(folder).state == "finished":
                raise
            continue  # it went idle in the moment we asked
        if not answer["ok"]:
            raise RunError(str(answer["text"]))
        return dict(answer["result"])
    raise AssertionError("unreachable")


def sample(
    run: RunFolder, prompt: str, count: int = 4, *, step: int | None = None, base: bool = False, **args: Any
) -> dict[str, Any]:
    """Fresh answers of a run's model to a prompt of one's own: {prompt, samples, model}, with `base` also
    `base`: those of the model it began with.

    A living run answers between two steps as it is then; of another, the final model or the checkpoint of
    `step` is asked. Raises RunError.
    """
    wanted = {"prompt": prompt, "n": count, **args}
    asked = send_probe(run, "sample", step=step, **wanted)
    beside = send_probe(run, "sample", base=True, **wanted) if base else None
    found = {**asked.wait(), "model": asked.model}
    return {**found, "base": beside.wait()["samples"]} if beside else found


def branch(
    run: RunFolder, step: int, k: int, sample: int, tok: int, n: int = 16, **args: Any
) -> dict[str, Any]:
    """Credit at a token of a recorded answer: see `probes.branch`. The result is kept in the run's notes.
    Raises RunError."""
    result = send_probe(run, "branch", step=step, k=k, sample=sample, tok=tok, n=n, **args).wait()
    save_branch(run, result)
    return result


def save_branch(run: RunFolder, result: Mapping[str, Any]) -> None:
    """Remember a branch, so that whoever looks at the token again sees it."""
    Notes(run).keep(
        KEPT,
        _key(result["step"], result["k"], result["kind"], result["mode"], result["sample"], result["tok"]),
        dict(result),
    )


def saved_branches(
    run: RunFolder, step: int, k: int, kind: str = "train", mode: str | None = None
) -> list[dict[str, Any]]:
    """The branches of one group, oldest first."""
    start = _key(step, k, kind, mode)
    return [value for key, value in Notes(run).kept(KEPT).items() if key.startswith(start)]


def _key(step: int, k: int, kind: str, mode: str | None, *place: int) -> str:
    return "/".join(map(str, (kind, mode or "", step, k, *place))) + ("" if place else "/")


class SentProbe(NamedTuple):
    """A probe that was put: where its answer will stand, and whose answer it is, for people."""

    folder: RunFolder
    id: str
    model: str

    def answer(self) -> dict[str, Any] | None:
        """The worker's answer (ok, text, result); None while there is none."""
        for event in Reader(self.folder).events(kind="command", limit=10**9):
            if event["data"]["id"] == self.id:
                return dict(event["data"])
        return None

    def wait(self, timeout: float = 600.0) -> dict[str, Any]:
        """The result. Raises RunError: refused, or nobody answered."""
        deadline = time.monotonic() + timeout
        while True:
            over = launch.state(self.folder).over
            answer = self.answer()
            if answer is not None:
                if not answer["ok"]:
                    raise RunError(str(answer["text"]))
                return dict(answer["result"])
            if over:
                raise RunError(f"{self.folder.id} ended before it answered. Ask again.")
            if time.monotonic() > deadline:
                raise RunError(f"No answer within {timeout:.0f} s. Is another run holding the device?")
            time.sleep(0.1)


def send_probe(
    run: RunFolder,
    probe: str,
    *,
    step: int | None = None,
    base: bool = False,
    worker: Sequence[str] | None = None,
    **args: Any,
) -> SentProbe:
    """Put a probe about a run to whoever can answer, and do not wait.

    `sample`: a living run answers as it is now, else its final model or the checkpoint after `step` steps; with
    `base` the model it began with. `branch`: the living run, else the kept policy closest to the one that gave the
    answer at `step`. Raises RunError.
    """
    config, now = run.config(), launch.state(run)
    if probe == "branch":
        args["step"] = step
    lives = now.alive and not now.over
    if lives and (probe == "branch" or base or step is None):
        if probe == "branch":
            args["policy_step"] = now.step
        words = "the base model" if base else f"{run.id} at step {now.step}"
        asked = {"probe": probe, **args, **({"base": True} if base else {})}
        return SentProbe(run, launch.send(run, "probe", asked), words)
    if base:
        place, words = config.model, "the base model"
    elif probe == "branch":
        place, at = closest(run, int(args["step"]))
        args |= {"run": str(run.path.absolute()), "policy_step": at}
        words = f"the policy after {at} steps" if at else "the base model"
    else:
        place = str(model_of(run, step))
        words = f"{run.id}, {Path(place).name}"
    asked_about = config.changed(model=place, use_peft=False)
    folder = living_worker(run.root) or start_worker(run.root, asked_about, worker)
    command = {"probe": probe, "config": asked_about.model_dump(mode="json"), **args}
    return SentProbe(folder, folder.put("probe", command), words)


def closest(run: RunFolder, step: int) -> tuple[str, int]:
    """The kept policy nearest to the one after `step` steps, and after how many steps it is."""
    config = run.config()
    places = {
        0: config.model,
        **{found.step: str(found.path) for found in checkpoints.listing(run) if not found.problem},
    }
    if any((run.final / name).exists() for name in ("config.json", "adapter_config.json")):
        places.setdefault(config.steps, str(run.final))
    at = min(places, key=lambda kept: (abs(kept - step), kept))
    return places[at], at


def model_of(run: RunFolder, step: int | None = None) -> Path:
    """The folder of a run's final model, or that of a checkpoint. Raises RunError."""
    if step is not None:
        return checkpoints.at(run, step)
    if any((run.final / name).exists() for name in ("config.json", "adapter_config.json")):
        return run.final
    # Not `latest`: that tidies up, and a living worker may be writing there.
    kept = [found for found in checkpoints.listing(run) if not found.problem]
    if not kept:
        raise RunError(f"Run {run.id} has neither a final model nor a checkpoint yet.")
    return kept[-1].path


def living_worker(root: Path | str) -> RunFolder | None:
    """The newest bench that still answers, None where there is none."""
    for folder in record.folders(root):
        now = launch.state(folder)
        if now.kind == "probe" and now.alive and not now.over and now.state != "stopping":
            return folder
    return None


def start_worker(root: Path | str, config: RunConfig, worker: Sequence[str] | None = None) -> RunFolder:
    """A new bench; two callers at once get the same one."""
    root = Path(root).expanduser().absolute()
    with lease.locked(root / STATE_FOLDER / "bench.lock"):
        return living_worker(root) or launch.start(config, root, "probe", worker=worker)
