"""Draws docs/images/architecture.svg from the code itself: the eight stages with file and function, and the rooms in the order of
their import contract. `python docs/generate.py` writes it; a stage whose function is gone stops it, and a test compares.
"""

import ast
import html
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Stage(NamedTuple):
    """One stage of a step: the function that a reader should open first."""

    name: str
    file: str
    function: str
    gives: str


STAGES = (
    Stage("prompts", "prompts/stream.py", "PromptStream.at", "what is asked"),
    Stage("rollouts", "train/rollout_stage.py", "rollout_stage", "G samples a prompt"),
    Stage("rewards", "train/reward_stage.py", "RewardStage.score", "a score each"),
    Stage("advantages", "train/compute_advantages.py", "compute_advantages", "A = (r − mean) / std"),
    Stage("losses", "algorithm/token_grads.py", "loss_grads", "∂loss/∂log π a token"),
    Stage("update", "train/update.py", "Updater.step", "new weights"),
    Stage("record", "train/step_recorder.py", "StepRecorder.step", "a row a sample"),
)
FOLDER = ("config.json", "status.json", "run.db", "tokens/", "checkpoints/", "final/", "control/", "notes.db")
READERS = (
    ("dashboard", "view/server/app.py", "build"),
    ("notebook", "run.py", "Run"),
    ("command line", "cli.py", "main"),
)
ROOMS = {
    "cli": "names of the commands",
    "commands": "the command line, a file per purpose",
    "api": "the notebook's functions: start, open_run, try_reward, rescore",
    "run": "Run, as a notebook holds it",
    "view": "the dashboard: server/, one folder a page, common/",
    "worker": "the process around a run: entry, signals, heartbeat, probes/",
    "launch": "preflight, start, device lease, commands to a run and their replies; no torch",
    "train": "grpo.py (the loop), the stages, update, checkpointing/, distributed/",
    "diagnose": "metrics, verdict, alarms/, what-if, rescoring, theory; no torch",
    "rollouts": "Engine protocol and the engines: prompts in, groups with log-probabilities out",
    "models": "load, log-probs, fast/, embedded/",
    "rewards": "api/, builtin/, runtime/ (processes)",
    "record": "the run folder: writer, reader, control/",
    "prompts": "tasks, own data, prompt stream",
    "sandbox": "where model-written code runs",
    "scorers": "reward models",
    "algorithm": "advantages, per-token gradients, losses, KL controllers: pure functions over the array interface",
    "core": "types, errors, settings, variants (losses, KL estimators), presets, glossary, estimate",
}
WIDTH, MARGIN = 1180, 24
STYLE = """
  text { font-family: 'IBM Plex Sans', system-ui, sans-serif; font-size: 13px; fill: #1d2526 }
  .b { font-weight: 700 } .m { font-family: 'IBM Plex Mono', ui-monospace, monospace; font-size: 11px } .q { fill: #5d6b6d }
  .f { font-family: 'IBM Plex Mono', ui-monospace, monospace; font-size: 10px }
  .box { fill: #ffffff; stroke: #c9d1d1 } .run { fill: #e7f1f0; stroke: #2a7f7a } .room { fill: #f4f6f6; stroke: #d6dcdc }
  .page { fill: #fbfbfa } .arrow { stroke: #2a7f7a; stroke-width: 1.5; fill: none; marker-end: url(#head) }
"""


def picture() -> str:
    """The whole SVG."""
    parts: list[str] = []
    height = _process(parts, 56)
    height = _folder(parts, height + 46)
    height = _readers(parts, height + 46)
    height = _rooms(parts, height + 44) + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="The eight stages, the run folder between the process that trains and everything that reads, and the rooms">'
        f"<style>{STYLE}</style><defs><marker id='head' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
        f"<path d='M0 0L8 4L0 8z' fill='#2a7f7a'/></marker></defs>"
    )
    return head + _rect(0, 0, WIDTH, height, "page", 0) + "".join(parts) + "</svg>\n"


def _process(parts: list[str], top: int) -> int:
    parts.append(_text(MARGIN, top - 26, "The worker process: train/grpo.py calls the stages in order", "b"))
    parts.append(
        _text(
            MARGIN,
            top - 8,
            "step_boundary between two steps: evaluate, apply commands, checkpoint, stop",
            "q",
        )
    )
    gap = 18
    width = (WIDTH - 2 * MARGIN - gap * (len(STAGES) - 1)) / len(STAGES)
    for number, stage in enumerate(STAGES):
        _exists(stage.file, stage.function)
        left = MARGIN + number * (width + gap)
        parts += [
            _rect(left, top, width, 88, "box"),
            _text(left + 10, top + 22, f"{number + 1}. {stage.name}", "b"),
            _text(left + 10, top + 42, stage.function, "m"),
            _text(left + 10, top + 57, stage.file.rpartition("/")[2], "f q"),
            _text(left + 10, top + 78, stage.gives, "q"),
        ]
        if number:
            parts.append(f'<path class="arrow" d="M{left - gap + 2:.0f} {top + 44}H{left - 2:.0f}"/>')
    return top + 88


def _folder(parts: list[str], top: int) -> int:
    parts += [
        _rect(MARGIN, top, WIDTH - 2 * MARGIN, 62, "run"),
        _text(
            MARGIN + 14,
            top + 25,
            "The run folder, runs/<id>/: the only thing between the process that trains and everything that looks",
            "b",
        ),
        _text(MARGIN + 14, top + 46, "   ".join(FOLDER), "m"),
    ]
    middle = WIDTH - MARGIN - 70
    parts.append(f'<path class="arrow" d="M{middle} {top - 44}V{top - 3}"/>')
    parts.append(_text(middle - 96, top - 18, "writes rows", "q"))
    parts.append(f'<path class="arrow" d="M{MARGIN + 70} {top - 3}V{top - 44}"/>')
    parts.append(_text(MARGIN + 82, top - 18, "commands in control/ are applied at a step boundary", "q"))
    return top + 62


def _readers(parts: list[str], top: int) -> int:
    width, gap = 250, 24
    left = (WIDTH - len(READERS) * width - (len(READERS) - 1) * gap) / 2
    for number, (name, file, function) in enumerate(READERS):
        _exists(file, function)
        x = left + number * (width + gap)
        parts += [
            _rect(x, top, width, 48, "box"),
            _text(x + 12, top + 20, f"8. view: {name}", "b"),
            _text(x + 12, top + 38, f"{file}: {function}", "m q"),
        ]
        parts.append(f'<path class="arrow" d="M{x + width / 2 - 16:.0f} {top - 44}V{top - 3}"/>')
        parts.append(f'<path class="arrow" d="M{x + width / 2 + 16:.0f} {top - 3}V{top - 44}"/>')
    return top + 48


def _rooms(parts: list[str], top: int) -> int:
    parts.append(
        _text(
            MARGIN, top, "Rooms: each imports only rooms in rows below it (contracts in pyproject.toml)", "b"
        )
    )
    top += 14
    for row in tiers():
        x: float = MARGIN
        for room in row:
            words = ROOMS[room]
            width = (WIDTH - 2 * MARGIN - 12 * (len(row) - 1)) / len(row)
            parts += [_rect(x, top, width, 28, "room", 4), _text(x + 10, top + 18, room, "b")]
            parts.append(_text(x + 96, top + 18, words, "q"))
            x += width + 12
        top += 34
    return top


def tiers() -> list[list[str]]:
    """The rooms by row, from the contract that a test enforces; rooms of one row do not import each other."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c.get("containers") == ["workbench"])
    return [[room.strip() for room in row.split("|")] for row in layers if row != "__main__"]


def _exists(file: str, name: str) -> None:
    """Raises LookupError for a function that is not where the picture says."""
    body = ast.parse((ROOT / "workbench" / file).read_text()).body
    for part in name.split("."):
        found = [n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == part]
        if not found:
            raise LookupError(f"workbench/{file} has no {name}: correct docs/picture.py")
        body = found[0].body


def _rect(x: float, y: float, width: float, height: float, css: str, radius: int = 6) -> str:
    return f'<rect class="{css}" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="{radius}"/>'


def _text(x: float, y: float, text: str, css: str = "") -> str:
    return f'<text class="{css}" x="{x:.0f}" y="{y:.0f}" xml:space="preserve">{html.escape(text)}</text>'
