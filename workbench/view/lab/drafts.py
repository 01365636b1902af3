"""What the user wrote in the reward lab, on disk below the runs root: the draft in the editor, saved versions, test cases.

In: code with the weights of its functions. Out: the same after a reload, a restart or a crash. A saved version never changes.
"""

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from workbench.core.errors import RewardError, RunError
from workbench.record.files import STATE_FOLDER, make_folder, write_bytes, write_json
from workbench.rewards.api import source

MAX_CODE_BYTES = 2 * 2**20
"""Most bytes of code."""
MAX_CASES = 500
CODE_FILE = "reward.py"
"""File name of the editor's code in messages."""
STARTING_CODE = '''import re

FINAL = re.compile(r"<answer>((?:(?!<answer>).)*)</answer>\\s*$", re.DOTALL)


def correct(completion: str, answer: str) -> float:
    """1 where the final answer is the reference answer."""
    found = FINAL.search(completion)
    final = found[1].strip() if found else None
    return float(final == answer)
'''
_VERSION = re.compile(r"v(\d{1,6})\.json")


class RewardPart(BaseModel):
    """Weight of one function of the code, and whether it counts."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    name: str = Field(max_length=200)
    weight: float = 1.0
    enabled: bool = True


class RewardCode(BaseModel):
    """Code, with the weights of its functions."""

    model_config = ConfigDict(extra="forbid")
    code: str
    parts: Annotated[list[RewardPart], Field(max_length=200)] = Field(default_factory=list)

    def checked(self) -> "RewardCode":
        """Itself. Raises RewardError where the code is too long to be saved."""
        size = len(self.code.encode("utf-8", "surrogatepass"))
        if size > MAX_CODE_BYTES:
            raise RewardError(
                f"The code has {size / 2**20:.1f} MB; at most {MAX_CODE_BYTES / 2**20:.0f} MB are saved. Put data into a file of "
                "its own and read it from there."
            )
        return self


class Case(BaseModel):
    """A test case: a prompt, its reference answer and a completion that the user typed."""

    model_config = ConfigDict(extra="forbid")
    prompt: str = Field("", max_length=100_000)
    answer: str = Field("", max_length=100_000)
    completion: str = Field("", max_length=1_000_000)


class Version(NamedTuple):
    """A saved version of reward code."""

    number: int
    title: str
    created: float
    sha: str
    """SHA-256 of the code's bytes: the name of its copy in a run."""
    code: str
    parts: list[RewardPart]
    path: Path

    def json(self) -> dict[str, Any]:
        """As the page receives it."""
        return {
            "n": self.number, "title": self.title, "created": self.created, "sha": self.sha, "code": self.code,
            "parts": [part.model_dump() for part in self.parts], "path": str(self.path),
        }  # fmt: skip


class Drafts:
    """The lab's folder. Thread-safe; two dashboards on one runs root share it."""

    def __init__(self, root: Path) -> None:
        self.folder = root / STATE_FOLDER / "lab"
        self._lock = threading.Lock()

    # -- the draft -----------------------------------------------------------------------------------------

    def draft(self) -> dict[str, Any]:
        """{code, parts, base, revision}: the last text of the editor. `base`: the version it was derived from."""
        kept = self._read("draft.json")
        newest = self.versions()[-1:]
        if kept is not None:
            return kept
        if newest:
            return {
                "code": newest[0].code,
                "parts": newest[0].json()["parts"],
                "base": newest[0].number,
                "revision": 0,
            }
        return {
            "code": STARTING_CODE,
            "parts": [RewardPart(name="correct").model_dump()],
            "base": None,
            "revision": 0,
        }

    def write(self, written: RewardCode, base: int | None, revision: int) -> dict[str, Any]:
        """Save the editor's text: {revision, rescued}. Where another tab has written since, its text is saved as a version first
        (`rescued`). Raises RewardError, RunError."""
        written.checked()
        with self._lock:
            there = self._read("draft.json")
            rescued = None
            if there is not None and there["revision"] != revision and self._is_new(there["code"], written):
                parts = [RewardPart(**part) for part in there["parts"]]
                rescued = self._keep(RewardCode(code=there["code"], parts=parts), "from another tab").number
            revision = max(revision, there["revision"] if there else 0) + 1
            draft = {**written.model_dump(), "base": base, "revision": revision}
            self._write("draft.json", draft, durable=False)
        return {"revision": revision, "rescued": rescued}

    # -- versions ------------------------------------------------------------------------------------------

    def versions(self) -> list[Version]:
        """All saved versions, oldest first. A damaged one is left out."""
        try:
            numbers = sorted(
                int(m[1]) for entry in os.scandir(self.folder) if (m := _VERSION.fullmatch(entry.name))
            )
        except FileNotFoundError:
            return []
        found = [self._version(number) for number in numbers]
        return [version for version in found if version is not None]

    def version(self, number: int) -> Version:
        """A version by number. Raises RunError."""
        found = self._version(number)
        if found is None:
            raise RunError(f"There is no version v{number} in this lab (any more).")
        return found

    def keep(self, written: RewardCode, title: str = "") -> Version:
        """Save a new version; returns the newest one where that is the same. Raises RewardError, RunError."""
        written.checked()
        source.parse(written.code.encode("utf-8", "surrogatepass"), CODE_FILE)
        with self._lock:
            for version in self.versions()[-1:]:
                if version.code == written.code and version.parts == written.parts:
                    return version
            return self._keep(written, title)

    def _is_new(self, code: str, written: RewardCode) -> bool:
        """Whether `code` would be lost if `written` replaced it."""
        return bool(code.strip()) and code != written.code and all(v.code != code for v in self.versions())

    def _keep(self, written: RewardCode, title: str) -> Version:
        self._make()
        code = written.code.encode("utf-8", "surrogatepass")
        number = max((version.number for version in self.versions()), default=0)
        while True:
            number += 1
            path = self.folder / f"v{number}.py"
            try:  # exclusive creation: two dashboards never take the same number
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                continue
            except OSError as error:
                raise self._refusal(error) from error
            os.close(descriptor)
            break
        about = {
            "title": title, "created": time.time(), "sha": hashlib.sha256(code).hexdigest(),
            "parts": [part.model_dump() for part in written.parts],
        }  # fmt: skip
        try:
            write_bytes(path, code)
            path.chmod(0o400)  # the code that was tried is the code that runs
        except OSError as error:
            raise self._refusal(error) from error
        self._write(f"v{number}.json", about)
        return self.version(number)

    def _version(self, number: int) -> Version | None:
        about = self._read(f"v{number}.json")
        path = self.folder / f"v{number}.py"
        try:
            raw = path.read_bytes()
            if about is None or hashlib.sha256(raw).hexdigest() != about["sha"]:
                return None
            parts = [RewardPart(**part) for part in about["parts"]]
            return Version(
                number, str(about["title"]), float(about["created"]), about["sha"],
                raw.decode("utf-8", "surrogatepass"), parts, path,
            )  # fmt: skip
        except (OSError, KeyError, TypeError, ValueError):
            return None

    # -- test cases ----------------------------------------------------------------------------------------

    def cases(self) -> list[Case]:
        """The user's test cases."""
        kept = self._read("cases.json")
        return [Case(**row) for row in kept["cases"]] if kept else []

    def write_cases(self, cases: Sequence[Case]) -> None:
        """Save them. Raises RunError."""
        self._write("cases.json", {"cases": [case.model_dump() for case in cases[:MAX_CASES]]}, durable=False)

    # -- files ---------------------------------------------------------------------------------------------

    def _make(self) -> None:
        try:
            make_folder(self.folder)
        except OSError as error:
            raise self._refusal(error) from error

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found = json.loads((self.folder / name).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _write(self, name: str, value: dict[str, Any], *, durable: bool = True) -> None:
        self._make()
        text = json.dumps(value, ensure_ascii=True)  # lone surrogates survive
        try:
            if durable:
                write_json(self.folder / name, json.loads(text))
            else:
                write_bytes(self.folder / name, text.encode(), durable=False)
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> RunError:
        return RunError(
            f"The lab cannot write to {self.folder}: {error.strerror or error}. What you typed stays in this page; free disk space, "
            "then go on typing."
        )
