"""The local engine: each prompt is read once for its group, its cache fanned out to the samples, and finished rows leave the batch.

It draws tokens and keeps the results; a `Decoder` turns tokens into logits.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from workbench.core.types import Group, Request, Sampling
from workbench.models.fast import cpu_decoder
from workbench.models.fast.decoder import Decoder, LibraryDecoder
from workbench.models.policy import Policy
from workbench.rollouts.engine import (
    Completion,
    OnGroupDone,
    PolicyEngine,
    Progress,
    draw,
    max_lengths,
    uniforms,
)

COMPACT_BELOW = 0.8
"""Rows are compacted when at most this share of them is still running."""
REPORT_EVERY = 16
"""Tokens between two reports of progress and of finished groups."""


class LocalEngine(PolicyEngine):
    """Samples from `policy` in this process, by a decode loop of our own."""

    name = "local"

    def __init__(self, policy: Policy, max_rows: int = 512) -> None:
        super().__init__(policy)
        self.max_rows = max_rows

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        progress: Progress | None = None,
        on_group_done: OnGroupDone | None = None,
    ) -> list[Group]:
        """See `Engine.generate`. Rows beyond `max_rows` are sampled in further rounds, whole groups at a time."""
        completions: list[Completion] = []
        total = sum(len(request.seeds) for request in requests)
        first = 0
        for part in _rounds(requests, self.max_rows):
            done = len(completions)

            def report(finished: int, done: int = done) -> None:
                if progress:
                    progress(done + finished, total)

            def finish_group(
                place: int, own: list[Completion], first: int = first, part: list[Request] = part
            ) -> None:
                if on_group_done:
                    on_group_done(first + place, *self._groups([part[place]], own))

            decoding = _Decoding(self.policy, part, sampling)
            completions += decoding.run(report, finish_group if on_group_done else None)
            first += len(part)
        return self._groups(requests, completions)


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
    """One round of decoding: B samples of several requests. R rows are live; row r belongs to sample `sample_R[r]`."""

    def __init__(self, policy: Policy, requests: Sequence[Request], sampling: Sampling) -> None:
        self.policy, self.requests, self.sampling = policy, requests, sampling
        self.device = policy.device
        seeds = [seed for request in requests for seed in request.seeds]
        limits = max_lengths(requests, sampling, policy)
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
        self.eos_ids = torch.tensor(sorted(policy.eos_ids), device=self.device)
        self.sample_R = torch.arange(len(seeds), device=self.device)
        self.request_B = torch.from_numpy(np.repeat(np.arange(len(requests)), counts)).to(self.device)
        kind = cpu_decoder.CpuDecoder if cpu_decoder.can_run(policy.model) else LibraryDecoder
        self.decoder: Decoder = kind(policy.model, policy.pad_id)

    @torch.no_grad()
    def run(
        self,
        report: Callable[[int], None],
        finish_group: Callable[[int, list[Completion]], None] | None = None,
    ) -> list[Completion]:
        """Decode until every row has ended or reached its limit. `finish_group` is called with requests that are done early."""
        finished: set[int] = set()
        if len(self.sample_R):
            logits_RV = self.decoder.start(
                [request.prompt.token_ids for request in self.requests],
                self.request_B,
                self.tokens_BT.shape[1],
            )
            alive_R = self.limit_B > 0
            for t in range(self.tokens_BT.shape[1]):
                alive_R = self._take(t, logits_RV, alive_R)
                running = int(alive_R.sum())
                if t % REPORT_EVERY == 0 or not running:
                    report(len(self.tokens_BT) - running)
                    if finish_group and running:
                        self._finish_groups(alive_R, finished, finish_group)
                if not running:
                    break
                if running <= COMPACT_BELOW * len(alive_R):
                    alive_R = self._compact(alive_R)
                logits_RV = self.decoder.step(self.token_R)
        return self._completions(slice(None))

    def _completions(self, rows: slice) -> list[Completion]:
        ids, logps = self.tokens_BT[rows].cpu().numpy(), self.logp_BT[rows].cpu().numpy()
        return [(ids[b, :n].copy(), logps[b, :n].copy()) for b, n in enumerate(self.length_B[rows].tolist())]

    def _finish_groups(
        self, alive_R: Tensor, finished: set[int], finish_group: Callable[[int, list[Completion]], None]
    ) -> None:
        """Hand over the completions of requests without a live row, each once."""
        running = set(self.request_B[self.sample_R[alive_R]].tolist())
        first = 0
        for place, request in enumerate(self.requests):
            rows = slice(first, first + len(request.seeds))
            first = rows.stop
            if place not in running and place not in finished:
                finished.add(place)
                finish_group(place, self._completions(rows))

    def _take(self, t: int, logits_RV: Tensor, alive_R: Tensor) -> Tensor:
        """Draw token t of every live row and write it down; returns (R,) which rows go on."""
        token_R, logp_R = draw(logits_RV, self.uniform_BT[self.sample_R, t], self.sampling)
        live_B = self.sample_R[alive_R]
        self.tokens_BT[live_B, t] = token_R[alive_R].to(torch.int32)
        self.logp_BT[live_B, t] = logp_R[alive_R]
        self.length_B[live_B] = t + 1
        self.token_R = token_R
        return alive_R & ~torch.isin(token_R, self.eos_ids) & (t + 1 < self.limit_B[self.sample_R])

    def _compact(self, alive_R: Tensor) -> Tensor:
        """Let the rows that have ended leave the batch."""
        rows = alive_R.nonzero()[:, 0]
        self.decoder.select(rows)
        self.sample_R, self.token_R = self.sample_R[rows], self.token_R[rows]
        return alive_R[rows]
