"""The run folder: its paths and small JSON files, how one is created and found, its inbox of commands.

In: a runs root and a RunConfig, or a run's id or path. Out: a `RunFolder`; its files are replaced atomically.
"""

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from workbench.core import renamed
from workbench.core.config import RunConfig
from workbench.core.errors import ConfigError, RunError
from workbench.record.files import make_folder, read_json, sync_folder, tail, write_bytes, write_json
from workbench.record.provenance import git_commit, hardware, versions
from workbench.record.redact import redact

Kind = Literal["train", "probe"]
RUN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


_ABOUT: dict[str, type] = {"versions": dict, "hardware": dict, "rewards": list}
_TEXTS = frozenset({"state", "phase", "boot_id", "token", "reason", "device"})
_NUMBERS = frozenset(
    [
        "phase_done",
        "phase_total",
        "step",
        "steps",
        "pid",
        "create_time",
        "heartbeat",
        "progress_at",
        "started",
        "earlier",
        "ended",
        "eta",
        "step_seconds",
        "until",
        "oom_kills",
    ]
)
_INTEGERS = frozenset({"phase_done", "phase_total", "step", "steps", "pid", "oom_kills"})
_NULLABLE = frozenset({"pid", "ended", "eta", "step_seconds", "until", "oom_kills"})


class Command(NamedTuple):
    """A command from the inbox: `pause`, `resume`, `stop`, `checkpoint`, `set`, `rewards`, `probe`; `unreadable`
    with its reason."""

    id: str
    command: str
    args: dict[str, Any]


class RunFolder:
    """The paths of one run and the small JSON files in it. Knows nothing of processes."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunFolder) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def id(self) -> str:
        """The folder's name, unique below its runs root."""
        return self.path.name

    @property
    def root(self) -> Path:
        return self.path.parent

    @property
    def config_path(self) -> Path:
        return self.path / "config.json"

    @property
    def status_path(self) -> Path:
        return self.path / "status.json"

    @property
    def db_path(self) -> Path:
        return self.path / "run.db"

    @property
    def notes_path(self) -> Path:
        return self.path / "notes.db"

    @property
    def waiting_path(self) -> Path:
        return self.path / "waiting.json"

    @property
    def control(self) -> Path:
        return self.path / "control"

    @property
    def rewards(self) -> Path:
        return self.path / "rewards"

    @property
    def tokens(self) -> Path:
        return self.path / "tokens"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        return self.path / "final"

    @property
    def log_path(self) -> Path:
        return self.path / "worker.log"

    @property
    def error_path(self) -> Path:
        return self.path / "error.json"

    @property
    def wandb(self) -> Path:
        return self.path / "wandb"

    def about(self) -> dict[str, Any]:
        """All of config.json: config, versions, hardware, git, seed, rewards, kind, parent. Raises
        RunError."""
        found = _read_json(self.config_path, "the run's settings")
        if not isinstance(found.get("kind", ""), str):
            found.pop("kind")
        if not isinstance(found.get("config"), dict):
            found.pop("config", None)
        for name, kind in _ABOUT.items():
            if not isinstance(found.get(name, kind()), kind):
                found[name] = kind()
        if "rewards" in found:
            found["rewards"] = [record for record in found["rewards"] if isinstance(record, dict)]
        if not isinstance(found.get("created", 0.0), int | float):
            found["created"] = 0.0
        if found.get("parent") is not None and not isinstance(found["parent"], dict):
            found["parent"] = None
        if found.get("kind") in renamed.RUN_KINDS:
            found["kind"] = renamed.RUN_KINDS[found["kind"]]
        return found

    def config(self) -> RunConfig:
        """The resolved settings the run was started with. Raises RunError."""
        try:
            return RunConfig.parse(self.about()["config"])
        except (ConfigError, KeyError, TypeError) as error:
            raise RunError(
                f"{self.config_path} holds settings that this version does not accept: {error}. "
                "Open the run with the version that made it (`versions` in the same file)."
            ) from error

    def status(self) -> dict[str, Any]:
        """status.json as the worker wrote it last; {} before it wrote any. A field of a wrong type is left out.
        Raises RunError where the file is damaged."""
        if not os.path.lexists(self.status_path):
            return {}
        found = _read_json(self.status_path, "the run's state")
        return {name: value for name, value in found.items() if _fits(name, value)}

    def status_damage(self) -> str:
        """Why status.json cannot be read, '' where it can or is not there."""
        try:
            self.status()
        except RunError as error:
            return str(error)
        return ""

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Replaces status.json. Only the worker calls this."""
        write_json(self.status_path, status, durable=False)

    def error(self) -> dict[str, Any]:
        """error.json, the worker's report of why it failed; {} where it did not."""
        return _read_json(self.error_path, "the error report") if os.path.lexists(self.error_path) else {}

    def damage(self) -> str | None:
        """Why this folder cannot be read as a run, in one sentence; None where it can."""
        if not self.path.is_dir():
            return "The folder is gone."
        try:
            if "config" not in self.about():
                return "config.json holds no settings."
            self.status()
        except RunError as error:
            return str(error)
        return None

    def put(self, command: str, args: Mapping[str, Any] | None = None) -> str:
        """Puts a command into the worker's inbox and returns its id. The reply is an event of kind `command`."""
        if not self.path.is_dir():
            raise RunError(
                f"{self.path} is not a run folder (any more). `workbench list` shows the runs there are."
            )
        identity = secrets.token_hex(8)
        content = {"id": identity, "command": command, "args": dict(args or {})}
        try:
            make_folder(self.control)
            write_json(self.control / f"{time.time_ns()}-{identity}.json", content)
        except OSError as error:
            raise RunError(f"{command} could not be sent to run {self.id}: {_reason(error)}.") from error
        return identity

    def take(self) -> list[Command]:
        """Empties the inbox: all its commands, oldest first. A file that is not a command becomes `unreadable`."""
        if not self.control.is_dir():
            return []
        taken = []
        for path in sorted(self.control.glob("[0-9]*.json")):
            try:
                data = _read_json(path, "a command")
                found = Command(str(data["id"]), str(data["command"]), dict(data.get("args") or {}))
            except (RunError, KeyError, TypeError, ValueError) as error:
                found = Command(path.stem, "unreadable", {"reason": f"{type(error).__name__}: {error}"})
            if found.command != "unreadable":
                path.unlink(missing_ok=True)
            elif (aside := set_aside(path)) is None:
                continue  # gone, or it cannot be moved: the other commands are not held up by it
            else:
                found.args["reason"] += f" It is now {aside.name}."
            taken.append(found)
        return taken

    def log_tail(self, lines: int = 40) -> list[str]:
        """The last lines of worker.log, each cut at 8 KB; [] where there is no log."""
        return tail(self.log_path, lines)


def create(
    root: Path | str,
    config: RunConfig,
    kind: Kind = "train",
    *,
    parent: Mapping[str, Any] | None = None,
    rewards: Iterable[Mapping[str, Any]] = (),
    files: Mapping[str, str | bytes] | None = None,
    prepare: Callable[["RunFolder"], object] | None = None,
) -> RunFolder:
    """Creates a run folder, complete or not at all: it is built under a dot-name and then renamed.

    `parent` is {"run": id, "step": n} for forks, and `prepare(folder)` adds the checkpoint they start from; `rewards` describes
    the reward sources, whose text comes in `files` (relative path -> content, for example `rewards/3fa9….py`). Raises RunError
    where the runs root cannot be written.
    """
    root = Path(root).expanduser().absolute()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        building = root / f".new-{secrets.token_hex(6)}"
        building.mkdir(mode=0o700)
    except OSError as error:
        raise RunError(
            f"Runs cannot be kept in {root}: {_reason(error)}. Choose another folder with --runs DIR."
        ) from error
    try:
        folder = RunFolder(building)
        for place in (folder.control, folder.rewards, folder.tokens, folder.checkpoints):
            make_folder(place)
        for name, content in (files or {}).items():
            target = building / name
            if not target.resolve().is_relative_to(building.resolve()):
                raise RunError(f"file {name!r} would lie outside the run folder. Give a path below it.")
            make_folder(target.parent)
            write_bytes(target, content.encode() if isinstance(content, str) else content)
        settings = config.model_dump(mode="json")
        write_json(
            folder.config_path,
            redact(
                {
                    "config": settings,
                    "versions": versions(),
                    "hardware": hardware(),
                    "git": git_commit(),
                    "seed": config.seed,
                    "rewards": [dict(reward) for reward in rewards],
                    "kind": kind,
                    "parent": dict(parent) if parent else None,
                    "created": time.time(),
                }
            ),
        )
        if prepare is not None:
            prepare(folder)
        return _name(building, root, config)
    except OSError as error:
        raise RunError(
            f"The run folder could not be written in {root}: {_reason(error)}. Nothing was started; free "
            "some disk space, or choose another folder with --runs DIR."
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _name(building: Path, root: Path, config: RunConfig) -> RunFolder:
    words = config.run_name or (
        Path(config.model).name if config.task == "chain" or config.model != "embedded" else config.task
    )
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", words).strip("-.").lower()[:32] or "run"
    for _ in range(64):
        target = root / f"{time.strftime('%Y%m%d-%H%M')}-{slug}-{secrets.token_hex(2)}"
        if not target.exists():
            os.rename(building, target)
            sync_folder(root)
            return RunFolder(target)
    raise RunError(
        f"{root} already holds every name tried for this run. Give the run a name of its own (run_name)."
    )


def find(run: str | Path, root: Path | str | None = None) -> RunFolder:
    """The folder of a run, by its id below `root` or by a path. Raises RunError: unknown, not a run, or an id that
    leads out of the root."""
    text = str(run)
    if "\0" in text or not text.strip():
        raise RunError(f"{text!r} names no run. Give an id that `workbench list` shows, or a run folder.")
    if root is not None and RUN_ID.fullmatch(text) and not text.startswith("."):
        inside = Path(root).expanduser() / text
        if (inside / "config.json").is_file() and inside.resolve().parent == Path(
            root
        ).expanduser().resolve():
            return RunFolder(inside)
    path = Path(text).expanduser()
    if (path.is_absolute() or os.sep in text or path.exists()) and (path / "config.json").is_file():
        return RunFolder(path.absolute())
    known = [folder.id for folder in folders(root)][:5] if root is not None else []
    hint = f" Newest: {', '.join(known)}." if known else ""
    raise RunError(
        f"No run {text!r} here{f' (looked in {root})' if root is not None else ''}. "
        f"Give an id that `workbench list` shows, or the path of a run folder.{hint}"
    )


def find_id(run: str, root: Path | str) -> RunFolder:
    """As `find`, but only ids below `root`: for requests from the network. Raises RunError."""
    if not RUN_ID.fullmatch(run) or run.startswith("."):
        raise RunError(
            f"{run[:80]!r} is not a run id. An id has 1 to 64 letters, digits, dots, dashes and underscores."
        )
    folder = RunFolder(Path(root).expanduser() / run)
    if not folder.path.is_dir() or folder.path.resolve().parent != Path(root).expanduser().resolve():
        raise RunError(f"No run {run!r} here.")
    return folder


def folders(root: Path | str) -> list[RunFolder]:
    """Every folder below the runs root that is a run, damaged ones included, newest name first; none that is still
    being built."""
    try:
        entries = [
            entry.name for entry in os.scandir(Path(root).expanduser()) if entry.is_dir(follow_symlinks=False)
        ]
    except OSError:
        return []
    names = [name for name in entries if RUN_ID.fullmatch(name) and not name.startswith(".")]
    found = [RunFolder(Path(root).expanduser() / name) for name in sorted(names, reverse=True)]
    return [folder for folder in found if _is_run(folder)]


def left_out(root: Path | str) -> list[str]:
    """Names of run folders below the root that `folders` leaves out, because no address can carry them."""
    try:
        names = [
            entry.name for entry in os.scandir(Path(root).expanduser()) if entry.is_dir(follow_symlinks=False)
        ]
    except OSError:
        return []
    return sorted(
        name
        for name in names
        if not RUN_ID.fullmatch(name)
        and not name.startswith(".")
        and _is_run(RunFolder(Path(root).expanduser() / name))
    )


def left_out_sentence(root: Path | str) -> str:
    """What `left_out` found and what to do, '' where it found nothing."""
    if not (names := left_out(root)):
        return ""
    shown = ", ".join(ascii(name) for name in names[:5]) + (
        f" and {len(names) - 5} more" if len(names) > 5 else ""
    )
    return (
        f"Left out: {shown}. The name of a run folder has 1 to 64 letters without accents, digits, dots, dashes and underscores: "
        "rename the folder to see the run."
    )


def _is_run(folder: RunFolder) -> bool:
    return folder.config_path.exists() or folder.status_path.exists() or folder.db_path.exists()


def set_aside(path: Path) -> Path | None:
    """Renames a file that cannot be read, so that it blocks no reader and is not lost; None where that failed."""
    target = path.with_name(f"unreadable-{secrets.token_hex(4)}-{path.name}")
    with contextlib.suppress(OSError):
        os.rename(path, target)
        return target
    return None


def _fits(name: str, value: Any) -> bool:
    """Whether a field of status.json has the type that the worker writes there."""
    if value is None:
        return name in _NULLABLE
    if name in _TEXTS:
        return isinstance(value, str)
    if name in _NUMBERS:
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return is_integer or (name not in _INTEGERS and isinstance(value, float))
    return True


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        value = read_json(path)
    except FileNotFoundError:
        raise RunError(f"{path} is missing: it holds {what}. Is {path.parent} a run folder?") from None
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} cannot be read ({error}): it holds {what}. Copy the folder again, or remove it."
        ) from error
    if not isinstance(value, dict):
        raise RunError(
            f"{path} holds a {type(value).__name__}, not {what}. Copy the folder again, or remove it."
        )
    return value


def _reason(error: OSError) -> str:
    return f"{error.strerror or error} ({error.filename})" if error.filename else str(error.strerror or error)
