"""Questions to a model without a run: what it reads, what a step costs, what it answers. Torch-free; a bench
worker does it.

In: a runs root and the settings asked about. Out: plain results. A bench lives in a run folder of kind
`bench`, goes when nobody has asked for five minutes, and at once when a run waits for its device.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench import launch
from workbench.config import RunConfig
from workbench.errors import RunError
from workbench.launch import lease
from workbench.record import checkpoints
from workbench.record import folder as record
from workbench.record.folder import RunFolder


def ask(
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
        folder = living(root) or start(root, config, worker)
        try:
            answer = launch.ask(
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
    config = run.config()
    now = launch.state(run)
    wanted = {"prompt": prompt, "n": count, **args}
    if now.alive and not now.over and step is None:
        answer = launch.ask(run, "probe", {"probe": "sample", **wanted})
        if not answer["ok"]:
            raise RunError(str(answer["text"]))
        found = {**answer["result"], "model": f"{run.id} at step {launch.state(run).step}"}
    else:
        place = model_of(run, step)
        found = {
            **ask(run.root, config.changed(model=str(place), use_peft=False), "sample", **wanted),
            "model": str(place),
        }
    if base:
        found["base"] = ask(run.root, config.changed(use_peft=False), "sample", **wanted)["samples"]
    return found


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


def living(root: Path | str) -> RunFolder | None:
    """The newest bench that still answers, None where there is none."""
    for folder in record.folders(root):
        now = launch.state(folder)
        if now.kind == "bench" and now.alive and not now.over and now.state != "stopping":
            return folder
    return None


def start(root: Path | str, config: RunConfig, worker: Sequence[str] | None = None) -> RunFolder:
    """A new bench; two callers at once get the same one."""
    root = Path(root).expanduser().absolute()
    with lease.locked(root / lease.HOUSE / "bench.lock"):
        return living(root) or launch.start(config, root, "bench", worker=worker)
