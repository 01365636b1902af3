"""Checkpoints and the final model, complete or absent: built under a dot-name, listed in a manifest with hashes, synced, renamed.

In: a caller's `write(folder)`, which writes the tensors (safetensors); this module knows only files, sizes and
hashes. They are saved at step boundaries, so `step` is the number of finished steps. Torch-free.
"""

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError

from workbench.core.errors import DiskFull, RunError
from workbench.record.files import make_folder, sha256, sync_folder, write_bytes, write_json
from workbench.record.folder import RunFolder
from workbench.record.notes import Notes
from workbench.record.provenance import versions
from workbench.record.reader import Reader

MANIFEST = "manifest.json"
LATEST = "LATEST"
PIN = "pinned checkpoint"
BEST_BY = "heldout/sampled/accuracy"
NEEDS = "needs"
"""Key in `meta`: fingerprints of what a run needs beside its checkpoints (train/checkpointing/resume.py)."""


class Checkpoint(NamedTuple):
    """One checkpoint folder."""

    step: int
    path: Path
    problem: str
    """Why it cannot be used; '' where every file is present with its size."""


def save(
    folder: RunFolder,
    step: int,
    write: Callable[[Path], object],
    meta: Mapping[str, Any] | None = None,
    *,
    keep: int = 2,
) -> Path:
    """Creates `checkpoints/step-<step>` from the files that `write` writes into the folder it is given; returns its
    path.

    Afterwards only the newest `keep`, the best by held-out accuracy and the pinned ones stay. Raises RunError
    where it could not be completed; earlier checkpoints are untouched then.
    """
    make_folder(folder.checkpoints)
    target = folder.checkpoints / f"step-{step:06d}"
    with _explained(f"The checkpoint after step {step}"):
        _build(folder, target, step, write, meta or {})
        write_bytes(folder.checkpoints / LATEST, f"{target.name}\n".encode())
    _retire(folder, keep)
    return target


def save_final(folder: RunFolder, step: int, write: Callable[[Path], object]) -> Path:
    """Creates `final/` from the files that `write` writes into the folder it is given: complete with its manifest, or absent. Raises
    RunError."""
    with _explained("The final model"):
        for left in folder.path.glob(".new-final-*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        _build(folder, folder.final, step, write, {})
    return folder.final


def final_problem(folder: RunFolder) -> str:
    """Why a run's final model cannot be used, in a sentence; '' where it can.

    A final model without a manifest was written by an earlier version: it counts where the run finished, which was recorded after its
    last byte.
    """
    final = folder.final
    if not any((final / name).is_file() for name in ("config.json", "adapter_config.json")):
        return "there is none, the run did not finish."
    if not (final / MANIFEST).exists() and folder.status().get("state") == "finished":
        return ""
    return problem(final, contents=False)


def _build(
    folder: RunFolder, target: Path, step: int, write: Callable[[Path], object], meta: Mapping[str, Any]
) -> None:
    """Write a folder under a dot-name, add its manifest, sync every file, rename. Raises OSError, SafetensorError."""
    building = target.with_name(f".new-{target.name.removeprefix('step-')}-{secrets.token_hex(4)}")
    try:
        make_folder(building)
        write(building)
        write_json(building / MANIFEST, _manifest(folder, building, step, meta))
        for path in [
            *_files(building),
            *(place for place in building.rglob("*") if place.is_dir()),
            building,
        ]:
            _sync(path)
        _replace(building, target)
        sync_folder(target.parent)
        verify(target, contents=False)
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns the system's error about a folder that could not be written into a sentence that says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors wraps the system's error
        reason = getattr(error, "strerror", None) or str(error)
        raise (DiskFull if _is_full(error) else RunError)(
            f"{what} could not be written ({reason}). Earlier "
            "ones are untouched; free some disk space, then resume."
        ) from error


def copy_into(source: Path, folder: RunFolder, changes: Mapping[str, Mapping[str, Any]]) -> Path:
    """Copies another run's checkpoint into `folder`, to start from, and returns its new path. `changes`: by JSON file, keys
    that get other values. The manifest keeps the fingerprint of the base model, so that resuming still checks it; settings
    and prompts may differ. Raises RunError where the checkpoint is damaged or cannot be copied."""
    verify(source)
    needs = read_manifest(source)["meta"].get(NEEDS, {})

    def write(building: Path) -> None:
        leave = shutil.ignore_patterns(MANIFEST)
        shutil.copytree(source, building, ignore=leave, copy_function=_link, dirs_exist_ok=True)
        for name, values in changes.items():
            write_json(building / name, {**json.loads((source / name).read_bytes()), **values})

    meta = {NEEDS: {"model": needs["model"]}} if "model" in needs else {}
    return save(folder, int(source.name.removeprefix("step-")), write, meta)


def latest(folder: RunFolder) -> Path | None:
    """The newest checkpoint whose files all have their recorded hashes; None where there is none. Removes what a
    killed save has left."""
    return newest(folder)[0]


def newest(folder: RunFolder, up_to: int | None = None) -> tuple[Path | None, list[Checkpoint]]:
    """As `latest`, with the damaged ones that were passed over, newest first. `up_to`: none after more finished steps than that."""
    _clear_up(folder)
    damaged: list[Checkpoint] = []
    for found in reversed(listing(folder)):
        if up_to is not None and found.step > up_to:
            continue
        if not (reason := found.problem or problem(found.path)):
            return found.path, damaged
        damaged.append(found._replace(problem=reason))
    return None, damaged


def at(folder: RunFolder, step: int) -> Path:
    """The checkpoint after `step` finished steps, verified. Raises RunError: none there, or damaged."""
    path = folder.checkpoints / f"step-{step:06d}"
    if not path.is_dir():
        there = ", ".join(str(found.step) for found in listing(folder) if not found.problem) or "none"
        raise RunError(f"There is no checkpoint after step {step}. Kept: {there}.")
    verify(path)
    return path


def pin(folder: RunFolder, step: int, keep: bool = True) -> None:
    """Pins the checkpoint after `step` finished steps, so that it is never deleted, or unpins it. Raises RunError."""
    if keep:
        at(folder, step)
        Notes(folder).keep(PIN, str(step))
    else:
        Notes(folder).drop(PIN, str(step))


def pinned(folder: RunFolder) -> set[int]:
    """Steps of pinned checkpoints."""
    try:
        return {int(step) for step in Notes(folder).kept(PIN)}
    except RunError:
        # Notes cannot be read: treat every checkpoint as pinned rather than delete a pinned one.
        return {found.step for found in listing(folder)}


def listing(folder: RunFolder) -> list[Checkpoint]:
    """All checkpoints, oldest first, each with its problem by names and sizes alone."""
    places = [path for path in folder.checkpoints.glob("step-*") if path.is_dir() and path.name[5:].isdigit()]
    found = [Checkpoint(int(path.name[5:]), path, problem(path, contents=False)) for path in places]
    return sorted(found)


def verify(path: Path, *, contents: bool = True) -> None:
    """Raises RunError naming the first file that is missing or changed. `contents` False compares sizes
    only."""
    if found := problem(path, contents=contents):
        raise RunError(f"Checkpoint {path.name} cannot be used: {found} Choose another checkpoint.")


def problem(path: Path, *, contents: bool = True) -> str:
    """What is wrong with a checkpoint, in a sentence; '' where nothing is."""
    try:
        files = json.loads((path / MANIFEST).read_bytes())["files"]
        for name, entry in files.items():
            if reason := problem_of(path, name, entry, contents=contents):
                return reason
    except FileNotFoundError:
        return f"{MANIFEST} is missing, so it was never finished."
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error})."
    return ""


def problem_of(path: Path, name: str, entry: Mapping[str, Any], *, contents: bool = True) -> str:
    """What is wrong with one file of a checkpoint, by its entry in the manifest; '' where nothing is."""
    file = path / name
    if not file.is_file():
        return f"{name} is missing."
    if file.stat().st_size != entry["size"]:
        return f"{name} has {file.stat().st_size} bytes instead of {entry['size']}."
    if contents and sha256(file) != entry["sha256"]:
        return f"{name} was changed after it was written."
    return ""


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint: step, files, versions, config hash, the caller's `meta`. Raises RunError."""
    verify(path, contents=False)
    found: dict[str, Any] = json.loads((path / MANIFEST).read_bytes())
    return found


def _manifest(folder: RunFolder, place: Path, step: int, meta: Mapping[str, Any]) -> dict[str, Any]:
    files = {
        str(path.relative_to(place)): {"sha256": sha256(path), "size": path.stat().st_size}
        for path in _files(place)
    }
    return {
        "step": step,
        "files": files,
        "versions": versions(),
        "config_sha256": sha256(folder.config_path) if folder.config_path.exists() else None,
        "created": time.time(),
        "meta": dict(meta),
    }


def _replace(building: Path, target: Path) -> None:
    """Renames into place, after moving an older checkpoint of the same step (from before a resume) out of the way."""
    away = target.with_name(f".old-{target.name}")
    if target.exists():
        shutil.rmtree(away, ignore_errors=True)
        os.rename(target, away)
    os.rename(building, target)
    shutil.rmtree(away, ignore_errors=True)


def _clear_up(folder: RunFolder) -> None:
    """Removes what a killed save has left, and restores a checkpoint that was being replaced."""
    for place in folder.checkpoints.glob(".new-*"):
        shutil.rmtree(place, ignore_errors=True)
    for place in folder.checkpoints.glob(".old-*"):
        target = folder.checkpoints / place.name.removeprefix(".old-")
        if target.exists():
            shutil.rmtree(place, ignore_errors=True)
        else:
            os.rename(place, target)


def _retire(folder: RunFolder, keep: int) -> None:
    there = [found for found in listing(folder) if not found.problem]
    stay = (
        {found.step for found in there[-max(1, keep) :]}
        | pinned(folder)
        | _best(folder, [c.step for c in there])
    )
    for found in there:
        if found.step not in stay:
            shutil.rmtree(found.path, ignore_errors=True)


def _best(folder: RunFolder, steps: list[int]) -> set[int]:
    """The step among `steps` with the best held-out accuracy; the newest of equals."""
    try:
        check = Reader(folder).series(names=[BEST_BY])["sampled"]
    except RunError:
        return set()  # an unreadable run.db must not fail the save
    known = [
        (value, step) for step, value in zip(check["step"], check[BEST_BY], strict=True) if value is not None
    ]
    return {max(found)[1]} if (found := [pair for pair in known if pair[1] in steps]) else set()


def _is_full(error: Exception) -> bool:
    """Whether the disk, or what this process may write, is used up."""
    number = getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(
        f"os error {code}" in str(error) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    )


def _link(source: str, target: str) -> None:
    """A hard link on the same disk, else a copy: weights are large and never changed in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _files(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_file())


def _sync(path: Path) -> None:
    if path.is_dir():
        sync_folder(path)
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())
