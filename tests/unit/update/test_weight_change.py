"""The share of weights that an update changed at all."""

import torch

from workbench.train.weight_change import changed_share, weight_samples


def test_weights_whose_step_is_below_half_of_their_last_bit_count_as_unchanged() -> None:
    # bfloat16 keeps 8 bits: the neighbours of 1 are 2**-7 above and 2**-8 below, those of 2**-10 a thousandth of that.
    weight = torch.tensor([1.0, 1.0, 2.0**-10, 2.0**-10], dtype=torch.bfloat16)
    before = weight_samples([weight])
    weight += 2.0**-17
    assert weight.tolist() == [1.0, 1.0, 2.0**-10 + 2.0**-17, 2.0**-10 + 2.0**-17]
    assert changed_share(before, [weight]) == 0.5


def test_float32_is_not_looked_at_and_large_matrices_are_sampled_evenly() -> None:
    assert weight_samples([torch.zeros(4)]) == []
    [large] = weight_samples([torch.zeros(100, 8192, dtype=torch.bfloat16), torch.zeros(3)])
    assert len(large) == 4096
