"""The local engine: prompts are read once per group, fanned out to its samples, and finished rows leave the batch.

It draws and keeps the books; a `Decoder` turns tokens into logits.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.core.types import Group, Request, Sampling
from workbench.models.fast import cpu_decoder
from workbench.models.fast.decoder import Decoder, LibraryDecoder
from workbench.models.load import Policy
from workbench.rollouts.engine import OnGroupDone, Progress, assemble, draw, limit, uniforms

Answers = list[tuple[NDArray[np.int32], NDArray[np.float32]]]
"""Token ids and log-probabilities of each answer."""
LIVE_SHARE = 0.8
"""Rows are compacted when at most this share of them is still running."""


class LocalEngine:
    """Samples from `policy` in this process."""

    name = "local"

    def __init__(self, policy: Policy, max_rows: int = 512) -> None:
        self.policy = policy
        self.max_rows = max_rows

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        progress: Progress | None = None,
        on_group_done: OnGroupDone | None = None,
    ) -> list[Group]:
        """See `Engine.generate`. Rows beyond `max_rows` are sampled in further rounds, whole groups at a time."""
        answers: Answers = []
        total = sum(len(request.seeds) for request in requests)
        first = 0
        for part in _rounds(requests, self.max_rows):
            done = len(answers)

            def report(finished: int, done: int = done) -> None:
                if progress:
                    progress(done + finished, total)

            def ended(place: int, mine: Answers, first: int = first, part: list[Request] = part) -> None:
                if on_group_done:
                    on_group_done(first + place, *assemble([part[place]], mine, self.policy, self.name))

            answers += _Decoding(self.policy, part, sampling).run(report, ended if on_group_done else None)
            first += len(part)
        return assemble(requests, answers, self.policy, self.name)


def _rounds(requests: Sequence[Request], max_rows: int) -> list[list[Request]]:
    rounds: list[list[Request]] = [[]]
    rows = 0
    for request in requests:
        if rounds[-1] and rows + len(request.seeds) > max_rows:
            rounds.append([])
            rows = 0
        rounds[-1].append(request)
        rows += len(request.seeds)
    return rounds


class _Decoding:
    """One round of decoding. R live rows; row r belongs to sample `sample_R[r]`."""

    def __init__(self, policy: Policy, requests: Sequence[Request], sampling: Sampling) -> None:
        self.policy, self.requests, self.sampling = policy, requests, sampling
        self.device = policy.device
        seeds = [seed for request in requests for seed in request.seeds]
        limits = limit(requests, sampling, policy)
        counts = [len(request.seeds) for request in requests]
        self.limit_B = torch.from_numpy(np.repeat(limits, counts)).to(self.device)
        longest = max(limits, default=0)
        draws = np.stack([uniforms(seed, longest) for seed in seeds]) if seeds else np.zeros((0, 0))
        self.uniform_BT = torch.from_numpy(draws).to(self.device)
        self.tokens_BT = torch.full(
            (len(seeds), longest), policy.pad_id, dtype=torch.int32, device=self.device
        )
        self.logp_BT = torch.zeros((len(seeds), longest), dtype=torch.float32, device=self.device)
        self.length_B = torch.zeros(len(seeds), dtype=torch.int64, device=self.device)
        self.eos = torch.tensor(sorted(policy.eos_ids), device=self.device)
        self.sample_R = torch.arange(len(seeds), device=self.device)
        self.repeat = torch.from_numpy(np.repeat(np.arange(len(requests)), counts)).to(self.device)
        kind = cpu_decoder.LeanDecoder if cpu_decoder.fits(policy.model) else LibraryDecoder
        self.decoder: Decoder = kind(policy.model, policy.pad_id)

    @torch.no_grad()
    def run(
        self, report: Callable[[int], None], ended: Callable[[int, Answers], None] | None = None
    ) -> Answers:
        """Decode until every row has ended or reached its limit. `ended` hears of requests that are done early."""
        told: set[int] = set()
        if len(self.sample_R):
            logits_RV = self.decoder.start(
                [request.prompt.token_ids for request in self.requests], self.repeat, self.tokens_BT.shape[1]
            )
            alive_R = self.limit_B > 0
            for t in range(self.tokens_BT.shape[1]):
                alive_R = self._take(t, logits_RV, alive_R)
                running = int(alive_R.sum())
                if t % 16 == 0 or not running:
                    report(len(self.tokens_BT) - running)
                    if ended and running:
                        self._tell(alive_R, told, ended)
                if not running:
                    break
                if running <= LIVE_SHARE * len(alive_R):
                    alive_R = self._compact(alive_R)
                logits_RV = self.decoder.step(self.token_R)
        return self._answers(slice(None))

    def _answers(self, rows: slice) -> Answers:
        ids, logps = self.tokens_BT[rows].cpu().numpy(), self.logp_BT[rows].cpu().numpy()
        return [(ids[b, :n].copy(), logps[b, :n].copy()) for b, n in enumerate(self.length_B[rows].tolist())]

    def _tell(self, alive_R: Tensor, told: set[int], ended: Callable[[int, Answers], None]) -> None:
        """Hand over the answers of requests without a live row."""
        busy = set(self.repeat[self.sample_R[alive_R]].tolist())
        first = 0
        for place, request in enumerate(self.requests):
            rows = slice(first, first + len(request.seeds))
            first = rows.stop
            if place not in busy and place not in told:
                told.add(place)
                ended(place, self._answers(rows))

    def _take(self, t: int, logits_RV: Tensor, alive_R: Tensor) -> Tensor:
        """Draw token t of every live row, write it down, and tell which rows go on."""
        token_R, logp_R = draw(logits_RV, self.uniform_BT[self.sample_R, t], self.sampling)
        live_N = self.sample_R[alive_R]
        self.tokens_BT[live_N, t] = token_R[alive_R].to(torch.int32)
        self.logp_BT[live_N, t] = logp_R[alive_R]
        self.length_B[live_N] = t + 1
        self.token_R = token_R
        return alive_R & ~torch.isin(token_R, self.eos) & (t + 1 < self.limit_B[self.sample_R])

    def _compact(self, alive_R: Tensor) -> Tensor:
        rows = alive_R.nonzero()[:, 0]
        self.decoder.select(rows)
        self.sample_R, self.token_R = self.sample_R[rows], self.token_R[rows]
        return alive_R[rows]
