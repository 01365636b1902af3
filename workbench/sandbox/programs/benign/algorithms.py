"""Heap, deque, memo, sorting, bytes, deep but ordinary recursion, large integers."""

import bisect
import heapq
import math
import sys
from collections import Counter, deque
from functools import cache


@cache
def odd_sum(n: int) -> int:
    return 0 if n == 0 else odd_sum(n - 1) + 2 * n - 1


def depth(n: int) -> int:
    return 0 if n == 0 else 1 + depth(n - 1)


def solve(n: int) -> int:
    sys.setrecursionlimit(20_000)
    heap = [value * value for value in range(n, 0, -1)]
    heapq.heapify(heap)
    smallest_first = [heapq.heappop(heap) for _ in range(n)]
    queue = deque(smallest_first, maxlen=1)
    assert bisect.bisect_left(smallest_first, n * n) == n - 1
    assert Counter("abracadabra").most_common(1) == [("a", 5)]
    assert len(bytearray(1 << 20)) == 1 << 20
    assert math.comb(500, 250) % 97 >= 0
    assert depth(10_000) == 10_000
    assert odd_sum(n) == queue[0]
    return queue[0]
