"""The package speaks the field's language: names, comments and docstrings use the terms of TRL and the papers.

`python tests/meta/test_words.py [PATH]` lists what is left below a path, by file and line. Sentences that people read on a page are not
held to this: they are plain English.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[2] / "workbench"
INSTEAD = {
    "credit": "advantages, compute_advantages",
    "crew": "worker group",
    "wish": "live setting, command",
    "wishes": "live settings, commands",
    "told": "reply, log line, message",
    "tell": "broadcast, say in the log",
    "tells": "broadcast, report",
    "said": "completion, reply, output",
    "hear": "receive",
    "nobody": "no process, no client",
    "somebody": "a user, a process",
    "gold": "reference answer",
    "workshop": "process cache",
    "pieces": "microbatches, chunks",
    "bench": "probe worker, probe client",
}
"""Words of no name and no comment, with what to write."""
NAMES = {
    "collect": "rollout_stage",
    "scoring": "reward_stage",
    "recording": "step_recorder",
    "pools": "reward_pool",
    "passes": "microbatch",
    "shares": "update_stats",
    "controllers": "kl_controllers",
    "safety": "checkpointing, oom, guards",
    "room": "disk_space",
    "origin": "provenance",
    "warm": "process_cache",
    "wire": "messages",
    "loaded": "runner",
    "declare": "decorator",
    "spare": "replacement_prompts",
    "whole": "on_group_done",
    "asks": "requests",
    "asked": "requested",
}
"""Names on their own that stand for something the field has a word for."""
PHRASES = {
    r"lends? a hand": "help, work as a rank",
    r"look(?:s|ed|ing)? back": "post-update log-probabilities",
    r"pull to the (?:base|reference)": "KL penalty",
    r"longest answer": "max completion length",
    r"std guard": "advantage epsilon",
    r"last word": "final status",
}
PROTOCOLS = {"tell"}
"""Methods of a protocol that is not ours: a file's position."""
ANSWER = re.compile(
    r"(?<!reference )(?<!final )(?<!expected )(?<!right )(?<!wrong )(?<!correct )(?<!boxed )(?<!`)(?<!<)(?<!/)(?<!_)(?<!\")\banswer(?:s|ed|ing)?\b(?! column)(?! tag)(?!`)(?!>)(?!\")(?!_)",
    re.I,
)
"""A completion is no answer; an answer is the data's reference answer, the final answer inside a completion, or the public column."""
ANSWER_NAMES = re.compile(
    r"(?:reference|final|expected|boxed|right|wrong|correct)_answers?|answers?(?:_column|_tag|_columns)?|.*_answer_column"
)
PUBLIC = {
    ("run.py", "tell"),
    ("diagnose/agreement.py", "said"),
    ("rewards/api/dialects.py", "parse_answer"),  # a method of the `parser` that verifiers passes
    ("rewards/builtin/answers.py", "partial_credit"),  # the name of a reward in configs
}
"""Names that users already have in their notebooks, by file."""
FILES = re.compile(r"sandbox/programs/|vendor/|common/fonts/")


class Hit(NamedTuple):
    """One word that should not be there."""

    file: str
    line: int
    word: str
    where: str


def parts(name: str) -> list[str]:
    """The words of an identifier."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def in_name(name: str) -> str | None:
    """The word of a name that should not be there."""
    if name in PROTOCOLS:
        return None
    words = parts(name)
    if bad := next((word for word in words if word in INSTEAD), None):
        return bad
    bare = name.strip("_").lower()
    if bare in NAMES:
        return bare
    if {"answer", "answers", "answered", "answering"} & set(words) and not ANSWER_NAMES.fullmatch(bare):
        return "answer"
    return None


def in_text(text: str) -> Iterator[tuple[int, str]]:
    """(line offset, word) of each word of a comment or docstring that should not be there."""
    bare = re.sub(r"`[^`]*`", "`", text)
    for number, line in enumerate(bare.splitlines() or [""]):
        for word in re.findall(r"[A-Za-z]+", line):
            if word.lower() in INSTEAD:
                yield number, word
        for phrase in PHRASES:
            if re.search(rf"\b{phrase}\b", line, re.I):
                yield number, phrase
        if ANSWER.search(line):
            yield number, "answer"


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of everything that a module defines: functions, classes, arguments, variables, attributes, aliases."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)) or (
            isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        ):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, text) of docstrings, those below attributes included."""
    for node in ast.walk(tree):
        for statement in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                yield statement.lineno, statement.value.value


def of_python(path: Path) -> Iterator[Hit]:
    """Hits of one Python file."""
    text, file = path.read_text(), path.relative_to(PACKAGE).as_posix()
    tree = ast.parse(text)
    if bad := in_name(path.stem):
        yield Hit(file, 1, bad, "module")
    for line, name in names(tree):
        if (bad := in_name(name)) and (file, name) not in PUBLIC:
            yield Hit(file, line, bad, f"name {name}")
    for line, found in docstrings(tree):
        for offset, word in in_text(found):
            yield Hit(file, line + offset, word, "docstring")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            for _, word in in_text(token.string):
                yield Hit(file, token.start[0], word, "comment")


def of_script(path: Path) -> Iterator[Hit]:
    """Hits of one JavaScript file: comments, and the names it declares."""
    text, file = path.read_text(), path.relative_to(PACKAGE).as_posix()
    if bad := in_name(path.stem):
        yield Hit(file, 1, bad, "module")
    for match in re.finditer(r"/\*.*?\*/|(?<![:\"'`\w])//[^\n]*", text, re.S):
        for offset, word in in_text(match.group()):
            yield Hit(file, text.count("\n", 0, match.start()) + 1 + offset, word, "comment")
    for match in re.finditer(r"\b(?:const|let|function\*?|class)\s+([A-Za-z_$][\w$]*)", text):
        if bad := in_name(match[1]):
            yield Hit(file, text.count("\n", 0, match.start()) + 1, bad, f"name {match[1]}")


def hits(below: Path = PACKAGE) -> list[Hit]:
    """Everything below a folder that should not be there."""
    files = [below] if below.is_file() else sorted([*below.rglob("*.py"), *below.rglob("*.js")])
    kept = [path for path in files if not FILES.search(path.relative_to(PACKAGE).as_posix())]
    return [hit for path in kept for hit in (of_python if path.suffix == ".py" else of_script)(path)]


def test_names_and_comments_use_the_terms_of_the_field():
    assert [f"{hit.file}:{hit.line}: {hit.word} in {hit.where}" for hit in hits()] == []


def test_private_words_are_found_in_names_comments_and_docstrings():
    assert in_name("WarmCrew") == "crew"
    assert in_name("_pools") == "pools"
    assert in_name("answers_of") == "answer"
    assert in_name("reference_answer") is None
    assert in_name("answer") is None
    assert [word for _, word in in_text("# what nobody was told: each answer")] == [
        "nobody",
        "told",
        "answer",
    ]
    assert list(in_text("The reference answer, the column `answer` and the <answer> tag.")) == []


if __name__ == "__main__":
    for hit in hits(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else PACKAGE):
        print(f"workbench/{hit.file}:{hit.line}: {hit.word} in {hit.where}")
