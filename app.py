"""Open the dashboard: `python app.py`."""

import sys

from workbench.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", *sys.argv[1:]]))
