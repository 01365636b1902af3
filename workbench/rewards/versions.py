"""The rewards of a run as they change while it runs: each version of their code lies in the run folder, named by its hash.

In: `RewardSpec`s, and the run's record of the rewards it began with. Out: sources for the pool in the worker; for a client that
asks for a change, specs that name the exact version, and the code that the run does not have yet.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.core.config import RewardSpec
from workbench.core.errors import RewardError
from workbench.rewards.api import source
from workbench.rewards.api.decorator import registered
from workbench.rewards.api.source import VERSION_DIGITS, SourceText
from workbench.rewards.builtin import catalogue
from workbench.rewards.runtime import registry
from workbench.rewards.runtime.registry import RewardSource

_VERSION = re.compile(rf"[0-9a-f]{{{VERSION_DIGITS}}}")
Records = Sequence[Mapping[str, Any]]


class RewardUpdate(NamedTuple):
    """A change of rewards, ready to be sent to the run."""

    specs: list[RewardSpec]
    files: dict[str, str]
    """Code that the run lacks, by version."""


def sources(specs: Sequence[RewardSpec], folder: Path, records: Records) -> list[RewardSource]:
    """The rewards for a pool, from the code in the run folder and the catalogue alone. Raises RewardError."""
    return registry.save_checked(specs, texts(specs, folder, records), folder)


def texts(specs: Sequence[RewardSpec], folder: Path, records: Records) -> list[SourceText]:
    """The code of each reward: the run's own copy, or the catalogue's. Raises RewardError."""
    found = []
    for spec in specs:
        text = known_text(spec, folder, records)
        if text is None and spec.name in catalogue.REWARDS:
            text = catalogue.source_of(spec.name)
        if text is None:
            raise RewardError(
                f"The run has no code for reward {spec.name}. Send it with `workbench set RUN rewards=...`."
            )
        found.append(text)
    return found


def prepare_update(
    specs: Sequence[RewardSpec], folder: Path, records: Records, *, fresh: bool = True
) -> RewardUpdate:
    """Check rewards that a run is to use from now on. `fresh`: the user's files and functions are read again, else the run's copy
    is kept where it has one. Raises RewardError for what cannot work."""
    wanted = [current_text(spec, folder, records, fresh=fresh) for spec in specs]
    with tempfile.TemporaryDirectory(prefix="workbench-rewards-") as temporary:
        registry.save_checked(specs, wanted, Path(temporary))
    named, files = [], {}
    for spec, text in zip(specs, wanted, strict=True):
        known = known_text(spec, folder, records)
        if not text.ours and (known is None or known.sha != text.sha):
            files[text.version] = text.code.decode()
            spec = spec.model_copy(update={"version": text.version})
        named.append(spec)
    return RewardUpdate(named, files)


def receive(files: Mapping[str, str], folder: Path) -> None:
    """Save code that was sent. Raises RewardError where a name is not the hash of its code."""
    for version, code in files.items():
        text = SourceText(code.encode(), "", version)
        if text.version != version:
            raise RewardError(
                f"The code that was sent is not version {version[:VERSION_DIGITS]}. Send it again."
            )
        source.save([text], folder)


def current_text(spec: RewardSpec, folder: Path, records: Records, *, fresh: bool) -> SourceText:
    """The code that this reward means now. `fresh`: the user's files and functions as they are at this moment, else the run's
    copy where it has one. Raises RewardError."""
    own = source.is_file(spec.name) or spec.name in registered
    known = None if fresh and own and not spec.version else known_text(spec, folder, records)
    return known or registry.find(spec.name)


def known_text(spec: RewardSpec, folder: Path, records: Records) -> SourceText | None:
    """The code that the run has for a reward: the version that is named, or the one it began with. Raises RewardError."""
    if spec.version:
        return _of_version(spec, folder)
    record = next((one for one in records if _is_of(spec, one)), None)
    if record is None:
        return None
    code = source.read_saved(folder, record["sha"], record["name"])
    return SourceText(code, record["function"], record["file"], record["ours"])


def _of_version(spec: RewardSpec, folder: Path) -> SourceText:
    if not _VERSION.fullmatch(spec.version) or not source.saved_path(folder, spec.version).is_file():
        kept = ", ".join(sorted(path.stem for path in folder.glob("*.py"))) or "none"
        raise RewardError(f"The run has no version {spec.version} of reward {spec.name}. It keeps: {kept}.")
    code = source.read_saved(folder, spec.version, spec.name)
    file, function = _file_and_function(spec)
    return source.from_code(code, function, file)


def _is_of(spec: RewardSpec, record: Mapping[str, Any]) -> bool:
    """Whether this record is of this reward, whatever its weight."""
    file, function = _file_and_function(spec)
    return function in (None, record["function"]) and (
        record["file"] == file or not source.is_file(spec.name)
    )


def _file_and_function(spec: RewardSpec) -> tuple[str, str | None]:
    """The name of its code for the user, and its function."""
    if not source.is_file(spec.name):
        return f"the code of {spec.name}", spec.name
    path, function = source.file_and_function(spec.name)
    return Path(path).name, function
