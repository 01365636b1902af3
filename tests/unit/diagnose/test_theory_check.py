"""Bandits trained with the training functions end where the closed forms say."""

import numpy as np
import pytest

from workbench.diagnose import theory, theory_check


def test_every_setting_ends_within_the_tolerance_of_its_closed_form() -> None:
    rows = theory_check.run()
    assert [row.setting for row in rows if not abs(row.difference) <= theory_check.TOLERANCE] == []
    assert len({row.setting for row in rows}) == len(rows)
    exact = [row for row in rows if "sampled" not in row.curve and "G = 256" not in row.curve]
    assert max(abs(row.difference) for row in exact) < 1e-4 and len(exact) > 30
    identities = [row for row in rows if row.curve.startswith("d logit/dt")]
    assert max(abs(row.difference) for row in identities) < 1e-9 and len(identities) == 6


def test_the_uncorrected_formula_differs_from_noisy_training() -> None:
    noisy = next(task for task in theory_check.tasks() if task.noisy)
    assert abs(theory_check.end_point(noisy, 1.0) - theory.eq15(0.25, 1.0)) > 0.2


def test_sequence_level_theory_differs_from_token_level_training() -> None:
    assert abs(theory_check.two_token_end_point(0.5) - theory.eq14(0.25, 0.5)) > 0.05


@pytest.mark.parametrize("outputs, group_size", [(2, 5), (3, 4)])
def test_enumerated_groups_are_a_probability_distribution(outputs: int, group_size: int) -> None:
    task = theory_check.Task(
        "", lambda beta: beta, (), group_size, tuple(range(outputs)), (1 / outputs,) * outputs
    )
    output_B, reward_B, chance_B = theory_check.enumerated(task, np.log(np.arange(1, outputs + 1)))
    assert chance_B.sum() / group_size == pytest.approx(1)
    share = np.bincount(output_B, chance_B) / group_size
    np.testing.assert_allclose(share, np.arange(1, outputs + 1) / sum(range(outputs + 1)))
    np.testing.assert_array_equal(reward_B, output_B)
