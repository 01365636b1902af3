"""`python -m workbench`."""

import os
import sys
from pathlib import Path

# `-m` puts the working directory first: a file of the user's there would stand in for a library of that name.
if Path.cwd() != Path(__file__).parents[1]:
    sys.path[:] = [place for place in sys.path if place not in ("", os.getcwd())]

from workbench.cli import main

sys.exit(main())
