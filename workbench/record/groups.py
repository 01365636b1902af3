"""Groups and their samples as plain dicts: the groups of a step, one group with its samples, one prompt over time.

In: a connection of the reader and the row of a step. Out: what routes send and the command line prints.
"""

import codecs
import itertools
import json
import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.core.errors import RunError
from workbench.record.tokens import SampleTokens

Json = dict[str, Any]
SAMPLE_COLUMNS = {
    "id": "id", "idx": "sample_index", "text": "completion", "length": "length", "finish_reason": "finish_reason",
    "reward": "reward", "right": "correct", "advantage": "advantage", "logprob_sum": "logprob_sum", "kl": "kl",
    "kl_sum": "kl_k1_sum", "entropy": "entropy", "gradient_share": "gradient_share", "delta_logp": "logprob_change",
    "seed": "seed", "weights_version": "policy_version", "style": "style", "logs_json": "logs_json",
}  # fmt: skip
"""Keys of JSON and of data frames, and the columns of `samples` behind them."""
SAMPLE = ", ".join(f"s.{column} AS {name}" for name, column in SAMPLE_COLUMNS.items())
GROUP = (
    "g.group_index AS k, g.prompt_id, g.size AS n, g.correct_count AS right, g.reward_mean, g.reward_std, "
    "g.zero_std AS dead"
)
"""The same for `groups`."""


def rows_of_step(db: sqlite3.Connection, step_id: int) -> list[Json]:
    """See `Reader.groups`."""
    groups = db.execute(
        f"SELECT g.id, {GROUP}, g.gradient_share, p.question, p.answer FROM groups g "
        "LEFT JOIN prompts p USING (prompt_id) WHERE g.step_id = ? ORDER BY g.group_index",
        (step_id,),
    ).fetchall()
    samples = db.execute(
        "SELECT group_id, reward, correct, length, finish_reason, advantage FROM samples WHERE step_id = ? "
        "ORDER BY sample_index",
        (step_id,),
    ).fetchall()
    dots: dict[int, list[Json]] = {group["id"]: [] for group in groups}
    for sample in samples:
        mine = dots[sample["group_id"]]
        mine.append({
            "i": len(mine), "reward": sample["reward"], "right": as_bool(sample["correct"]),
            "length": sample["length"], "cut": sample["finish_reason"] == "length",
            "advantage": sample["advantage"],
        })  # fmt: skip
    found = []
    for group in groups:
        mine = dots[group["id"]]
        found.append({
            **without(group, "id"),
            "a_right": _mean([dot["advantage"] for dot in mine if dot["right"]]),
            "a_wrong": _mean([dot["advantage"] for dot in mine if dot["right"] is False]),
            "dots": sorted(mine, key=_wrong_to_right),
        })  # fmt: skip
    return sorted(found, key=lambda row: (-(row["gradient_share"] or 0.0), bool(row["dead"]), row["k"]))


def one_group(
    db: sqlite3.Connection, step: sqlite3.Row, k: int, tokens_B: list[SampleTokens] | None, arrays: bool
) -> Json:
    """See `Reader.group`."""
    group = db.execute(
        f"SELECT g.id, {GROUP}, g.scored_count, g.gradient_share, p.question, p.prompt, p.answer, p.columns_json "
        "FROM groups g LEFT JOIN prompts p USING (prompt_id) WHERE g.step_id = ? AND g.group_index = ?",
        (step["id"], k),
    ).fetchone()
    if group is None:
        [(last,)] = db.execute(
            "SELECT max(group_index) FROM groups WHERE step_id = ?", (step["id"],)
        ).fetchall()
        there = "no groups" if last is None else f"no group {k}: its groups are numbered 0 to {last}"
        raise RunError(f"Step {step['step']} has {there}.")
    samples = db.execute(
        f"SELECT {SAMPLE} FROM samples s WHERE s.step_id = ? AND s.group_id = ? ORDER BY s.sample_index",
        (step["id"], group["id"]),
    ).fetchall()
    rewards = db.execute(
        "SELECT r.sample_id, r.name, r.value, r.reason FROM sample_rewards r "
        "JOIN samples s ON s.id = r.sample_id WHERE s.step_id = ? AND s.group_id = ?",
        (step["id"], group["id"]),
    ).fetchall()
    mine_B = [tokens_B[sample["idx"]] if tokens_B else None for sample in samples]
    texts = _token_texts(db, mine_B) if arrays else {}
    return {
        "step": step["step"], "group": k, "kind": step["kind"], "mode": step["mode"] or None,
        "prompt_id": group["prompt_id"], "prompt": group["prompt"], "question": group["question"],
        "answer": group["answer"], "columns": json.loads(group["columns_json"] or "{}"),
        "reward_mean": group["reward_mean"], "reward_std": group["reward_std"], "n": group["n"],
        "scored": group["scored_count"], "right": group["right"], "gradient_share": group["gradient_share"],
        "dead": group["dead"],
        "samples": [
            _sample(sample, i, [reward for reward in rewards if reward["sample_id"] == sample["id"]], found,
                    texts, arrays)
            for i, (sample, found) in enumerate(zip(samples, mine_B, strict=True))
        ],
    }  # fmt: skip


def completions(
    db: sqlite3.Connection,
    low: int,
    high: int,
    kind: str,
    mode: str | None,
    tokens_of: Callable[[sqlite3.Row], list[SampleTokens] | None],
) -> Iterator[Json]:
    """See `Reader.completions`."""
    only, arguments = (" AND mode = ?", (mode,)) if mode else ("", ())
    steps = db.execute(
        "SELECT id, step, kind, mode, tokens_kept FROM steps "
        f"WHERE current AND kind = ? AND step BETWEEN ? AND ?{only} ORDER BY step, mode",
        (kind, low, high, *arguments),
    ).fetchall()
    prompts: dict[str, Json] = {}
    for step in steps:
        rows = db.execute(
            "SELECT g.group_index AS k, g.prompt_id, s.id, s.sample_index, s.completion AS text, s.length, "
            "s.finish_reason, s.reward, s.correct, s.advantage FROM samples s JOIN groups g ON g.id = s.group_id "
            "WHERE s.step_id = ? ORDER BY s.sample_index",
            (step["id"],),
        ).fetchall()
        tokens_B = tokens_of(step)
        for _, found in itertools.groupby(rows, key=lambda row: row["k"]):
            mine = list(found)
            first = mine[0]
            if first["prompt_id"] not in prompts:
                prompts[first["prompt_id"]] = _prompt(db, first["prompt_id"])
            yield {
                "step": step["step"], "kind": step["kind"], "mode": step["mode"], "k": first["k"],
                "prompt_id": first["prompt_id"], **prompts[first["prompt_id"]],
                **{f"{name}s": [row[name] for row in mine]
                   for name in ("id", "text", "length", "finish_reason", "reward", "advantage")},
                "rights": [as_bool(row["correct"]) for row in mine],
                "tokens": [tokens_B[row["sample_index"]].token_ids.tolist() for row in mine] if tokens_B else None,
            }  # fmt: skip


def _prompt(db: sqlite3.Connection, prompt_id: str) -> Json:
    row = db.execute(
        "SELECT question, prompt, answer, columns_json FROM prompts WHERE prompt_id = ?", (prompt_id,)
    ).fetchone()
    return {**without(row, "columns_json"), "columns": json.loads(row["columns_json"] or "{}")}


def history(db: sqlite3.Connection, prompt_id: str, per_visit: int) -> list[Json]:
    """See `Reader.prompt_history`."""
    visits = db.execute(
        f"SELECT g.id, g.step_id, t.step, t.kind, t.mode, {GROUP} FROM groups g JOIN steps t ON t.id = g.step_id WHERE g.prompt_id = ? AND t.current "
        "ORDER BY t.step, t.kind, t.mode",
        (prompt_id,),
    ).fetchall()
    found = []
    for visit in visits:
        samples = db.execute(
            "SELECT id, completion AS text, reward, correct AS right, length, entropy, advantage, "
            "logprob_change AS delta_logp, style FROM samples WHERE step_id = ? AND group_id = ? "
            "ORDER BY sample_index LIMIT ?",
            (visit["step_id"], visit["id"], per_visit),
        ).fetchall()
        found.append({
            **without(visit, "id", "step_id", "prompt_id"),
            "samples": [{"i": i, **dict(row), "right": as_bool(row["right"])} for i, row in enumerate(samples)],
        })  # fmt: skip
    return found


def scores(db: sqlite3.Connection, step: int) -> list[Json]:
    """See `Reader.scores`."""
    rows = db.execute(
        "SELECT s.id, g.prompt_id, s.completion AS text, s.logs_json, r.name, r.value, r.reason FROM steps t "
        "JOIN samples s ON s.step_id = t.id JOIN groups g ON g.id = s.group_id JOIN sample_rewards r ON r.sample_id = s.id "
        "WHERE t.id IN (SELECT max(id) FROM steps WHERE step = ? GROUP BY kind, mode) ORDER BY s.id, r.name",
        (step,),
    )
    found: dict[int, Json] = {}
    for row in rows:
        sample = found.setdefault(
            row["id"],
            {
                "prompt_id": row["prompt_id"],
                "text": row["text"],
                "values": {},
                "reasons": {},
                "logs": json.loads(row["logs_json"] or "{}"),
            },
        )
        sample["values"][row["name"]] = row["value"]
        if row["reason"]:
            sample["reasons"][row["name"]] = row["reason"]
    return list(found.values())


def token_strings(token_ids: Sequence[int], texts: dict[int, bytes]) -> list[str]:
    """(T,) the text of each token. A character of several tokens appears at the one that completes it."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return [decoder.decode(texts[token]) if token in texts else f"⟨{token}⟩" for token in token_ids]


def as_bool(value: int | None) -> bool | None:
    """A stored flag as true, false or unknown."""
    return None if value is None else bool(value)


def without(row: sqlite3.Row, *names: str) -> Json:
    """A row as a dict without some columns."""
    return {key: value for key, value in dict(row).items() if key not in names}


def _sample(
    row: sqlite3.Row, i: int, rewards: list[sqlite3.Row], found: SampleTokens | None, texts: dict[int, bytes],
    arrays: bool,
) -> Json:  # fmt: skip
    sample: Json = {
        "id": row["id"], "i": i, "text": row["text"],
        "token_ids": found.token_ids.tolist() if found else None,
        "logprob_sum": row["logprob_sum"], "length": row["length"], "finish_reason": row["finish_reason"],
        "rewards": {reward["name"]: reward["value"] for reward in rewards},
        "reasons": {reward["name"]: reward["reason"] for reward in rewards if reward["reason"]},
        "reward": row["reward"], "right": as_bool(row["right"]), "advantage": row["advantage"], "kl": row["kl"],
        "kl_sum": row["kl_sum"], "entropy": row["entropy"], "delta_logp": row["delta_logp"],
        "gradient_share": row["gradient_share"], "style": row["style"], "seed": row["seed"],
        "weights_version": row["weights_version"], "logs": json.loads(row["logs_json"] or "{}"),
    }  # fmt: skip
    if arrays and found:
        sample["tokens"] = token_strings(found.token_ids.tolist(), texts)
        for name, values in found.arrays.items():
            rounded = None if values is None else _numbers(values)
            sample["entropy_T" if name == "entropy" else name] = rounded
    return sample


def _numbers(values_T: NDArray[np.float32]) -> list[float | None]:
    """(T,) values with six digits; None where one is not finite, which JSON cannot hold."""
    return [
        value if math.isfinite(value) else None for value in np.round(values_T.astype(np.float64), 6).tolist()
    ]


def _token_texts(db: sqlite3.Connection, samples: list[SampleTokens | None]) -> dict[int, bytes]:
    ids = {int(token) for found in samples if found for token in found.token_ids}
    if not ids:
        return {}
    query = f"SELECT id, text FROM token_texts WHERE id IN ({','.join(map(str, sorted(ids)))})"
    return {row["id"]: bytes(row["text"]) for row in db.execute(query)}


def _wrong_to_right(dot: Json) -> tuple[bool, float, int]:
    return dot["right"] is True, -1e9 if dot["reward"] is None else dot["reward"], dot["length"]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
