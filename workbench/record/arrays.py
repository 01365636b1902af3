"""The numbers of all recorded training samples as flat (B,) arrays, for what-if; no text, no data frame.

In: a connection of the reader. Out: one entry a sample in the order of recording, NaN where not recorded.
"""

import sqlite3
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_COLUMNS = (
    "s.reward", "s.advantage", "s.kl", "s.kl_k1_sum", "s.gradient_share", "s.correct", "s.length",
    "s.finish_reason = 'length'",
)  # fmt: skip


class SampleArrays(NamedTuple):
    """(B,) arrays over samples, step after step, group after group."""

    cursor: int
    """The id of the last row of `steps` that is included."""
    id_B: NDArray[np.int64]
    step_B: NDArray[np.int64]
    group_B: NDArray[np.int64]
    """Ids of the groups, unique over the run, ascending."""
    k_B: NDArray[np.int64]
    """The group's index within its step."""
    reward_B: Floats
    advantage_B: Floats
    kl_B: Floats
    kl_k1_sum_B: Floats
    gradient_share_B: Floats
    right_B: Floats
    length_B: Floats
    cut_B: Floats
    """1 where the completion was cut at the limit."""
    names: tuple[str, ...]
    values_B_F: Floats
    """(B, F) values of the single rewards, in the order of `names`."""

    @property
    def place_B(self) -> NDArray[np.int64]:
        """(B,) each sample's index in its group, from 0."""
        first_B = np.searchsorted(self.group_B, self.group_B)
        return np.arange(len(self.group_B)) - first_B

    def __add__(self, later: object) -> Self:
        """These samples followed by those of later steps."""
        if not isinstance(later, SampleArrays):
            return NotImplemented
        names = tuple(dict.fromkeys((*self.names, *later.names)))
        values = np.concatenate([part.columns(names) for part in (self, later)])
        joined = {
            name: np.concatenate([getattr(self, name), getattr(later, name)])
            for name in self._fields
            if name.endswith("_B")
        }
        return self._replace(cursor=max(self.cursor, later.cursor), names=names, values_B_F=values, **joined)

    def columns(self, names: tuple[str, ...]) -> Floats:
        """(B, F) values of these rewards, NaN for one that was never recorded."""
        absent_B = np.full(len(self.id_B), np.nan)
        found = [
            self.values_B_F[:, self.names.index(name)] if name in self.names else absent_B for name in names
        ]
        return np.column_stack(found) if found else np.zeros((len(self.id_B), 0))

    def steps(self) -> NDArray[np.int64]:
        """(S,) the recorded steps, ascending."""
        return np.unique(self.step_B)


def read(db: sqlite3.Connection, since: int = 0) -> SampleArrays:
    """The samples of the current training steps whose row of `steps` comes after `since`."""
    plain = db.cursor()
    plain.row_factory = None  # tuples: building a Row each takes as long as everything else
    chosen = "FROM samples s JOIN steps t ON t.id = s.step_id"
    where = "WHERE t.current AND t.kind = 'train' AND t.id > ?"
    rows = plain.execute(
        f"SELECT s.id, t.step, s.group_id, g.group_index, {', '.join(_COLUMNS)} {chosen} JOIN groups g ON g.id = s.group_id "
        f"{where} ORDER BY s.id",
        (since,),
    ).fetchall()
    [(newest,)] = plain.execute("SELECT coalesce(max(id), 0) FROM steps").fetchall()
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 4 + len(_COLUMNS))
    ids = table[:, :4].astype(np.int64).T
    names, values_B_F = _values(plain, ids[0])
    fields = dict(zip(SampleArrays._fields[1:-2], (*ids, *table[:, 4:].T), strict=True))
    return SampleArrays(cursor=max(since, newest), names=names, values_B_F=values_B_F, **fields)


def _values(plain: sqlite3.Cursor, id_B: NDArray[np.int64]) -> tuple[tuple[str, ...], Floats]:
    """Reward names and (B, F) values of these samples, whose ids ascend."""
    if not len(id_B):
        return (), np.zeros((0, 0))
    ends = (int(id_B[0]), int(id_B[-1]))
    rows = plain.execute(
        "SELECT sample_id, name, value FROM sample_rewards WHERE sample_id BETWEEN ? AND ?", ends
    ).fetchall()
    names = tuple(dict.fromkeys(name for _, name, _ in rows))
    place = {name: f for f, name in enumerate(names)}
    table = np.array([(sample, place[name], value) for sample, name, value in rows], dtype=np.float64)
    sample_N = table[:, 0].astype(np.int64)
    row_N = np.minimum(np.searchsorted(id_B, sample_N), len(id_B) - 1)
    here_N = id_B[row_N] == sample_N  # evaluations lie in between
    values_B_F = np.full((len(id_B), len(names)), np.nan)
    values_B_F[row_N[here_N], table[here_N, 1].astype(np.int64)] = table[here_N, 2]
    return names, values_B_F
