"""What a checkpoint holds besides its manifest: a plain model folder, the optimiser, and where the run stood.

Saved between steps only, so nothing of a generation is pending; samples and prompts are pure functions of the seed and the step
and need no state of their own. safetensors and JSON, no pickle.
"""

import json
from pathlib import Path
from typing import Any

from peft import PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors.torch import load_file, save_file

from workbench.core.config import RunConfig
from workbench.core.errors import RunError
from workbench.models.load import load_network, save_policy
from workbench.models.policy import Policy
from workbench.train.update import Updater

OPTIMIZER, STATE, REFERENCE = "optimizer.safetensors", "state.json", "reference"


def write(folder: Path, policy: Policy, updater: Updater, config: RunConfig, step: int) -> None:
    """Everything that `restore` needs to go on exactly; also a folder that plain from_pretrained loads."""
    save_policy(policy, folder)
    save_file(updater.moments(), folder / OPTIMIZER)
    if config.sync_ref_model and policy.reference is not None:
        policy.reference.save_pretrained(folder / REFERENCE)
    state = {
        "step": step,
        "version": policy.version,
        "skips_in_a_row": updater.skips_in_a_row,
        "chunks": updater.retry.chunks,
        "config": config.model_dump(mode="json"),
    }
    (folder / STATE).write_text(json.dumps(state, indent=1))


def restore(
    folder: Path, policy: Policy, updater: Updater, otherwise: RunConfig | None = None
) -> tuple[int, RunConfig, list[str]]:
    """Put policy and optimiser back; returns the finished steps, the settings then (live edits included), and what was missing.

    Raises RunError naming the file that is missing, unless settings are given to go on with `otherwise`: a warm start, in which only
    the model has to be there.
    """
    missing = [name for name in (OPTIMIZER, STATE) if not (folder / name).is_file()]
    if missing and otherwise is None:
        raise RunError(
            f"Checkpoint {folder.name} lacks {missing[0]}, so the run could not go on exactly. Choose another checkpoint, or a warm "
            "start (workbench resume RUN --warm-start)."
        )
    config, step = otherwise, int(folder.name.rpartition("-")[2])
    if STATE not in missing:
        state = json.loads((folder / STATE).read_text())
        step, config = int(state["step"]), RunConfig.parse(state["config"])
        policy.version = int(state["version"])
        updater.skips_in_a_row = int(state["skips_in_a_row"])
        updater.retry.chunks = int(state.get("chunks", state.get("pieces", 1)))
    assert config is not None
    if isinstance(policy.model, PeftModel):
        set_peft_model_state_dict(policy.model, load_peft_weights(str(folder), device=str(policy.device)))
    else:
        _copy(load_network(str(folder), config.dtype), policy.model)
    if (folder / REFERENCE).is_dir() and policy.reference is not None:
        _copy(load_network(str(folder / REFERENCE), config.dtype), policy.reference)
    if OPTIMIZER not in missing:
        updater.set_moments(load_file(folder / OPTIMIZER))
    return step, config, missing


def _copy(source: Any, target: Any) -> None:
    target.load_state_dict(source.state_dict())
