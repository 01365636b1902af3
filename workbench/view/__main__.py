"""`python -m workbench.view`: the dashboard alone, as `app.py` and `workbench app` open it."""

import argparse
import sys
from pathlib import Path

from workbench.core.errors import WorkbenchError
from workbench.view.server.serve import serve


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 after an interrupt, 2 for what the user can put right."""
    parser = argparse.ArgumentParser(
        prog="python -m workbench.view", description="See what GRPO is doing, and steer it."
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder that holds the runs (default: runs)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=int, help="port to listen on (default: 7860 or the next free one)")
    parser.add_argument("--token", help="use this token instead of a random one")
    parser.add_argument("--no-token", action="store_true", help="no token; this machine only")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name that the dashboard answers to",
    )
    parser.add_argument("--read-only", action="store_true", help="look at runs, start and steer none")
    given = parser.parse_args(arguments)
    try:
        serve(
            given.runs,
            host=given.host,
            port=given.port,
            token=given.token,
            use_token=not given.no_token,
            allow_hosts=given.allow_host,
            read_only=given.read_only,
        )
    except WorkbenchError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
