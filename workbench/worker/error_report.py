"""What is kept of an error that ends a worker: the traceback in worker.log, error.json, and a sentence for the status."""

import sys
import time
import traceback

from workbench.core.errors import RunError, WorkbenchError
from workbench.record.files import write_json
from workbench.record.folder import RunFolder
from workbench.record.redact import redact, redact_text


def record_error(folder: RunFolder, error: BaseException) -> str:
    """Write traceback and error.json, secrets left out; returns the sentence for the status. The first of a run's processes
    to fail is the one that counts: it is the cause, and the others only saw it go."""
    text = redact_text("".join(traceback.format_exception(error)))
    print(text, file=sys.stderr, flush=True)
    sentence = _sentence(error)
    report = {
        "type": type(error).__name__,
        "message": str(error),
        "user": isinstance(error, WorkbenchError),
        "traceback": text,
        "time": time.time(),
        "sentence": sentence,
    }
    try:
        if folder.error_path.exists():
            return str(folder.error()["sentence"])
        write_json(folder.error_path, redact(report))
    except (OSError, ValueError, KeyError, RunError) as failure:
        print(f"error.json could not be written: {failure}", file=sys.stderr, flush=True)
    return sentence


def _sentence(error: BaseException) -> str:
    """What the page shows: a user's mistake in its own words, anything else with its type."""
    text = redact_text(str(error))
    if isinstance(error, WorkbenchError):
        return text
    if isinstance(error, MemoryError):
        return "Out of memory. Lower micro_batch_tokens, prompts_per_step or max_completion_length."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
