"""`python -P -m workbench.worker RUN_DIR --token T`."""

import sys

from workbench.worker.entry import main

if __name__ == "__main__":
    sys.exit(main())
