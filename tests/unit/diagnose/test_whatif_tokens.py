"""Token-level what-if: shares worked out by hand on two completions of two and one tokens."""

import math

import numpy as np
import pytest

from tests.fakes import fake_config
from workbench.core.errors import ConfigError
from workbench.diagnose import whatif_tokens
from workbench.record.tokens import NAMES, SampleTokens

HALF = math.log(0.5)


def completion(policy, after=None, reference=None):
    arrays = dict.fromkeys(NAMES)
    for name, values in (("sampler_logp", policy), ("after_logp", after), ("reference_logp", reference)):
        arrays[name] = None if values is None else np.array(values, dtype=np.float32)
    return SampleTokens(np.arange(len(policy), dtype=np.int32), arrays)


def view(completions, advantages, excluded=(False, False), **settings):
    batch = whatif_tokens.batch(completions, np.array([0, 0]), np.array(excluded))
    return whatif_tokens.view(batch, np.array(advantages), fake_config(groups=2, samples=2, **settings))


def test_a_further_pass_clips_what_the_update_moved_too_far():
    # Ratios after the update: 1.5 and 1.1 where A > 0, 0.5 where A < 0: outside .8 to 1.2 are the first and the last.
    moved = [
        completion([HALF, HALF], [HALF + math.log(1.5), HALF + math.log(1.1)]),
        completion([HALF], [HALF + math.log(0.5)]),
    ]
    found = view(moved, [1.0, -1.0], epsilon=0.2)
    assert (found.clipped_low, found.clipped_high) == pytest.approx((1 / 3, 1 / 3))
    wider = view(moved, [1.0, -1.0], epsilon=0.2, epsilon_high=0.6)
    assert (wider.clipped_low, wider.clipped_high) == pytest.approx((1 / 3, 0.0))


def test_the_loss_decides_how_much_a_long_completion_counts():
    # Every p is a half, so a token pushes by its weight: per token 2 to 1, per sequence 1 to 1.
    completions = [completion([HALF, HALF]), completion([HALF])]
    by_token, by_sequence = (view(completions, [1.0, -1.0], loss_type=loss) for loss in ("dapo", "grpo"))
    assert by_token.share_B == pytest.approx([2 / 3, 1 / 3]) and by_token.longer_half == pytest.approx(2 / 3)
    assert by_sequence.share_B == pytest.approx([0.5, 0.5]) and by_sequence.longer_half == pytest.approx(0.5)
    assert by_token.clipped_low is None  # no post-update log-probabilities


def test_a_completion_that_the_loss_leaves_out_gets_nothing():
    found = view([completion([HALF, HALF]), completion([HALF])], [1.0, -1.0], excluded=(True, False))
    assert found.share_B == pytest.approx([0.0, 1.0])


def test_a_penalty_needs_the_reference():
    with pytest.raises(ConfigError, match="record_kl was off"):
        view([completion([HALF]), completion([HALF])], [1.0, -1.0], beta=0.1)
    # Both move alike before the penalty; the one that has left the reference is pulled back.
    kept = view(
        [completion([HALF], reference=[HALF]), completion([HALF], reference=[HALF + 1])], [1.0, 1.0], beta=0.5
    )
    # Weights -1/2 and -1/2 + .5 (1 - e)/2: the second is (1 + .5 (e - 1)) times the first.
    assert kept.share_B[1] / kept.share_B[0] == pytest.approx(1 + 0.5 * (math.e - 1))
