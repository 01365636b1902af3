"""Files, folders and a temporary folder inside the work folder, zipped and read back."""

import csv
import json
import os
import shutil
import sqlite3
import tempfile
import zipfile
from pathlib import Path


def solve(n: int) -> int:
    Path("inputs").mkdir()
    Path("inputs/numbers.json").write_text(json.dumps([n, n]))
    with tempfile.TemporaryDirectory(dir=".") as folder:
        archive = os.path.join(folder, "all.zip")
        with zipfile.ZipFile(archive, "w") as packed:
            packed.write("inputs/numbers.json")
        with zipfile.ZipFile(archive) as packed:
            one, other = json.loads(packed.read("inputs/numbers.json"))
    with open("table.csv", "w", newline="") as table:
        csv.writer(table).writerow([one, other])
    os.rename("table.csv", "inputs/table.csv")
    with sqlite3.connect("numbers.db") as database:
        database.execute("create table numbers (value)")
        database.executemany("insert into numbers values (?)", [(value,) for value in range(n)])
        (count,) = database.execute("select count(*) from numbers").fetchone()
    shutil.rmtree("inputs")
    return int(count * other)
