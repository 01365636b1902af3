"""Ranks above 0: load the same weights, then carry out the instructions of rank 0 until it sends the end."""

from typing import Any

import torch

from workbench.core.config import RunConfig
from workbench.core.types import Prompt, Request, Sampling
from workbench.models.load import load_policy
from workbench.record.folder import RunFolder
from workbench.rollouts.registry import make_engine
from workbench.train.distributed.leader import broadcast_state, sample_shards
from workbench.train.distributed.messages import Arrays, unpack, unpack_groups
from workbench.train.oom import OomRetryEngine
from workbench.train.process_group import process_group
from workbench.train.update import Updater


def serve(folder: RunFolder) -> None:
    """The whole run on a rank above 0."""
    config = folder.config()
    with process_group(config.nproc) as ranks:
        policy = load_policy(config)
        updater = Updater(policy, config, ranks)
        broadcast_state(ranks, policy, updater)
        engine = OomRetryEngine(make_engine(config, policy, folder))
        while True:
            fields, arrays = unpack(ranks.receive())
            match fields["do"]:
                case "end":
                    return
                case "generate":
                    requests = [
                        Request(Prompt("", token_ids=tuple(ids)), tuple(seeds))
                        for ids, seeds in zip(fields["prompts"], fields["seeds"], strict=True)
                    ]
                    sample_shards(engine, ranks, requests, Sampling(**fields["sampling"]))
                case "sync":
                    engine.sync(fields["version"])
                case "move_reference":
                    updater.move_reference(fields["alpha"])
                case "score" | "reference" | "step" as call:
                    _update_call(updater, call, fields, arrays)


def _update_call(updater: Updater, call: str, fields: dict[str, Any], arrays: Arrays) -> None:
    """This rank's share of one of the updater's methods; rank 0 keeps the result."""
    config, groups = RunConfig.parse(fields["config"]), unpack_groups(fields, arrays)
    if call == "score":
        updater.score(groups, config, logp_only=fields["logp_only"])
    elif call == "reference":
        updater.reference(groups, config, initial=fields["initial"])
    else:
        reference = arrays.get("reference")
        updater.step(
            groups,
            arrays["advantages"],
            config,
            fields["step"],
            reference_B_T=None
            if reference is None
            else torch.from_numpy(reference).to(updater.policy.device),
            excluded_B=arrays.get("excluded"),
            sample_weights_B=arrays.get("sample_weights"),
        )
