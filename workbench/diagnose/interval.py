"""95 % interval of a share. Counts in, interval out. Standard library only."""

import math
from typing import NamedTuple


class Interval(NamedTuple):
    """A share with its 95 % interval."""

    share: float
    low: float
    high: float


def wilson(right: float, total: int, z: float = 1.959964) -> Interval:
    """Wilson score interval of right / total (Wilson 1927), valid also near 0 and 1 and for few problems; NaN for total 0.

    With p = right / total: centre (p + z²/2n) / (1 + z²/n), half-width z sqrt(p (1-p)/n + z²/4n²) / (1 + z²/n).
    """
    if total == 0:
        return Interval(math.nan, math.nan, math.nan)
    share = right / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))
