"""Whether this machine can contain code, and the command that starts a fork-server."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Literal

from workbench.core.errors import SandboxError
from workbench.sandbox.inside import landlock, seccomp
from workbench.sandbox.inside.guard import Paths

Backend = Literal["bwrap", "guard"]

HERE = Path(__file__).resolve().parent
ENVIRONMENT = {"PYTHONHASHSEED": "0"}
ISOLATED = ("-S", "-s", "-P", "-B", "-X", "utf8")
"""`-I -S` with one variable let in: with fixed hashes, a printed set looks the same in every run."""
BOOT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from inside import guard, zygote
del sys.path[0]
zygote.main(int(sys.argv[2]), sys.argv[3], guard.Paths(*json.loads(sys.argv[4])))
"""
SCRATCH_BYTES = 512 << 20
"""Size of the private memory disk that bubblewrap gives to a fork-server for its work folders."""


def require_guard() -> None:
    """SandboxError unless this machine has everything that the guard uses."""
    machine = os.uname().machine if hasattr(os, "uname") else sys.platform
    if not sys.platform.startswith("linux"):
        problem = f"this system is {sys.platform}"
    elif machine not in seccomp.NUMBERS:
        problem = f"this processor is {machine}"
    elif landlock.abi() < 1:
        problem = "this kernel has no Landlock, or a container's system-call profile hides it"
    else:
        return
    raise SandboxError(
        f"Model-written code cannot be contained here: {problem}. Allowed is Linux 5.13 or newer with "
        "Landlock, on x86_64 or aarch64. Run on such a machine (in a container: with a system-call profile "
        "that lets Landlock through), or leave out rewards that run code."
    )


def python_paths() -> Paths:
    """Where the running interpreter keeps its standard library and the libraries it loads."""
    packages = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    libraries = [
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        os.path.join(sys.base_prefix, "lib"),
    ]
    data = ["/usr/share/zoneinfo"]
    return Paths(sorted(packages), [path for path in libraries if os.path.isdir(path)], data)


def server_command(backend: Backend, control_fd: int, base: str) -> list[str]:
    """The command of a fork-server whose work folders lie in the empty folder `base`."""
    paths = python_paths()
    python = getattr(sys, "_base_executable", None) or sys.executable
    start = [python, *ISOLATED, "-c", BOOT, str(HERE), str(control_fd), base, json.dumps(paths)]
    return start if backend == "guard" else [*_bubblewrap(python, paths, base), *start]


def bubblewrap_works() -> bool:
    """Whether bubblewrap is here and may make its namespaces (default containers forbid that)."""
    if not shutil.which("bwrap"):
        return False
    python = getattr(sys, "_base_executable", None) or sys.executable
    command = [*_bubblewrap(python, python_paths(), "/tmp"), python, *ISOLATED, "-c", "pass"]
    try:
        done = subprocess.run(
            command, env=ENVIRONMENT, capture_output=True, stdin=subprocess.DEVNULL, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _bubblewrap(python: str, paths: Paths, base: str) -> list[str]:
    """Own namespaces for everything; of the host's files only Python's, the libraries' and ours."""
    folders = {
        "/usr",
        "/lib",
        "/lib64",
        *paths.packages,
        *paths.libraries,
        os.path.dirname(os.path.realpath(python)),
        str(HERE),
    }
    folders |= {os.path.dirname(python)}
    command = [
        shutil.which("bwrap") or "bwrap",
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--cap-drop",
        "ALL",
    ]
    command += ["--proc", "/proc", "--dev", "/dev", "--chdir", "/"]
    for folder in sorted(folders):
        command += ["--ro-bind-try", folder, folder]
    return [*command, "--size", str(SCRATCH_BYTES), "--tmpfs", base, "--"]
