"""Where a run's results come from: versions, machine, commit. Reads metadata, imports nothing heavy."""

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = (
    "grpo-workbench",
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "numpy",
    "safetensors",
    "tokenizers",
    "gradio",
    "wandb",
)


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on; reads package metadata, imports nothing."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """The machine as seen without loading torch: platform, processors, memory."""
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


@cache
def git_commit() -> dict[str, Any] | None:
    """Commit of the checkout this package lies in, and whether it is changed; None where it is installed
    without one."""
    home = Path(__file__).parents[2]
    if not (home / ".git").exists():
        return None
    try:
        commit = subprocess.run(
            ["git", "-C", str(home), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
        changes = subprocess.run(
            ["git", "-C", str(home), "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (
        {"commit": commit.stdout.strip(), "changed": bool(changes.stdout.strip())}
        if commit.returncode == 0
        else None
    )
