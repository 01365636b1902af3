"""A few threads, a pool, an event loop, a timer signal, and a clock."""

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor


async def square(n: int) -> int:
    await asyncio.sleep(0.001)
    return n * n


def solve(n: int) -> int:
    seen: list[int] = []
    threads = [threading.Thread(target=seen.append, args=(value,)) for value in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ThreadPoolExecutor(4) as pool:
        squares = list(pool.map(lambda value: value * value, [*seen, n]))
    largest: int = max(squares)
    alarms: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, frame: alarms.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    end = time.monotonic() + 2
    while not alarms and time.monotonic() < end:
        time.sleep(0.001)
    os.kill(os.getpid(), 0)
    assert alarms
    assert asyncio.run(square(n)) == largest
    return largest
