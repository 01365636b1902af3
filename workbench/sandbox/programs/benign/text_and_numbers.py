"""Text in many scripts, regular expressions, decimals, fractions, dates, random numbers, printing."""

import datetime
import hashlib
import random
import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo


@dataclass(order=True)
class Point:
    x: "int"
    y: "int"


def solve(n: int) -> int:
    random.seed(n)
    points = sorted(Point(random.randrange(100), value) for value in range(10))
    assert points == sorted(points)
    print("naïve — 数学 — ألف — 🙂", "\ud800")
    assert unicodedata.normalize("NFC", "e\u0301") == "é"
    assert re.findall(r"\d+", "a1b22") == ["1", "22"]
    assert datetime.datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")).year == 2026
    assert len(hashlib.sha256(b"x").hexdigest()) == 64
    return int(Decimal(n) * Fraction(n).numerator)
