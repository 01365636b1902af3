"""The rewards of a run as they change while it goes on: each version of their code lies in the run folder under its hash.

In: `RewardSpec`s and what the run recorded of its first rewards. Out: sources for the pool in the worker; for whoever asks for
a change, specs that name the very version, and the code that the run does not have yet.
"""

import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.core.config import RewardSpec
from workbench.core.errors import RewardError
from workbench.rewards.api import source
from workbench.rewards.api.decorator import registered
from workbench.rewards.api.source import SourceText
from workbench.rewards.builtin import catalogue
from workbench.rewards.runtime import registry
from workbench.rewards.runtime.registry import RewardSource

VERSION_DIGITS = 16
_VERSION = re.compile(r"[0-9a-f]{16}")
Records = Sequence[Mapping[str, Any]]


class RewardUpdate(NamedTuple):
    """A change of rewards, ready to be sent."""

    specs: list[RewardSpec]
    files: dict[str, str]
    """Code that the run lacks, by version."""


def sources(specs: Sequence[RewardSpec], folder: Path, records: Records) -> list[RewardSource]:
    """The rewards as a pool takes them, from the code in the run folder and the catalogue alone. Raises RewardError."""
    return registry.save_checked(specs, texts(specs, folder, records), folder)


def texts(specs: Sequence[RewardSpec], folder: Path, records: Records) -> list[SourceText]:
    """The code of each reward that a run has, or of the catalogue. Raises RewardError."""
    return [_there(spec, folder, records) for spec in specs]


def prepare_update(
    specs: Sequence[RewardSpec], folder: Path, records: Records, *, fresh: bool = True
) -> RewardUpdate:
    """Check rewards that a run is to use from now on. `fresh`: own files and functions are read anew, else the run's own copy
    stays where it has one. Raises RewardError for what cannot work."""
    meant = [current_text(spec, folder, records, fresh=fresh) for spec in specs]
    with tempfile.TemporaryDirectory(prefix="workbench-rewards-") as place:
        registry.save_checked(specs, meant, Path(place))
    named, files = [], {}
    for spec, text in zip(specs, meant, strict=True):
        version, known = text.sha[:VERSION_DIGITS], known_text(spec, folder, records)
        if not text.ours and (known is None or known.sha != text.sha):
            files[version] = text.code.decode()
            spec = spec.model_copy(update={"version": version})
        named.append(spec)
    return RewardUpdate(named, files)


def receive(files: Mapping[str, str], folder: Path) -> None:
    """Keep code that was sent. Raises RewardError where a name is not the hash of what it names."""
    for version, code in files.items():
        raw = code.encode()
        if not _VERSION.fullmatch(version) or hashlib.sha256(raw).hexdigest()[:VERSION_DIGITS] != version:
            raise RewardError(
                f"The code that was sent is not version {version[:VERSION_DIGITS]}. Send it again."
            )
        source.save([SourceText(raw, "", version)], folder)


def known_text(spec: RewardSpec, folder: Path, records: Records) -> SourceText | None:
    """The code that the run itself has for a reward: the version that is named, or the one it began with."""
    if spec.version:
        return _of_version(spec, folder)
    record = next((one for one in records if _is(spec, one)), None)
    if record is None:
        return None
    kept = RewardSource.of_record(record, folder)
    return SourceText(Path(kept.path).read_bytes(), kept.function, kept.file, kept.ours)


def _there(spec: RewardSpec, folder: Path, records: Records) -> SourceText:
    text = known_text(spec, folder, records)
    if text is None and spec.name in catalogue.REWARDS:
        text = catalogue.source_of(spec.name)
    if text is None:
        raise RewardError(
            f"The run has no code for reward {spec.name}. Send it with `workbench set RUN rewards=...`."
        )
    return text


def current_text(spec: RewardSpec, folder: Path, records: Records, *, fresh: bool) -> SourceText:
    """The code somebody means by this reward now. `fresh`: own files and functions as they are at this moment; else the run's
    copy where it has one. Raises RewardError."""
    own = source.is_file(spec.name) or spec.name in registered
    known = None if fresh and own and not spec.version else known_text(spec, folder, records)
    return known or registry.find(spec.name)


def _of_version(spec: RewardSpec, folder: Path) -> SourceText:
    path = folder / f"{spec.version}.py"
    if not _VERSION.fullmatch(spec.version) or not path.is_file():
        raise RewardError(
            f"The run has no version {spec.version} of reward {spec.name}. It keeps: {_kept(folder)}."
        )
    code = path.read_bytes()
    if hashlib.sha256(code).hexdigest()[:VERSION_DIGITS] != spec.version:
        raise RewardError(
            f"The saved code of reward {spec.name} was changed: {path}. Restore it, or give a new one."
        )
    file, function = _parts(spec.name)
    return source.from_code(code, function, file)


def _is(spec: RewardSpec, record: Mapping[str, Any]) -> bool:
    """Whether this record is of this reward, whatever its weight."""
    file, function = _parts(spec.name)
    if source.is_file(spec.name):
        return record["file"] == file and function in (None, record["function"])
    return bool(record["function"] == spec.name)


def _parts(name: str) -> tuple[str, str | None]:
    """A file's name for people and the function, from a reward's name."""
    if not source.is_file(name):
        return f"the code of {name}", name
    path, _, function = name.rpartition(":") if ".py:" in name else (name, "", "")
    return Path(path).name, function or None


def _kept(folder: Path) -> str:
    return ", ".join(sorted(path.stem for path in folder.glob("*.py"))) or "none"
