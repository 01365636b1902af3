"""What a run's results depend on: package versions, hardware, git commit. Reads metadata, imports nothing heavy."""

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
    """Installed versions of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Platform, processors and memory, without loading torch."""
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


@cache
def git_commit() -> dict[str, Any] | None:
    """Commit of the checkout that holds this package, and whether files are changed; None without a checkout."""
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
