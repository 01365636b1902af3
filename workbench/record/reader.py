"""Reads run.db and tokens/: short read-only transactions, paging by key, per-step rollups instead of counts.

Out: plain dicts and lists for routes and command line, pandas frames for notebooks. The same for a running, a
crashed and a copied run; before the first step everything is empty.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from workbench.core import renamed
from workbench.core.config import RunConfig
from workbench.core.errors import RunError
from workbench.core.types import EvalMode, GroupKind
from workbench.record import arrays as sample_arrays
from workbench.record import groups, schema, series, tokens
from workbench.record.arrays import SampleArrays
from workbench.record.folder import RunFolder
from workbench.record.search import Filters, Page, Place, Sort, all_hits, search

if TYPE_CHECKING:
    import pandas

Json = dict[str, Any]
Rows = list[sqlite3.Row]


class Reader:
    """What a run has recorded so far. Takes a RunFolder or a path; safe to use from several threads.

    Every call opens the database anew, so no transaction stays open, threads share no connection, and a replaced
    file is noticed.
    """

    def __init__(self, folder: RunFolder | Path | str) -> None:
        self.folder = folder if isinstance(folder, RunFolder) else RunFolder(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Does nothing: no connection stays open between calls."""

    @cached_property
    def config(self) -> RunConfig:
        """The settings the run was started with. Raises RunError."""
        return self.folder.config()

    @property
    def status(self) -> Json:
        """status.json as the worker wrote it last; {} before it wrote any."""
        return self.folder.status()

    @property
    def notice(self) -> str | None:
        """A warning for the user where the database is newer than this program; else None."""
        found = self._all("PRAGMA user_version")
        if not found or found[0][0] <= len(schema.MIGRATIONS):
            return None
        return (
            "This run was recorded by a newer version of the workbench "
            f"(format {found[0][0]}, this one knows {len(schema.MIGRATIONS)}). "
            "It can be read, not continued; some of it may not be shown."
        )

    # -- steps and metrics ---------------------------------------------------------------------------------

    def steps(self, kind: GroupKind = "train", mode: EvalMode | None = None) -> list[int]:
        """Numbers of the recorded steps (or evaluations), in order."""
        only, arguments = _of_mode(mode)
        query = f"SELECT DISTINCT step FROM steps WHERE current AND kind = ?{only} ORDER BY step"
        return [row[0] for row in self._all(query, (kind, *arguments))]

    def last_step(self, kind: GroupKind = "train") -> int | None:
        """The newest recorded step; None before the first."""
        rows = self._all("SELECT max(step) FROM steps WHERE current AND kind = ?", (kind,))
        return rows[0][0] if rows else None

    def furthest_step(self) -> int | None:
        """The highest step of any attempt, evaluations included; None before the first."""
        rows = self._all("SELECT max(step) FROM steps")
        return rows[0][0] if rows else None

    def series(
        self,
        since: int = 0,
        names: Sequence[str] | None = None,
        limit: int | None = None,
        keep: series.Keep | None = None,
        checked: Sequence[str] | None = None,
    ) -> Json:
        """Metrics as columns, of the rows after `since`: the `cursor` of the previous response, or 0 for all.

        {"cursor", "forget_from", "train": {"step": [...], name: [number | None, ...]}, "sampled": {...},
        "greedy": {...}}, rows in the order they were recorded. `forget_from` n: a resume has replaced training
        steps from n on and evaluations after n; drop them. A repeated step replaces the earlier one. `names` chooses
        metrics (default: all), `checked` those of evaluations if they differ; `limit` caps the rows.
        `keep(steps, rewards)` chooses the training steps to read; `count` is then their number before that.
        """
        with self._db_or_empty() as db:
            return series.series(db, since, names, limit, keep, checked)

    def ends(self, names: Sequence[str] | None = None, head: int = 8, tail: int = 12) -> Json:
        """The first `head` and the last `tail` rows of each table, for a verdict on the whole run: {"steps": number
        of training steps, "train": ..., "sampled": ..., "greedy": ...}, tables as in `series`, by step.
        """
        with self._db_or_empty() as db:
            return series.ends(db, names, head, tail)

    def metrics(self, names: Sequence[str] | None = None, since: int | None = None) -> "pandas.DataFrame":
        """One row a step or evaluation: step, kind, mode, attempt, started, seconds, then a column a metric (NaN where
        not recorded). `since`: the first step."""
        from workbench.record import frames  # noqa: PLC0415 (loads pandas: not for the dashboard)

        with self._db_or_empty() as db:
            return frames.metrics(db, names, since or 0)

    def phases(self, last: int = 50) -> list[Json]:
        """Seconds in each phase of the newest training steps, oldest first: [{"step", "sample": s, ...}]."""
        rows = self._all(
            "SELECT step, phases_json FROM steps WHERE current AND kind = 'train' ORDER BY step DESC LIMIT ?",
            (last,),
        )
        return [{"step": row["step"], **json.loads(row["phases_json"])} for row in reversed(rows)]

    def ribbon(self, since: int = 0) -> Json:
        """The groups of every step at a glance, of the rows after `since` as in `series`.

        {"cursor", "forget_from", "steps": [{"step", "groups", "right": [share | None], "reward": [mean |
        None], "dead": "ww..r"}], "marks": [{"step", "kind": "check" | "alarm" | "setting", "text"}]}. Groups are
        sorted, worst first; `dead` has a letter a group (r all right, w all wrong, t tied, . rewards differ). Steps
        without groups are left out; `marks` are always all.
        """
        with self._db_or_empty() as db:
            return series.ribbon(db, since)

    # -- groups and samples --------------------------------------------------------------------------------

    def groups(self, step: int, kind: GroupKind = "train", mode: EvalMode | None = None) -> list[Json]:
        """The step's groups as rows, largest share of the gradient first.

        Each: k (its index in the step), prompt_id, question, `answer` (the reference answer), n samples, right,
        reward_mean, reward_std, a_right and a_wrong (mean advantage of right and wrong samples), gradient_share, dead
        (see `ribbon`, in words), and dots: a sample each (i, reward, right, length, cut, advantage), wrong to right,
        then by length. Raises RunError for a step that is not recorded.
        """
        with self._db() as db:
            return groups.rows_of_step(db, self._step(db, step, kind, mode)["id"])

    def group(
        self,
        step: int,
        k: int,
        kind: GroupKind = "train",
        mode: EvalMode | None = None,
        *,
        arrays: bool = False,
    ) -> Json:
        """All that is recorded of one group.

        prompt_id, prompt, `answer`, reward_mean, reward_std, samples[{id, text, token_ids, logprob_sum, length,
        finish_reason, rewards{name: number | None}, reward, advantage, kl}]; also question, columns, n, scored, right,
        gradient_share and dead, and of each sample i, reasons, right, entropy, kl_sum (k1 over the completion),
        delta_logp (log-probability after the update minus before), gradient_share, style, seed, weights_version.

        `token_ids` is None where the step's token file is no longer kept. `arrays` adds `tokens` (their
        texts) and the per-token lists sampler_logp, policy_logp, reference_logp, after_logp, entropy_T,
        weight (None: not computed). Raises RunError: no such step or group, or a damaged token file.
        """
        with self._db() as db:
            row = self._step(db, step, kind, mode)
            return groups.one_group(db, row, k, self._tokens(row) if row["tokens_kept"] else None, arrays)

    def samples(
        self, step: int | None = None, kind: GroupKind = "train", mode: EvalMode | None = None,
        since: int | None = None, until: int | None = None,
    ) -> "pandas.DataFrame":  # fmt: skip
        """One row a sample: step, mode, k, prompt_id, question, `answer`, text, the sample's numbers, and
        `rewards/<name>` columns (NaN: absent). One step, the steps from `since` to `until` (both included), or all."""
        from workbench.record import frames  # noqa: PLC0415 (as in `metrics`)

        low, high = (step, step) if step is not None else (since or 0, until if until is not None else 2**62)
        with self._db_or_empty() as db:
            return frames.samples(db, low, high, kind, mode)

    def completions(
        self, since: int | None = None, until: int | None = None, kind: GroupKind = "train",
        mode: EvalMode | None = None, *, tokens: bool = False,
    ) -> Iterator[Json]:  # fmt: skip
        """Group after group, in order, with all that a reward needs to score it again: step, kind, mode, k, prompt_id,
        question, prompt, `answer`, columns, and lists over its completions: ids, texts, lengths, finish_reasons,
        rewards, rights, advantages, tokens (None unless requested and still kept). Steps from `since` to `until`,
        both included."""
        until = 2**62 if until is None else until
        with self._db_or_empty() as db:
            yield from groups.completions(
                db, since or 0, until, kind, mode,
                lambda row: self._tokens(row) if tokens and row["tokens_kept"] else None,
            )  # fmt: skip

    def arrays(self, since: int = 0) -> SampleArrays:
        """The training samples' numbers as flat arrays, of the rows of `steps` after `since`."""
        with self._db_or_empty() as db:
            return sample_arrays.read(db, since)

    def token_steps(self) -> list[int]:
        """The training steps whose token arrays are still kept, in order."""
        found = (path.name[5:-12] for path in self.folder.tokens.glob("step-*.safetensors"))
        return sorted(int(number) for number in found if number.isdigit())

    def step_tokens(self, step: int) -> list[tokens.SampleTokens] | None:
        """The token arrays of a training step, one entry a sample; None where they are no longer kept. Raises RunError
        for a damaged file."""
        try:
            return tokens.load(self.folder.tokens / tokens.file_name(step, "train", None))
        except FileNotFoundError:
            return None

    def has_replaced(self, since: int) -> bool:
        """Whether a resume has replaced steps that a client which has seen row `since` still holds."""
        with self._db_or_empty() as db:
            return series.forget_from(db, since) is not None

    def prompt_history(self, prompt_id: str, per_visit: int = 64) -> list[Json]:
        """Every group of one prompt, oldest first, training and evaluations: step, kind, mode, k, n, right,
        reward_mean, reward_std, dead, and at most `per_visit` samples (id, i, text, reward, right, length, entropy,
        advantage, delta_logp, style)."""
        with self._db_or_empty() as db:
            return groups.history(db, prompt_id, per_visit)

    def prompts(self) -> list[Json]:
        """Every prompt: prompt_id, question, `answer`, prompt (the text that the model read)."""
        query = "SELECT prompt_id, question, answer, prompt FROM prompts ORDER BY question"
        return [dict(row) for row in self._all(query)]

    def scores(self, step: int) -> list[Json]:
        """The scores of a step and of the evaluations at it, as recorded last by any attempt: prompt_id, text, values,
        reasons and logs of each sample, in the order in which they were scored."""
        with self._db_or_empty() as db:
            return groups.scores(db, step)

    def watched(self) -> list[str]:
        """Ids of the held-out prompts that every evaluation samples and records."""
        query = (
            "SELECT DISTINCT g.prompt_id FROM groups g JOIN steps t ON t.id = g.step_id "
            "WHERE t.current AND t.kind = 'eval' AND t.mode = 'sampled' AND g.size > 1"
        )
        return [row[0] for row in self._all(query)]

    def search(
        self, text: str = "", filters: Filters | None = None, after_id: int | None = None, limit: int = 50
    ) -> list[Json]:
        """Samples whose completion or question contains `text` and which pass the filters, newest first; pages by
        the last id seen. See `record.search.Filters`. Raises RunError for a filter out of its range."""
        return self.find(text, filters, None if after_id is None else (after_id,), limit).hits

    def find(
        self,
        text: str = "",
        filters: Filters | None = None,
        after: Place | None = None,
        limit: int = 50,
        sort: Sort = "newest",
    ) -> Page:
        """As `search`, in the order `sort`; pages by the sort keys of the last hit."""
        with self._db_or_empty() as db:
            return search(db, text, filters or Filters(), after, limit, sort)

    def hits(
        self, text: str = "", filters: Filters | None = None, sort: Sort = "newest", most: int = 100_000
    ) -> Iterator[Json]:
        """The first `most` hits with each reward's value in `rewards`, for exports and frames."""
        with self._db_or_empty() as db:
            for hit in all_hits(db, text, filters or Filters(), sort, most):
                rows = db.execute("SELECT name, value FROM sample_rewards WHERE sample_id = ?", (hit["id"],))
                yield {**hit, "rewards": dict(tuple(row) for row in rows)}

    # -- events and alarms ---------------------------------------------------------------------------------

    def events(self, since: int = 0, kind: str | None = None, limit: int = 1000) -> list[Json]:
        """Events with an id above `since`, oldest first: id, time, step, kind, data."""
        stored = renamed.spellings(kind, renamed.EVENT_KINDS) if kind else []
        only = f" AND kind IN ({', '.join('?' * len(stored))})" if kind else ""
        rows = self._all(
            f"SELECT id, time, step, kind, data_json FROM events WHERE id > ?{only} ORDER BY id LIMIT ?",
            (since, *stored, limit),
        )
        return [
            {
                **groups.without(row, "data_json"),
                "kind": renamed.EVENT_KINDS.get(row["kind"], row["kind"]),
                "data": json.loads(row["data_json"]),
            }
            for row in rows
        ]

    def current_settings(self) -> Json:
        """The settings as they are now: config.json with the live changes since."""
        values: Json = self.config.model_dump(mode="json")
        for event in self.events(kind="setting_changed", limit=2**31):
            changed = event["data"].items()
            values |= {
                name: change["to"] for name, change in changed if isinstance(change, dict) and "to" in change
            }
        return values

    def alarms(self, open_only: bool = False) -> list[Json]:
        """Alarms, newest first: id, name, level, time, since_step, last_step, cleared_step, claim, text,
        evidence, remedies."""
        only = "WHERE cleared_step IS NULL" if open_only else ""
        return [
            {
                **groups.without(row, "evidence_json", "remedies_json"),
                "evidence": json.loads(row["evidence_json"]),
                "remedies": json.loads(row["remedies_json"]),
            }
            for row in self._all(f"SELECT * FROM alarms {only} ORDER BY id DESC")
        ]

    # -- inside --------------------------------------------------------------------------------------------

    @contextmanager
    def _db(self) -> Iterator[sqlite3.Connection]:
        """A connection within one read transaction, so that all queries see the same state."""
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
            raise RunError(
                f"{path} cannot be read ({error}). Copy the run folder again, or open it with the version "
                "that made it."
            ) from error
        finally:
            db.close()

    @contextmanager
    def _db_or_empty(self) -> Iterator[sqlite3.Connection]:
        """As `_db`; before the first step an empty database with the same tables."""
        if self.folder.db_path.exists():
            with self._db() as db:
                if schema.version(db):
                    yield db
                    return
        empty = sqlite3.connect(":memory:", isolation_level=None)
        empty.row_factory = sqlite3.Row
        schema.migrate(empty, self.folder.db_path)
        try:
            yield empty
        finally:
            empty.close()

    def _all(self, query: str, arguments: Sequence[Any] = ()) -> Rows:
        if not self.folder.db_path.exists():
            return []
        with self._db_or_empty() as db:
            return db.execute(query, arguments).fetchall()

    def _step(self, db: sqlite3.Connection, step: int, kind: GroupKind, mode: EvalMode | None) -> sqlite3.Row:
        only, arguments = _of_mode(mode)
        row = db.execute(
            "SELECT id, step, kind, mode, tokens_kept FROM steps "
            f"WHERE current AND kind = ? AND step = ?{only} ORDER BY mode DESC LIMIT 1",
            (kind, step, *arguments),
        ).fetchone()
        if row is None:
            ends = "SELECT min(step), max(step) FROM steps WHERE current AND kind = ?"
            low, high = db.execute(ends, (kind,)).fetchone()
            word = "step" if kind == "train" else "check"
            there = f"Recorded: {low} to {high}." if low is not None else "Nothing is recorded yet."
            raise RunError(f"There is no {word} {step}{f' ({mode})' if mode else ''} in this run. {there}")
        found: sqlite3.Row = row
        return found

    def _tokens(self, row: sqlite3.Row) -> list[tokens.SampleTokens] | None:
        try:
            return tokens.load(
                self.folder.tokens / tokens.file_name(row["step"], row["kind"], row["mode"] or None)
            )
        except FileNotFoundError:
            return None


def _of_mode(mode: EvalMode | None) -> tuple[str, tuple[str, ...]]:
    return (" AND mode = ?", (mode,)) if mode else ("", ())
