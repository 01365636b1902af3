"""The lines behind a reward's number: the function as it was saved with the run, and the helpers it calls.

In: a run and the name of one of its rewards. Out: plain JSON. The code is only read, never loaded.
"""

import ast
from typing import Any

from workbench.core.errors import RewardError, RunError
from workbench.diagnose import whatif
from workbench.record.reader import Reader
from workbench.rewards import versions
from workbench.rewards.api.source import SourceText
from workbench.rewards.builtin import catalogue
from workbench.rewards.runtime import registry

Json = dict[str, Any]
_Function = ast.FunctionDef | ast.AsyncFunctionDef
MOST_LINES = 400


def reward_code(reader: Reader, name: str, step: int | None = None) -> Json:
    """{"name", "file", "function", "ours", "since", "parts": [{"name", "first", "lines"}]}: the reward's function first, as
    it was in force at `step`, or is now; `since` is the step that brought this code, None where the run began with it; `later`
    the step of the next change of it, None where there is none.
    Raises RunError for a reward that this run did not have then, or whose code is gone."""
    records = {record["name"]: record for record in reader.folder.about().get("rewards", [])}
    record = records.get(name)
    since = None
    if (changed := _changed(reader, name, step)) is not None:
        since, (code, function, file, ours) = changed
        text = code.decode("utf-8", errors="replace")
    elif record is not None:
        path = reader.folder.rewards / f"{record['sha'][:16]}.py"
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise RunError(f"The saved code of reward {name!r} cannot be read: {error}.") from error
        function, file, ours = record["function"], record["file"], record["ours"]
    elif name in catalogue.REWARDS:
        found = catalogue.source_of(name)
        text, function, file, ours = found.code.decode(), found.function, found.file, True
    else:
        known = ", ".join(records) or "none with saved code"
        raise RunError(f"This run has no reward {name[:60]!r}. It has: {known}.")
    return {
        "name": name,
        "file": file,
        "function": function,
        "ours": ours,
        "since": since,
        "later": None if step is None else _later(reader, name, step),
        "parts": parts(text, function),
    }


def _changed(reader: Reader, name: str, step: int | None) -> tuple[int, SourceText] | None:
    """The code that replaced this reward while the run trained, and the step from which on it has been in force; None where
    the code of the start still was."""
    records = reader.folder.about().get("rewards", [])
    found: tuple[int, SourceText] | None = None
    for since, config in whatif.settings_over_time(reader):
        if step is not None and since > step:
            break
        if not any(spec.version for spec in config.rewards):
            found = None
            continue
        try:
            texts = versions.texts(config.rewards, reader.folder.rewards, records)
        except (RewardError, OSError) as error:
            raise RunError(f"The saved code of reward {name!r} cannot be read: {error}") from error
        names = registry.unique_names(texts)
        text = next(
            (
                text
                for one, text, spec in zip(names, texts, config.rewards, strict=True)
                if one == name and spec.version
            ),
            None,
        )
        if text is None or found is None or found[1].code != text.code:
            found = text and (since, text)
    return found


def _later(reader: Reader, name: str, step: int) -> int | None:
    before = _changed(reader, name, step)
    for since in sorted({start for start, _ in whatif.settings_over_time(reader) if start > step}):
        if _changed(reader, name, since) != before:
            return since
    return None


def parts(text: str, function: str) -> list[Json]:
    """The function and the functions of the same file that it calls, in this order; the whole text where it
    cannot be taken apart."""
    lines = text.splitlines()
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # a null byte, a language of the future
        return [{"name": function, "first": 1, "lines": lines[:MOST_LINES]}]
    there: dict[str, _Function] = {
        node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    if function not in there:
        return [{"name": function, "first": 1, "lines": lines[:MOST_LINES]}]
    chosen = [function]
    for name in chosen:  # grows while it is walked: helpers of helpers count too
        called = {node.id for node in ast.walk(there[name]) if isinstance(node, ast.Name)}
        chosen += [other for other in there if other in called and other not in chosen]
    return [_part(there[name], lines) for name in chosen]


def _part(node: _Function, lines: list[str]) -> Json:
    first = node.lineno
    end = min(node.end_lineno or first, first + MOST_LINES)
    return {"name": node.name, "first": first, "lines": lines[first - 1 : end]}
