"""A user's own prompts: finds the prompt and answer columns, refuses bad rows before the start, sets a
held-out part aside.

In: RunConfig (`data`, `data_split`, `heldout`, `prompt_column`, `answer_column`, `eval_problems`). Out: a
`Split`.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from workbench.core import tags
from workbench.core.config import RunConfig
from workbench.core.errors import DataError
from workbench.core.types import Prompt
from workbench.prompts import rows
from workbench.prompts.rows import Row, Table
from workbench.prompts.task import Split

PROMPT_COLUMNS = ("prompt", "question", "problem", "input", "messages")
ANSWER_COLUMNS = ("answer", "solution", "target", "output")
_NESTED_REFERENCE = "reward_model.ground_truth"
"""Where verl keeps the reference answer."""
ROLES = ("system", "user", "assistant")
MESSAGES = "prompt_messages"
"""Column that keeps a chat-style prompt as it was, for the chat template."""
ROW = "row"
"""Column with the row's number in its file, unless the data has one of that name."""

_HELD_OUT_SHARE = 0.1
_MARK = re.compile(r"####[ \t]*([-+$€£]?[ \t]*[\d.,/]*\d[\d.,/]*[ \t]*%?)\.?\s*\Z")


def load(config: RunConfig) -> Split:
    """Read `config.data` and split it. Raises DataError with the file and the rows."""
    if not config.data:
        raise DataError("No data is named. Set data to a file, a dataset folder or a Hub dataset.")
    table = rows.read_table(config.data, config.data_split)
    prompts, warnings = to_prompts(table, config.prompt_column, config.answer_column)
    if config.heldout is None:
        train, heldout = hold_out(prompts) if config.eval_problems else (prompts, [])
    else:
        heldout, more = to_prompts(_heldout_table(config), config.prompt_column, config.answer_column)
        questions = {prompt.question for prompt in heldout}
        train = [prompt for prompt in prompts if prompt.question not in questions]
        warnings += more
        if len(train) < len(prompts):
            warnings += (
                f"{len(prompts) - len(train)} prompts are also in the held-out data and are not trained on.",
            )
    if not train:
        raise DataError(
            f"{config.data}: no prompts are left to train on once the held-out ones are set aside. Add rows."
        )
    return Split(train, heldout[: config.eval_problems], warnings)


def _heldout_table(config: RunConfig) -> Table:
    """`heldout` names a file, or else a split of the same dataset."""
    assert config.data is not None and config.heldout is not None
    if Path(config.heldout).suffix.lower() in rows.SUFFIXES or Path(config.heldout).expanduser().is_file():
        return rows.read_table(config.heldout, config.data_split)
    if Path(config.data).expanduser().is_file():
        raise DataError(
            f"heldout = {config.heldout!r}: {config.data} is a single file and has no splits. Give a second "
            f"file ({', '.join(rows.SUFFIXES)}), or leave heldout empty to set a tenth aside."
        )
    return rows.read_table(config.data, config.heldout)


def hold_out(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """Hold out about a tenth, at least one prompt.

    Chosen by a hash of the question: the same for every seed and row order, and equal questions stay on one
    side.
    """
    keys = [sha256(prompt.question.encode()).digest() for prompt in prompts]
    count = max(1, round(_HELD_OUT_SHARE * len(prompts)))
    limit = sorted(keys)[count - 1]
    pairs = list(zip(prompts, keys, strict=True))
    return [prompt for prompt, key in pairs if key > limit], [prompt for prompt, key in pairs if key <= limit]


def to_prompts(
    table: Table, prompt_column: str | None = None, answer_column: str | None = None
) -> tuple[list[Prompt], tuple[str, ...]]:
    """All rows of a table as prompts, and warnings. Raises DataError."""
    table = _with_nested(table, [name for name in (prompt_column, answer_column) if name])
    prompt_column = _find_column(table, prompt_column, PROMPT_COLUMNS, "prompt")
    if prompt_column is None:
        raise DataError(
            f"{table.source}: no column is named {', '.join(PROMPT_COLUMNS[:-1])} or {PROMPT_COLUMNS[-1]}. "
            f"It has {', '.join(table.columns)}: set prompt_column to one of them."
        )
    if answer_column is None and "reward_model" in table.columns and not {*ANSWER_COLUMNS} & {*table.columns}:
        table = _with_nested(table, [_NESTED_REFERENCE])
    answer_column = _find_column(table, answer_column, (*ANSWER_COLUMNS, _NESTED_REFERENCE), "answer")
    _check_prompts(table, prompt_column)
    warnings = []
    if answer_column is None:
        warnings.append(
            f"{table.source}: no column is named {', '.join(ANSWER_COLUMNS)}, so rewards get answer = None. "
            f"It has {', '.join(table.columns)}: set answer_column if one of them holds the answers."
        )
    else:
        _check_answer_column(table, answer_column)
    result_of, note = _result_reader(table, answer_column)
    warnings += note
    prompts: dict[tuple[str, str | None], Prompt] = {}
    repeated = []
    for row in table.rows:
        prompt = _to_prompt(row, prompt_column, answer_column, result_of)
        key = (_text(row.values[prompt_column]), prompt.answer)
        if key in prompts:
            repeated.append(row.number)
        prompts.setdefault(key, prompt)
    if repeated:
        warnings.append(
            f"{rows.describe_rows(table.source, repeated)}: the same prompt and answer as before; left out."
        )
    return list(prompts.values()), tuple(warnings)


def _find_column(table: Table, named: str | None, usual: Sequence[str], what: str) -> str | None:
    if named is None:
        return next((name for name in usual if name in table.columns), None)
    if named not in table.columns:
        raise DataError(
            f"{table.source}: no column {named!r}. It has {', '.join(table.columns)}: set {what}_column to "
            "one of them."
        )
    return named


def _check_prompts(table: Table, prompt_column: str) -> None:
    kinds: dict[type, list[int]] = {}
    empty, malformed = [], []
    for row in table.rows:
        value = row.values[prompt_column]
        if (
            value is None
            or (isinstance(value, str | list) and not value)
            or (isinstance(value, str) and not value.strip())
        ):
            empty.append(row.number)
            continue
        kinds.setdefault(type(value), []).append(row.number)
        if isinstance(value, list) and not _is_chat(value):
            malformed.append(row.number)
    if empty:
        raise DataError(
            f"{rows.describe_rows(table.source, empty)}: {prompt_column} is empty. Fill or remove these rows."
        )
    wrong = [number for kind, numbers in kinds.items() if kind not in (str, list) for number in numbers]
    if wrong:
        raise DataError(
            f"{rows.describe_rows(table.source, wrong)}: {prompt_column} is no text. Give text, or a chat: a list of "
            '{"role", "content"}.'
        )
    if len(kinds) > 1:
        rare = min(kinds.values(), key=len)
        raise DataError(
            f"{rows.describe_rows(table.source, rare)}: {prompt_column} mixes text and chats; these are the rarer kind. Use one."
        )
    if malformed:
        raise DataError(
            f"{rows.describe_rows(table.source, malformed)}: not a chat that can be answered. Give a list of "
            '{"role", "content"} with texts, roles system, user or assistant, system only first, and a user '
            "message last."
        )


def _is_chat(value: list[Any]) -> bool:
    for place, message in enumerate(value):
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
            return False
        role = message.get("role")
        if role not in ROLES or not message["content"].strip() or (role == "system" and place > 0):
            return False
    return bool(value[-1]["role"] == "user")


def _with_nested(table: Table, names: Sequence[str]) -> Table:
    """The table with a column for each name that leads into nested ones, such as `reward_model.ground_truth`."""
    for name in names:
        first, dot, path = name.partition(".")
        if name in table.columns or not dot or first not in table.columns:
            continue
        found = [
            Row(row.number, {**row.values, name: _inside(row.values[first], path)}) for row in table.rows
        ]
        if all(row.values[name] is None for row in found):
            keys = sorted(
                {
                    str(key)
                    for row in table.rows
                    if isinstance(row.values[first], dict)
                    for key in row.values[first]
                }
            )
            raise DataError(
                f"{table.source}: {first} holds no {path!r}. "
                + (
                    f"It holds {', '.join(keys)}: name one as {first}.{keys[0]}."
                    if keys
                    else "It holds no named values."
                )
            )
        table = Table(table.source, (*table.columns, name), found)
    return table


def _inside(value: Any, path: str) -> Any:
    """The value at a path of names joined by dots; JSON in a text is read; None where there is none."""
    for name in path.split("."):
        if isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _result_reader(table: Table, answer_column: str | None) -> tuple[Callable[[str], str], list[str]]:
    """How the reference is taken from a column, and a warning where most rows hold a worked solution that ends in a result."""
    texts = [] if answer_column is None else [_text(row.values[answer_column]) for row in table.rows]
    for ending, reader in (("#### 42", _after_mark), ("\\boxed{42}", _in_box)):
        worked = [text for text in texts if reader(text) != text and len(text.split()) > 1]
        if 2 * len(worked) > len(texts):
            rest = [row.number for row, text in zip(table.rows, texts, strict=True) if reader(text) == text]
            warning = (
                f"{table.source}: {answer_column} holds worked solutions that end in {ending}; the result alone is the reference answer"
                f" (the first is {reader(worked[0])!r})."
            )
            if rest:
                warning += f" {rows.describe_rows(table.source, rest)}: no such end, taken whole."
            return reader, [warning]
    return str, []


def _after_mark(text: str) -> str:
    """The number after the `####` that ends the text, without thousands commas, as in GSM8K; else the text."""
    found = _MARK.search(text)
    return re.sub(r",(?=\d{3}(?!\d))", "", found[1]).strip() if found else text


def _in_box(text: str) -> str:
    box = tags.last_box(text)
    return text if box is None else box


def _check_answer_column(table: Table, answer_column: str) -> None:
    missing = [
        row.number
        for row in table.rows
        if row.values[answer_column] is None or row.values[answer_column] == ""
    ]
    if missing:
        raise DataError(
            f"{rows.describe_rows(table.source, missing)}: {answer_column} is empty. Fill or remove these rows."
        )


def _to_prompt(
    row: Row, prompt_column: str, answer_column: str | None, result_of: Callable[[str], str]
) -> Prompt:
    columns = {
        name: _plain(value)
        for name, value in row.values.items()
        if name not in (prompt_column, answer_column)
    }
    columns.setdefault(ROW, row.number)
    value = row.values[prompt_column]
    if isinstance(value, list):
        columns[MESSAGES] = [{"role": message["role"], "content": message["content"]} for message in value]
    answer = None if answer_column is None else result_of(_text(row.values[answer_column]))
    own_names = {
        name: _plain(row.values[name])
        for name in (prompt_column, answer_column)
        if name is not None and name not in ("prompt", "answer")
    }
    return Prompt(_question(value), answer, columns, own_names=own_names)


def _plain(value: Any) -> Any:
    """The value where JSON can hold it (the record does so), else its text: dates, decimals, bytes."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
    return value


def _question(value: Any) -> str:
    """What a person reads of a prompt: a single user message as it is, a dialogue with its roles."""
    if isinstance(value, str):
        return value
    turns = [message for message in value if message["role"] != "system"]
    if len(turns) == 1:
        return str(turns[0]["content"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in turns)


def _text(value: Any) -> str:
    """Reference answers are text to rewards; numbers as Python writes them, lists and objects as JSON."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
