"""Reads the record of a run: short read-only transactions, pages by key, nothing counted that was not stored.

Plain dicts and lists for the routes and the command line; pandas frames for notebooks. Works the same while
the run goes on, after a crash, and on a copied folder; before the first step everything is simply empty.
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
    """A run as it stands. Takes a RunFolder or a path; safe to use from several threads.

    Every question opens the database anew: nothing is pinned, threads do not meet, and a replaced file is
    seen.
    """

    def __init__(self, folder: RunFolder | Path | str) -> None:
        self.folder = folder if isinstance(folder, RunFolder) else RunFolder(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing stays open between questions; there for callers that end every reader alike."""

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
        found = self._all("PRAGMA user_version")
        if not found or found[0][0] <= len(schema.MIGRATIONS):
            return None
        return (
            "This run was recorded by a newer version of the workbench "
            f"(format {found[0][0]}, this one knows {len(schema.MIGRATIONS)}). "
            "It can be looked at, not continued; some of it may not be shown."
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
        """The furthest step or check that any attempt has recorded; None before the first."""
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
        """What charts draw, only what is new since `cursor` of the answer before (0: everything).

        {"cursor", "forget_from", "train": {"step": [...], name: [number | None, ...]}, "sampled": {...},
        "greedy": {...}}, rows in the order they were recorded. `forget_from` n: a resume has overtaken the
        run, drop training steps from n on and checks after n. A step that comes again replaces the earlier
        one. `names` chooses metrics (default: all there are), `checked` those of checks where these are to be
        others; `limit` caps the rows of one answer.
        `keep(steps, rewards)` chooses the training steps to read; `count` then says how many there are.
        """
        with self._maybe() as db:
            return series.series(db, since, names, limit, keep, checked)

    def ends(self, names: Sequence[str] | None = None, head: int = 8, tail: int = 12) -> Json:
        """The first and the last rows only, for a judgement on the whole: {"steps": how many training steps
        there are, "train": ..., "sampled": ..., "greedy": ...}, tables as in `series`, in the order of steps.
        """
        with self._maybe() as db:
            return series.ends(db, names, head, tail)

    def metrics(self, names: Sequence[str] | None = None, since: int | None = None) -> "pandas.DataFrame":
        """One row a recorded step: step, kind, mode, attempt, started, seconds, then a column a metric (NaN:
        not recorded). `since`: only steps of at least this number."""
        from workbench.record import frames  # noqa: PLC0415 (loads pandas: not for the dashboard)

        with self._maybe() as db:
            return frames.metrics(db, names, since or 0)

    def phases(self, last: int = 50) -> list[Json]:
        """Seconds in each phase of the newest training steps, oldest first: [{"step", "sample": s, ...}]."""
        rows = self._all(
            "SELECT step, phases_json FROM steps WHERE current AND kind = 'train' ORDER BY step DESC LIMIT ?",
            (last,),
        )
        return [{"step": row["step"], **json.loads(row["phases_json"])} for row in reversed(rows)]

    def ribbon(self, since: int = 0) -> Json:
        """The picture of the whole run, only what is new since `cursor` of the answer before.

        {"cursor", "forget_from", "steps": [{"step", "groups", "right": [share | None], "reward": [mean |
        None], "dead": "ww..r"}], "marks": [{"step", "kind": "check" | "alarm" | "setting", "text"}]}. The
        cells of a step are sorted, worst first; `dead` holds one letter a cell (r all right, w all wrong, t
        tied, . alive). `marks` are always all of them.
        """
        with self._maybe() as db:
            return series.ribbon(db, since)

    # -- groups and samples --------------------------------------------------------------------------------

    def groups(self, step: int, kind: GroupKind = "train", mode: EvalMode | None = None) -> list[Json]:
        """The step's groups as rows, largest share of the gradient first.

        Each: k, prompt_id, question, answer, n, right, reward_mean, reward_std, a_right and a_wrong (mean
        advantage of either side), gradient_share, dead, and dots: a sample each (i, reward, right, length,
        cut, advantage), wrong to right, then by length. Raises RunError for a step that is not recorded.
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
        """One group whole.

        prompt_id, prompt, answer, reward_mean, reward_std, samples[{id, text, token_ids, logprob_sum, length,
        finish_reason, rewards{name: number | None}, reward, advantage, kl}]; beside these the question,
        columns, gradient share and dead side, and of each sample its place, reasons, right, entropy, kl_sum,
        delta_logp, gradient_share, style, seed.

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
        """One row a sample: step, mode, k, prompt_id, question, answer, text, the sample's numbers, and
        `rewards/<name>` columns (NaN: absent). One step, or those from `since` to `until` (inclusive), or
        all."""
        from workbench.record import frames  # noqa: PLC0415 (as in `metrics`)

        low, high = (step, step) if step is not None else (since or 0, until if until is not None else 2**62)
        with self._maybe() as db:
            return frames.samples(db, low, high, kind, mode)

    def completions(
        self, since: int | None = None, until: int | None = None, kind: GroupKind = "train",
        mode: EvalMode | None = None, *, tokens: bool = False,
    ) -> Iterator[Json]:  # fmt: skip
        """Group after group, in order, with what scoring its answers again takes: step, kind, mode, k, prompt_id,
        question, prompt, answer, columns, and lists over its answers: ids, texts, lengths, finish_reasons,
        rewards, rights, advantages, tokens (None where not asked for or no longer kept). Steps from `since` to
        `until`, both included."""
        until = 2**62 if until is None else until
        with self._maybe() as db:
            yield from groups.completions(
                db, since or 0, until, kind, mode,
                lambda row: self._tokens(row) if tokens and row["tokens_kept"] else None,
            )  # fmt: skip

    def arrays(self, since: int = 0) -> SampleArrays:
        """Every training sample's numbers as flat arrays, those of steps recorded after row `since` only."""
        with self._maybe() as db:
            return sample_arrays.read(db, since)

    def token_steps(self) -> list[int]:
        """The training steps whose token arrays are still kept, in order."""
        found = (path.name[5:-12] for path in self.folder.tokens.glob("step-*.safetensors"))
        return sorted(int(number) for number in found if number.isdigit())

    def step_tokens(self, step: int) -> list[tokens.SampleTokens] | None:
        """The token arrays of every sample of a training step, in sample order; None where they are no longer
        kept. Raises RunError for a damaged file."""
        try:
            return tokens.load(self.folder.tokens / tokens.file_name(step, "train", None))
        except FileNotFoundError:
            return None

    def has_replaced(self, since: int) -> bool:
        """Whether a resume has overtaken steps that a reader which has seen row `since` still holds."""
        with self._maybe() as db:
            return series.forget_from(db, since) is not None

    def prompt_history(self, prompt_id: str, per_visit: int = 64) -> list[Json]:
        """Every visit of one prompt, oldest first, training and checks: step, kind, mode, k, n, right,
        reward_mean, reward_std, dead, and its samples (id, i, text, reward, right, length, entropy,
        advantage, delta_logp, style)."""
        with self._maybe() as db:
            return groups.history(db, prompt_id, per_visit)

    def prompts(self) -> list[Json]:
        """Every prompt that was asked: prompt_id, question, answer, prompt (the text that the model read)."""
        query = "SELECT prompt_id, question, answer, prompt FROM prompts ORDER BY question"
        return [dict(row) for row in self._all(query)]

    def scores(self, step: int) -> list[Json]:
        """What every reward said in a step and its checks when they were recorded last, by whichever attempt: prompt_id, text, values,
        reasons and logs of each sample, in the order in which they were scored."""
        with self._maybe() as db:
            return groups.scores(db, step)

    def watched(self) -> list[str]:
        """Ids of the held-out prompts whose answers are kept at every check."""
        query = (
            "SELECT DISTINCT g.prompt_id FROM groups g JOIN steps t ON t.id = g.step_id "
            "WHERE t.current AND t.kind = 'eval' AND t.mode = 'sampled' AND g.size > 1"
        )
        return [row[0] for row in self._all(query)]

    def search(
        self, text: str = "", filters: Filters | None = None, after_id: int | None = None, limit: int = 50
    ) -> list[Json]:
        """Samples whose answer or question holds `text` and which pass the filters, newest first; pages by
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
        """As `search`, in an order of one's choice; pages by the place where the last one ended."""
        with self._maybe() as db:
            return search(db, text, filters or Filters(), after, limit, sort)

    def hits(
        self, text: str = "", filters: Filters | None = None, sort: Sort = "newest", most: int = 100_000
    ) -> Iterator[Json]:
        """The first `most` hits with each reward's value as `rewards`, for files and frames."""
        with self._maybe() as db:
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
        """The settings as they are now: those of the start, and what people have changed since."""
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
        """A connection and one transaction, so that the parts of an answer fit together."""
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
    def _maybe(self) -> Iterator[sqlite3.Connection]:
        """As `_db`; before the first step an empty record of the same shape."""
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
        with self._maybe() as db:
            return _all(db, query, arguments)

    def _step(self, db: sqlite3.Connection, step: int, kind: GroupKind, mode: EvalMode | None) -> sqlite3.Row:
        only, arguments = _of_mode(mode)
        rows = _all(
            db,
            "SELECT id, step, kind, mode, tokens_kept FROM steps "
            f"WHERE current AND kind = ? AND step = ?{only} ORDER BY mode DESC LIMIT 1",
            (kind, step, *arguments),
        )
        if not rows:
            low, high = _all(
                db, "SELECT min(step), max(step) FROM steps WHERE current AND kind = ?", (kind,)
            )[0]
            word = "step" if kind == "train" else "check"
            there = f"Recorded: {low} to {high}." if low is not None else "Nothing is recorded yet."
            raise RunError(f"There is no {word} {step}{f' ({mode})' if mode else ''} in this run. {there}")
        return rows[0]

    def _tokens(self, row: sqlite3.Row) -> list[tokens.SampleTokens] | None:
        try:
            return tokens.load(
                self.folder.tokens / tokens.file_name(row["step"], row["kind"], row["mode"] or None)
            )
        except FileNotFoundError:
            return None


def _all(db: sqlite3.Connection, query: str, arguments: Sequence[Any] = ()) -> Rows:
    return db.execute(query, arguments).fetchall()


def _of_mode(mode: EvalMode | None) -> tuple[str, tuple[str, ...]]:
    return (" AND mode = ?", (mode,)) if mode else ("", ())
