"""Several processes train one run: rank 0 runs the loop as if alone, the others lend a hand where it is heavy.

In, on rank 0: the engine and the updater of one process; out: the same interfaces, shared out. Prompts are sampled by rank,
scored and compared on rank 0, and each optimiser update is split by group. Everybody holds the same weights throughout.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from workbench.core.config import RunConfig
from workbench.core.types import Group, Prompt, Request, Rollout, Sampling
from workbench.models.load import Policy, load_policy
from workbench.models.logprobs import Scored
from workbench.record.folder import RunFolder
from workbench.rollouts.engine import Engine, Progress, Whole, assemble
from workbench.rollouts.make_engine import make_engine
from workbench.train.oom import FittingEngine
from workbench.train.ranks import Team, joined
from workbench.train.update import Updater, UpdateResult

Arrays = dict[str, NDArray[Any]]
_HEADER, _SKIPS = "header", "skips_in_a_row"


def serve(folder: RunFolder) -> None:
    """All of a run on a rank above 0: the same weights, then whatever rank 0 asks for, until it says that the run is over."""
    config = folder.config()
    with joined(config.nproc) as team:
        policy = load_policy(config)
        hand = Updater(policy, config, team)
        meet(team, policy, hand)
        sampler = FittingEngine(make_engine(config.engine, policy))
        while True:
            words, arrays = unpack(team.hear())
            match words["do"]:
                case "end":
                    return
                case "generate":
                    requests = [
                        Request(Prompt("", token_ids=tuple(ids)), tuple(seeds))
                        for ids, seeds in zip(words["prompts"], words["seeds"], strict=True)
                    ]
                    _answers(sampler, team, requests, Sampling(**words["sampling"]))
                case "move_reference":
                    hand.move_reference(words["alpha"])
                case "score" | "reference" | "step" as name:
                    _take_part(hand, name, words, arrays)


def _take_part(updater: Updater, name: str, words: dict[str, Any], arrays: Arrays) -> None:
    """This rank's share of one of the updater's methods; the result is rank 0's business."""
    config, groups = RunConfig.parse(words["config"]), _groups(words, arrays)
    if name == "score":
        updater.score(groups, config, logp_only=words["logp_only"])
    elif name == "reference":
        updater.reference(groups, config, initial=words["initial"])
    else:
        reference = arrays.get("reference")
        updater.step(
            groups,
            arrays["advantages"],
            config,
            words["step"],
            reference_B_T=None
            if reference is None
            else torch.from_numpy(reference).to(updater.policy.device),
            excluded_B=arrays.get("excluded"),
            sample_weights_B=arrays.get("sample_weights"),
        )


def meet(team: Team, policy: Policy, updater: Updater) -> None:
    """Everybody stands where rank 0 stands, behind its checkpoint or at its start: weights, reference and optimiser."""
    if team.size == 1:
        return
    if team.rank == 0:
        team.tell(save_tensors({**updater.moments(), _SKIPS: torch.tensor(updater.skips_in_a_row)}))
    else:
        state = load_tensors(team.hear())
        updater.skips_in_a_row = int(state.pop(_SKIPS))
        updater.set_moments(state)
    kept = [] if policy.reference is None else list(policy.reference.parameters())
    team.same([parameter.detach() for parameter in (*policy.trainable(), *kept)])


@contextmanager
def leading(config: RunConfig) -> Iterator[Team]:
    """Rank 0's part of the team, which is all of it where the run has one process; at the end the others are let go."""
    with joined(config.nproc) as team:
        yield team
        team.tell(pack({"do": "end"}))


def engine(own: FittingEngine, team: Team, policy: Policy) -> "FittingEngine | SharedEngine":
    """Rank 0's engine: `own` where there is nobody to share with."""
    return own if team.size == 1 else SharedEngine(own, team, policy)


def updater(policy: Policy, config: RunConfig, team: Team) -> Updater:
    """Rank 0's updater."""
    return Updater(policy, config) if team.size == 1 else LeadingUpdater(policy, config, team)


class SharedEngine:
    """Rank 0's engine: every rank samples its block of the prompts, and the answers come back in order."""

    def __init__(self, engine: FittingEngine, team: Team, policy: Policy) -> None:
        self.engine, self.team, self.policy = engine, team, policy
        self.name, self.pieces = engine.name, engine.pieces

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        progress: Progress | None = None,
        whole: Whole | None = None,
    ) -> list[Group]:
        """See `Engine.generate`. Progress is that of rank 0's own share; no group is told of before all are there."""
        words = {
            "do": "generate",
            "sampling": asdict(sampling),
            "prompts": [list(request.prompt.token_ids) for request in requests],
            "seeds": [list(request.seeds) for request in requests],
        }
        self.team.tell(pack(words))
        answers = _answers(self.engine, self.team, requests, sampling, progress)
        return assemble(requests, answers, self.policy, self.name)


class LeadingUpdater(Updater):
    """Rank 0's updater: what it does, it first tells the others to do as well."""

    _told = False

    def score(self, groups: Sequence[Group], config: RunConfig, *, logp_only: bool = False) -> Scored:
        with self._together("score", groups, config, {"logp_only": logp_only}):
            return super().score(groups, config, logp_only=logp_only)

    def reference(self, groups: Sequence[Group], config: RunConfig, *, initial: bool = False) -> Tensor:
        with self._together("reference", groups, config, {"initial": initial}):
            return super().reference(groups, config, initial=initial)

    def move_reference(self, alpha: float) -> None:
        self.team.tell(pack({"do": "move_reference", "alpha": alpha}))
        super().move_reference(alpha)

    def step(
        self,
        groups: Sequence[Group],
        advantages_B: NDArray[np.float64],
        config: RunConfig,
        step: int,
        *,
        reference_B_T: Tensor | None = None,
        excluded_B: NDArray[np.bool_] | None = None,
        sample_weights_B: NDArray[np.float64] | None = None,
    ) -> UpdateResult:
        given = {
            "advantages": advantages_B,
            "reference": None if reference_B_T is None else reference_B_T.cpu().numpy(),
            "excluded": excluded_B,
            "sample_weights": sample_weights_B,
        }
        with self._together("step", groups, config, {"step": step}, given):
            return super().step(
                groups,
                advantages_B,
                config,
                step,
                reference_B_T=reference_B_T,
                excluded_B=excluded_B,
                sample_weights_B=sample_weights_B,
            )

    @contextmanager
    def _together(
        self,
        name: str,
        groups: Sequence[Group],
        config: RunConfig,
        words: Mapping[str, Any] | None = None,
        arrays: Mapping[str, NDArray[Any] | None] | None = None,
    ) -> Iterator[None]:
        """Tell the others, once: what one of these methods calls of the others, they call as well."""
        inner, self._told = self._told, True
        try:
            if not inner:
                more = {key: value for key, value in (arrays or {}).items() if value is not None}
                said, sampled = _flat(groups)
                settings = {"do": name, "config": config.model_dump(mode="json"), **said, **(words or {})}
                self.team.tell(pack(settings, {**sampled, **more}))
            yield
        finally:
            self._told = inner


# -- what travels ------------------------------------------------------------------------------------------


def pack(words: Mapping[str, Any], arrays: Arrays | None = None) -> bytes:
    """JSON and arrays as one safetensors blob."""
    header = np.frombuffer(json.dumps(words).encode(), np.uint8)
    return bytes(save({_HEADER: header, **{k: np.ascontiguousarray(v) for k, v in (arrays or {}).items()}}))


def unpack(data: bytes) -> tuple[dict[str, Any], Arrays]:
    """What `pack` was given."""
    arrays: Arrays = load(data)
    words: dict[str, Any] = json.loads(arrays.pop(_HEADER).tobytes())
    return words, arrays


def _answers(
    engine: Engine,
    team: Team,
    requests: Sequence[Request],
    sampling: Sampling,
    progress: Progress | None = None,
) -> list[tuple[NDArray[np.int32], NDArray[np.float32]]]:
    """Token ids and log-probabilities of all answers, this rank's share sampled here."""
    own = [requests[i] for i in team.own(len(requests))]
    _, flat = _flat(engine.generate(own, sampling, progress) if own else [])
    return [answer for part in team.exchange(pack({}, flat)) for answer in _cut(unpack(part)[1])]


def _flat(groups: Sequence[Group]) -> tuple[dict[str, Any], Arrays]:
    """Groups without their texts: nothing of the update reads those."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    words = {
        "prompts": [list(group.prompt.token_ids) for group in groups],
        "sizes": [len(group) for group in groups],
    }
    return words, {
        "lengths": np.array([rollout.length for rollout in rollouts], np.int64),
        "ids": np.concatenate([np.zeros(0, np.int32), *(rollout.token_ids for rollout in rollouts)]),
        "logps": np.concatenate([np.zeros(0, np.float32), *(rollout.logprobs for rollout in rollouts)]),
    }


def _cut(arrays: Arrays) -> list[tuple[NDArray[np.int32], NDArray[np.float32]]]:
    ends = np.cumsum(arrays["lengths"])[:-1]
    if not len(arrays["lengths"]):
        return []
    return list(zip(np.split(arrays["ids"], ends), np.split(arrays["logps"], ends), strict=True))


def _groups(words: Mapping[str, Any], arrays: Arrays) -> list[Group]:
    answers = iter(_cut(arrays))
    return [
        Group(
            Prompt("", token_ids=tuple(ids)),
            tuple(Rollout(*next(answers), "", "stop") for _ in range(size)),
        )
        for ids, size in zip(words["prompts"], words["sizes"], strict=True)
    ]
