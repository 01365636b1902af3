"""A process to be killed: for every line `WORK PATH` on standard input it forks a child that works until it
is killed.

WORK is `steps` (records step after step) or `checkpoints` (saves one after the other); the child prints the
number of each piece of work once it is safely done. Forking from here saves the imports of 25 fresh
interpreters.
"""

import dataclasses
import itertools
import os
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.fakes import make_step, token_text
from workbench.record import checkpoints
from workbench.record.folder import RunFolder
from workbench.record.reader import Reader
from workbench.record.writer import Writer


def record_steps(folder: RunFolder) -> None:
    template = make_step(0, groups=3, samples=4)
    with Writer(folder, token_text=token_text) as writer:
        last = Reader(folder).last_step()
        for step in itertools.count(0 if last is None else last + 1):
            writer.step(dataclasses.replace(template, step=step, metrics=dict(template.metrics)))
            writer.flush()
            tell(step)


def save_checkpoints(folder: RunFolder) -> None:
    def write(place: Path) -> None:
        for part in range(5):
            save_file({"w": np.full(50_000, step, np.float32)}, place / f"part-{part}.safetensors")

    found = checkpoints.latest(folder)
    for step in itertools.count(1 if found is None else int(found.name[5:]) + 1):
        checkpoints.save(folder, step, write)
        tell(step)


def tell(number: int) -> None:
    os.write(1, f"{number}\n".encode())


def main() -> None:
    for line in sys.stdin:
        work, path = line.split(maxsplit=1)
        child = os.fork()
        if child == 0:
            os.write(1, f"pid {os.getpid()}\n".encode())  # told by the child, so that it comes first
            {"steps": record_steps, "checkpoints": save_checkpoints}[work](RunFolder(path.strip()))
            os._exit(0)
        os.waitpid(child, 0)
        os.write(1, b"gone\n")


if __name__ == "__main__":
    main()
