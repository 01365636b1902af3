"""Runs model-written code. In: a program with its inputs. Out: plain JSON values and a status.

Standard library only. Expected values stay outside; `compare_exact` compares in the caller's process.
"""

from workbench.sandbox.compare import compare_exact
from workbench.sandbox.job import Call, Job, Limits, Result, Status
from workbench.sandbox.pool import Sandbox
from workbench.sandbox.probe import Badge

__all__ = ["Badge", "Call", "Job", "Limits", "Result", "Sandbox", "Status", "compare_exact"]
