"""Reads the record of a run: short read-only transactions, pages by key, nothing counted that was not stored.

Plain dicts and lists for the routes and the command line; pandas frames for notebooks. Works the same while the run goes on,
after a crash, and on a copied folder; before the first step everything is simply empty.
"""

import codecs
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.config import RunConfig
from workbench.errors import RunError
from workbench.record import schema, tokens
from workbench.record.folder import RunFolder
from workbench.record.search import Filters, search
from workbench.types import EvalMode, GroupKind

if TYPE_CHECKING:
    import pandas

Json = dict[str, Any]
_SAMPLE = ("s.id, s.idx, s.text, s.length, s.finish_reason, s.reward, s.right, s.advantage, s.logprob_sum, s.kl, s.kl_sum, s.entropy, "
           "s.gradient_share, s.delta_logp, s.seed, s.weights_version, s.style, s.logs_json")


class Reader:
    """A run as it stands. Takes a RunFolder or a path; safe to use from several threads."""

    def __init__(self, folder: RunFolder | Path | str) -> None:
        self.folder = folder if isinstance(folder, RunFolder) else RunFolder(folder)

    @cached_property
    def config(self) -> RunConfig:
        """The settings the run was started with. Raises RunError."""
        return self.folder.config()

    @property
    def status(self) -> Json:
        """The worker's last word about itself; {} before the first."""
        return self.folder.status()

    @property
    def notice(self) -> str | None:
        """What a person should know before trusting what is read: a database newer than this program."""
        if not self.folder.db_path.exists():
            return None
        with self._db() as db:
            found = schema.version(db)
        if found <= len(schema.MIGRATIONS):
            return None
        return (f"This run was recorded by a newer version of the workbench (format {found}, this one knows {len(schema.MIGRATIONS)}). "
                "It can be looked at, not continued; some of it may not be shown.")

    # -- steps and metrics ----------------------------------------------------------------------------------------

    def steps(self, kind: GroupKind = "train", mode: EvalMode | None = None) -> list[int]:
        """Numbers of the recorded steps (or evaluations), in order."""
        query = "SELECT step FROM steps WHERE current AND kind = ?" + (" AND mode = ?" if mode else "") + " ORDER BY step"
        return sorted({row[0] for row in self._rows(query, (kind, mode) if mode else (kind,))})

    def last_step(self, kind: GroupKind = "train") -> int | None:
        """The newest recorded step; None before the first."""
        rows = self._rows("SELECT max(step) FROM steps WHERE current AND kind = ?", (kind,))
        return rows[0][0] if rows else None

    def series(self, since: int = 0, names: Sequence[str] | None = None, limit: int | None = None) -> Json:
        """What charts draw, only what is new since `cursor` of the answer before (0: everything).

        {"cursor", "forget_from", "train": {"step": [...], name: [number|None, ...]}, "sampled": {...}, "greedy": {...}}: rows are
        in the order they were recorded. `forget_from` n: a resume has overtaken this run, drop training steps from n and
        evaluations after n. A step that comes again replaces the earlier one. `limit` caps the rows of one answer."""
        rows = self._rows("SELECT id, step, kind, mode, metrics_json FROM steps WHERE id > ? AND current ORDER BY id LIMIT ?",
                          (since, -1 if limit is None else limit))
        answer: Json = {"cursor": rows[-1]["id"] if rows else since, "forget_from": self._forget_from(since)}
        for title, chosen in (("train", [row for row in rows if row["kind"] == "train"]),
                              *((mode, [row for row in rows if row["kind"] == "eval" and row["mode"] == mode])
                                for mode in ("sampled", "greedy"))):
            metrics = [json.loads(row["metrics_json"]) for row in chosen]
            columns = list(names) if names is not None else sorted({name for found in metrics for name in found})
            answer[title] = {"step": [row["step"] for row in chosen],
                             **{name: [found.get(name) for found in metrics] for name in columns}}
        return answer

    def metrics(self, names: Sequence[str] | None = None, since: int | None = None) -> "pandas.DataFrame":
        """One row a recorded step: step, kind, mode, attempt, started, seconds, then a column a metric (NaN: not recorded).
        `since`: only steps of at least this number."""
        import pandas as pd  # the dashboard imports this module and must not pay for pandas

        rows = self._rows("SELECT step, kind, mode, attempt, started, seconds, metrics_json FROM steps WHERE current AND step >= ? "
                          "ORDER BY step, kind, mode", (since or 0,))
        frame = pd.DataFrame([{**{key: row[key] for key in ("step", "kind", "mode", "attempt", "started", "seconds")},
                               **json.loads(row["metrics_json"])} for row in rows])
        fixed = ["step", "kind", "mode", "attempt", "started", "seconds"]
        if frame.empty:
            return pd.DataFrame(columns=fixed + list(names or []))
        wanted = list(names) if names is not None else sorted(column for column in frame.columns if column not in fixed)
        return frame.reindex(columns=fixed + wanted)

    def phases(self, last: int = 50) -> list[Json]:
        """Seconds in each phase of the newest training steps, oldest first: [{"step", "sample": s, "score": s, ...}]."""
        rows = self._rows("SELECT step, phases_json FROM steps WHERE current AND kind = 'train' ORDER BY step DESC LIMIT ?", (last,))
        return [{"step": row["step"], **json.loads(row["phases_json"])} for row in reversed(rows)]

    def ribbon(self, since: int = 0) -> Json:
        """The picture of the whole run, only what is new since `cursor` of the answer before.

        {"cursor", "forget_from", "steps": [{"step", "groups", "right": [share|None], "reward": [mean|None], "dead": "ww..r"}],
        "marks": [{"step", "kind": "check"|"alarm"|"setting", "text"}]}: cells of a step are sorted, worst first; `dead` holds one
        letter a cell (r all right, w all wrong, t tied, . alive). `marks` are always all of them."""
        rows = self._rows("SELECT id, step, kind, cells_json FROM steps WHERE id > ? AND current ORDER BY id", (since,))
        columns = [{"step": row["step"], **json.loads(row["cells_json"])} for row in rows if row["kind"] == "train"]
        return {"cursor": rows[-1]["id"] if rows else since, "forget_from": self._forget_from(since), "steps": columns,
                "marks": self.marks()}

    def marks(self) -> list[Json]:
        """What happened at which step: checks, alarms, settings changed."""
        checks = self._rows("SELECT DISTINCT step FROM steps WHERE current AND kind = 'eval' ORDER BY step")
        alarms = self._rows("SELECT since_step, claim, level FROM alarms ORDER BY id")
        changes = self._rows("SELECT step, data_json FROM events WHERE kind = 'set' AND step IS NOT NULL ORDER BY id")
        marks = [{"step": row["step"], "kind": "check", "text": "held-out check"} for row in checks]
        marks += [{"step": row["since_step"], "kind": "alarm", "text": row["claim"], "level": row["level"]} for row in alarms]
        marks += [{"step": row["step"], "kind": "setting", "text": _told(json.loads(row["data_json"]))} for row in changes]
        return sorted(marks, key=lambda mark: int(mark["step"]))

    # -- groups and samples ---------------------------------------------------------------------------------------

    def groups(self, step: int, kind: GroupKind = "train", mode: EvalMode | None = None) -> list[Json]:
        """The step's groups as rows, largest share of the gradient first: k, prompt_id, question, answer, n, right, reward_mean,
        reward_std, a_right, a_wrong (mean advantage of either side), gradient_share, dead, and a dot a sample (i, reward, right,
        length, advantage), wrong to right, then by length. Raises RunError for a step that is not recorded."""
        with self._db() as db:
            row = self._step(db, step, kind, mode)
            groups = db.execute(
                "SELECT g.id, g.k, g.prompt_id, p.question, p.answer, g.n, g.right, g.reward_mean, g.reward_std, g.gradient_share, g.dead "
                "FROM groups g LEFT JOIN prompts p USING (prompt_id) WHERE g.step_id = ? ORDER BY g.k", (row["id"],)).fetchall()
            samples = db.execute("SELECT group_id, idx, reward, right, length, advantage FROM samples WHERE step_id = ? ORDER BY idx",
                                 (row["id"],)).fetchall()
        dots: dict[int, list[Json]] = {group["id"]: [] for group in groups}
        for sample in samples:
            mine = dots[sample["group_id"]]
            mine.append({"i": len(mine), "reward": sample["reward"], "right": _truth(sample["right"]), "length": sample["length"],
                         "advantage": sample["advantage"]})
        found = []
        for group in groups:
            mine = dots[group["id"]]
            found.append({
                **{key: group[key] for key in group.keys() if key != "id"},  # noqa: SIM118 (a Row iterates over values)
                "a_right": _mean([dot["advantage"] for dot in mine if dot["right"]]),
                "a_wrong": _mean([dot["advantage"] for dot in mine if dot["right"] is False]),
                "dots": sorted(mine, key=lambda dot: (dot["right"] is True, -1e9 if dot["reward"] is None else dot["reward"], dot["length"]))})
        return sorted(found, key=lambda group: (-(group["gradient_share"] or 0.0), bool(group["dead"]), group["k"]))

    def group(self, step: int, k: int, kind: GroupKind = "train", mode: EvalMode | None = None, *, arrays: bool = False) -> Json:
        """One group whole: prompt_id, prompt, answer, reward_mean, reward_std, samples[{id, text, token_ids, logprob_sum, length,
        finish_reason, rewards{name: number|None}, reward, advantage, kl}], and beside these the question, columns, gradient share,
        dead side, and of each sample its place, reasons, right, entropy, kl_sum, delta_logp, gradient_share, style, seed.

        `token_ids` is None where the step's token file is no longer kept. `arrays` adds `tokens` (texts, where recorded) and the
        per-token lists sampler_logp, policy_logp, reference_logp, after_logp, entropy_T, weight (None: not computed).
        Raises RunError: no such step or group, or a damaged token file."""
        with self._db() as db:
            row = self._step(db, step, kind, mode)
            group = db.execute("SELECT g.*, p.question, p.text, p.answer, p.columns_json FROM groups g LEFT JOIN prompts p "
                               "USING (prompt_id) WHERE g.step_id = ? AND g.k = ?", (row["id"], k)).fetchone()
            if group is None:
                count = db.execute("SELECT max(k) + 1 FROM groups WHERE step_id = ?", (row["id"],)).fetchone()[0] or 0
                raise RunError(f"Step {step} has no group {k}: its groups are numbered 0 to {count - 1}.")
            samples = db.execute(f"SELECT {_SAMPLE} FROM samples s WHERE s.step_id = ? AND s.group_id = ? ORDER BY s.idx",
                                 (row["id"], group["id"])).fetchall()
            rewards = db.execute(
                "SELECT r.sample_id, r.name, r.value, r.reason FROM sample_rewards r JOIN samples s ON s.id = r.sample_id "
                "WHERE s.step_id = ? AND s.group_id = ?", (row["id"], group["id"])).fetchall()
            arrays_B = self._tokens(step, kind, mode) if row["tokens"] else None
            texts = self._token_texts(db, arrays_B, samples) if arrays and arrays_B else {}
        return {
            "step": step, "group": k, "kind": kind, "mode": mode or row["mode"] or None,
            "prompt_id": group["prompt_id"], "prompt": group["text"], "question": group["question"], "answer": group["answer"],
            "columns": json.loads(group["columns_json"] or "{}"), "reward_mean": group["reward_mean"], "reward_std": group["reward_std"],
            "n": group["n"], "scored": group["scored"], "right": group["right"], "gradient_share": group["gradient_share"],
            "dead": group["dead"],
            "samples": [_sample(sample, i, rewards, arrays_B[sample["idx"]] if arrays_B else None, texts, arrays)
                        for i, sample in enumerate(samples)]}

    def samples(
        self, step: int | None = None, kind: GroupKind = "train", mode: EvalMode | None = None, since: int | None = None,
        until: int | None = None,
    ) -> "pandas.DataFrame":
        """One row a sample: step, k, i, prompt_id, question, answer, text, the sample's numbers, and `rewards/<name>` columns (NaN:
        absent). One step, or the steps from `since` to `until` (inclusive), or all."""
        import pandas as pd  # as in `metrics`

        low, high = (step, step) if step is not None else (since or 0, until if until is not None else 2**62)
        chosen = "FROM samples s JOIN groups g ON g.id = s.group_id JOIN steps t ON t.id = s.step_id"
        where = "WHERE t.current AND t.kind = ? AND t.step BETWEEN ? AND ?" + (" AND t.mode = ?" if mode else "")
        arguments = (kind, low, high, *((mode,) if mode else ()))
        rows = self._rows(f"SELECT t.step, t.mode, g.k, g.prompt_id, p.question, p.answer, {_SAMPLE} {chosen} LEFT JOIN prompts p "
                          f"ON p.prompt_id = g.prompt_id {where} ORDER BY t.step, t.mode, s.idx", arguments)
        parts = self._rows(f"SELECT r.sample_id, r.name, r.value {chosen} JOIN sample_rewards r ON r.sample_id = s.id {where}", arguments)
        frame = pd.DataFrame([tuple(row) for row in rows], columns=[
            "step", "mode", "k", "prompt_id", "question", "answer", *(name.strip().removeprefix("s.") for name in _SAMPLE.split(","))])
        frame = frame.drop(columns=["logs_json"])
        wide = pd.DataFrame([tuple(row) for row in parts], columns=["id", "name", "value"]).pivot(index="id", columns="name", values="value")
        return frame.join(wide.astype("float64").add_prefix("rewards/"), on="id")

    def prompt_history(self, prompt_id: str, per_visit: int = 64) -> list[Json]:
        """Every visit of one prompt, oldest first (training and checks): step, kind, mode, k, n, right, reward_mean, reward_std, dead,
        and its samples (id, i, text, reward, right, length, entropy, advantage, delta_logp, style)."""
        visits = self._rows(
            "SELECT g.id, t.step, t.kind, t.mode, g.k, g.n, g.right, g.reward_mean, g.reward_std, g.dead FROM groups g JOIN steps t "
            "ON t.id = g.step_id WHERE g.prompt_id = ? AND t.current ORDER BY t.step, t.kind, t.mode", (prompt_id,))
        found = []
        with self._db() as db:
            for visit in visits:
                samples = db.execute("SELECT id, text, reward, right, length, entropy, advantage, delta_logp, style FROM samples WHERE "
                                     "step_id = (SELECT step_id FROM groups WHERE id = ?) AND group_id = ? ORDER BY idx LIMIT ?",
                                     (visit["id"], visit["id"], per_visit)).fetchall()
                found.append({**{key: visit[key] for key in visit.keys() if key != "id"},  # noqa: SIM118
                              "samples": [{"i": i, **dict(sample), "right": _truth(sample["right"])} for i, sample in enumerate(samples)]})
        return found

    def prompts(self) -> list[Json]:
        """Every prompt that was asked: prompt_id, question, answer."""
        return [dict(row) for row in self._rows("SELECT prompt_id, question, answer FROM prompts ORDER BY question")]

    def search(self, text: str = "", filters: Filters | None = None, after_id: int | None = None, limit: int = 50) -> list[Json]:
        """Samples whose answer or question holds `text` and which pass the filters, newest first; pages by the last id seen.
        See `record.search.Filters`. Raises RunError for a filter out of its range."""
        with self._db() as db:
            return search(db, text, filters or Filters(), after_id, limit)

    # -- events and alarms ----------------------------------------------------------------------------------------

    def events(self, since: int = 0, kind: str | None = None, limit: int = 1000) -> list[Json]:
        """Events with an id above `since`, oldest first: id, time, step, kind, data."""
        rows = self._rows("SELECT id, time, step, kind, data_json FROM events WHERE id > ?" + (" AND kind = ?" if kind else "")
                          + " ORDER BY id LIMIT ?", (since, *((kind,) if kind else ()), limit))
        return [{"id": row["id"], "time": row["time"], "step": row["step"], "kind": row["kind"], "data": json.loads(row["data_json"])}
                for row in rows]

    def alarms(self, open_only: bool = False) -> list[Json]:
        """Alarms, newest first: id, name, level, time, since_step, last_step, cleared_step, claim, text, evidence, remedies."""
        rows = self._rows("SELECT * FROM alarms" + (" WHERE cleared_step IS NULL" if open_only else "") + " ORDER BY id DESC")
        return [{**{key: row[key] for key in row.keys() if not key.endswith("_json")},  # noqa: SIM118
                 "evidence": json.loads(row["evidence_json"]), "remedies": json.loads(row["remedies_json"])} for row in rows]

    # -- inside ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _db(self) -> Iterator[sqlite3.Connection]:
        """A connection for one question: nothing is pinned, threads do not meet, a replaced file is seen."""
        path = self.folder.db_path
        if not path.exists():
            raise RunError(f"{self.folder.path} has no record yet: the run has not finished its first step.")
        try:
            db = schema.open_reader(path)
        except sqlite3.Error as error:
            raise RunError(f"{path} cannot be read ({error}). Copy the run folder again.") from error
        try:
            db.execute("BEGIN")
            yield db
        except sqlite3.Error as error:
            raise RunError(f"{path} cannot be read ({error}). Copy the run folder again, or open it with the version that "
                           "made it.") from error
        finally:
            db.close()

    def _rows(self, query: str, arguments: Sequence[Any] = ()) -> list[sqlite3.Row]:
        if not self.folder.db_path.exists():
            return []
        with self._db() as db:
            return db.execute(query, arguments).fetchall()

    def _step(self, db: sqlite3.Connection, step: int, kind: GroupKind, mode: EvalMode | None) -> sqlite3.Row:
        row = db.execute("SELECT id, mode, tokens FROM steps WHERE current AND kind = ? AND step = ?" + (" AND mode = ?" if mode else "")
                         + " ORDER BY mode DESC", (kind, step, *((mode,) if mode else ()))).fetchone()
        if row is None:
            low, high = db.execute("SELECT min(step), max(step) FROM steps WHERE current AND kind = ?", (kind,)).fetchone()
            word = "step" if kind == "train" else "check"
            there = f"Recorded: {low} to {high}." if low is not None else "Nothing is recorded yet."
            raise RunError(f"There is no {word} {step}{f' ({mode})' if mode else ''} in this run. {there}")
        return row  # type: ignore[no-any-return]

    def _forget_from(self, since: int) -> int | None:
        if not since:
            return None
        rows = self._rows("SELECT min(from_step) FROM attempts WHERE attempt > 1 AND row >= ?", (since,))
        return rows[0][0] if rows else None

    def _tokens(self, step: int, kind: GroupKind, mode: EvalMode | None) -> list[tokens.SampleTokens] | None:
        try:
            return tokens.load(self.folder.tokens / tokens.file_name(step, kind, mode))
        except FileNotFoundError:
            return None

    def _token_texts(self, db: sqlite3.Connection, arrays_B: list[tokens.SampleTokens], samples: list[sqlite3.Row]) -> dict[int, bytes]:
        ids = {int(token) for sample in samples for token in arrays_B[sample["idx"]].token_ids}
        query = f"SELECT id, text FROM token_texts WHERE id IN ({','.join(map(str, ids))})"
        return {row["id"]: bytes(row["text"]) for row in db.execute(query)}


def _sample(row: sqlite3.Row, i: int, rewards: list[sqlite3.Row], found: tokens.SampleTokens | None, texts: dict[int, bytes], arrays: bool) -> Json:
    mine = [reward for reward in rewards if reward["sample_id"] == row["id"]]
    sample: Json = {
        "id": row["id"], "i": i, "text": row["text"], "token_ids": found.token_ids.tolist() if found else None,
        "logprob_sum": row["logprob_sum"], "length": row["length"], "finish_reason": row["finish_reason"],
        "rewards": {reward["name"]: reward["value"] for reward in mine},
        "reasons": {reward["name"]: reward["reason"] for reward in mine if reward["reason"]},
        "reward": row["reward"], "right": _truth(row["right"]), "advantage": row["advantage"], "kl": row["kl"], "kl_sum": row["kl_sum"],
        "entropy": row["entropy"], "delta_logp": row["delta_logp"], "gradient_share": row["gradient_share"], "style": row["style"],
        "seed": row["seed"], "weights_version": row["weights_version"], "logs": json.loads(row["logs_json"] or "{}")}
    if arrays and found:
        sample["tokens"] = token_strings(found.token_ids.tolist(), texts)
        for name, values in found.arrays.items():
            sample["entropy_T" if name == "entropy" else name] = None if values is None else np.round(values.astype(np.float64), 5).tolist()
    return sample


def token_strings(token_ids: Sequence[int], texts: dict[int, bytes]) -> list[str]:
    """The text of each token. A character that spans several tokens appears at the one that completes it."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return [decoder.decode(texts[token]) if token in texts else f"⟨{token}⟩" for token in token_ids]


def _truth(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _told(data: Json) -> str:
    """`beta 0 → 0.02` from a `set` event {"changes": {name: [old, new]}} or {"args": {name: new}}."""
    changes = data.get("changes")
    if isinstance(changes, dict):
        return ", ".join(f"{name} {old} → {new}" for name, (old, new) in changes.items())
    return ", ".join(f"{name} = {value}" for name, value in (data.get("args") or data).items())
