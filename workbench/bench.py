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
