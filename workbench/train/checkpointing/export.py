"""A run's model as a plain Hugging Face folder: the final one, or that of a kept checkpoint."""

import json
import shutil
from pathlib import Path

from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

from workbench.core.errors import ModelError, RunError
from workbench.models.load import DTYPES, model_source
from workbench.record import checkpoints
from workbench.record.folder import RunFolder
from workbench.train.checkpointing.checkpoint import OPTIMIZER, REFERENCE, STATE

ADAPTER = "adapter_config.json"
STOPS = "generation_config.json"
NOT_FOR_OTHERS = (OPTIMIZER, STATE, REFERENCE, checkpoints.MANIFEST)


def export(run: RunFolder, target: Path, step: int | None = None, merge: bool = False) -> None:
    """Write the model of a run into `target`, a new or empty folder.

    `step` None: the final model. `merge` folds a LoRA adapter into its base, so that plain `from_pretrained` needs no PEFT.
    Raises RunError (no such model, target in use) or ModelError (nothing to merge).
    """
    source = run.final if step is None else checkpoints.at(run, step)
    if step is None and (problem := checkpoints.final_problem(run)):
        kept = ", ".join(str(found.step) for found in checkpoints.listing(run) if not found.problem)
        raise RunError(
            f"The final model of run {run.id} cannot be exported: {problem} Give a step with a checkpoint: {kept or 'there is none yet'}."
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunError(f"{target} exists already and is not empty. Give a new folder.")
    if merge:
        _merge(run, source, target)
    else:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*NOT_FOR_OTHERS), dirs_exist_ok=True)


def _merge(run: RunFolder, source: Path, target: Path) -> None:
    if not (source / ADAPTER).is_file():
        raise ModelError(f"Run {run.id} trained all weights: there is no adapter to merge. Leave merge out.")
    base = json.loads((source / ADAPTER).read_text()).get("base_model_name_or_path") or model_source(
        run.config().model
    )
    if not Path(base).exists() and "/" not in base:
        raise ModelError(
            f"The base model {base!r} of the adapter is not there, so the two cannot be merged. Put it back, or export "
            "without merging."
        )
    model = AutoPeftModelForCausalLM.from_pretrained(source, dtype=DTYPES[run.config().dtype])
    model.merge_and_unload().save_pretrained(target)
    if (source / STOPS).is_file():
        shutil.copy2(source / STOPS, target / STOPS)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)
