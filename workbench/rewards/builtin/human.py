"""People's ratings of completions as a reward. The run waits for them; a completion without a rating has no value."""

from workbench.rewards.api.decorator import Example, reward
from workbench.rewards.api.outcome import Absent


@reward(
    title="People's ratings",
    range=(0.0, 1.0),
    outside=True,
    weakness=(
        "Few, slow and tired: only rated samples count, and who rates is soon moved by length and confidence."
    ),
    example=Example({"human_rating": 1.0}, 1.0),
)
def human(human_rating: float | None) -> float:
    """1 for a good completion, 0 for a bad one, or its place in a ranked group, from 1 (best) down to 0.

    The run waits at each step until the completions are rated or `human_timeout` is over. None without a rating: the sample
    leaves its group, and counts neither for nor against.
    """
    if human_rating is None:
        raise Absent("nobody has rated this sample.")
    return human_rating
