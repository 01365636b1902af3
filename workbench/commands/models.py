"""The commands sample and export: sample from a run's model, write the model or a page of the run to files."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from workbench import run as handle
from workbench.commands.options import DEFAULT_ROOT, AsJson, Root, RunName, print_json
from workbench.core.errors import ConfigError
from workbench.launch import probe_client
from workbench.record import folder as record


def sample(
    run: RunName,
    *,
    prompt: Annotated[str, Parameter(help="A question as a person would write it.")],
    n: Annotated[int, Parameter(name=["--count", "-n"], help="How many samples.")] = 4,
    step: Annotated[int | None, Parameter(help="A checkpoint instead of the final model.")] = None,
    base: Annotated[bool, Parameter(negative="", help="Beside them the base model's samples.")] = False,
    temperature: float | None = None,
    seed: int | None = None,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """Fresh samples of a run's model for a prompt of your own."""
    given = {"temperature": temperature, "seed": seed}
    sampling = {name: value for name, value in given.items() if value is not None}
    found = probe_client.sample(record.find(run, runs), prompt, n, step=step, base=base, **sampling)
    if json:
        print_json(found)
        return 0
    for title, samples in ((found["model"], found["samples"]), ("base model", found.get("base", []))):
        for one in samples:
            print(f"-- {title}: {one['length']} tokens, {one['finish_reason']}")
            print(one["text"])
    return 0


def export(
    run: RunName,
    *,
    model: Annotated[Path | None, Parameter(help="Folder to write; must not hold anything yet.")] = None,
    html: Annotated[
        Path | None, Parameter(help="A page of the run in one file, that opens anywhere.")
    ] = None,
    max_mb: Annotated[float, Parameter(help="With --html: about how large the file may become.")] = 12.0,
    step: Annotated[int | None, Parameter(help="A checkpoint instead of the final model.")] = None,
    merge: Annotated[bool, Parameter(negative="", help="Fold a LoRA adapter into the weights.")] = False,
    runs: Root = DEFAULT_ROOT,
    json: AsJson = False,
) -> int:
    """Write the trained model as a plain Hugging Face folder, or the run as a page in one file."""
    folder = record.find(run, runs)
    if (model is None) == (html is None):
        raise ConfigError(
            "Say what to export: --model FOLDER (the weights) or --html FILE (a page to look at)."
        )
    if html is not None:
        page = handle.Run(folder).html(html, max_mb)
        print(page, file=sys.stderr)
    target = html if model is None else handle.export(folder, model, step, merge)
    if json:
        print_json({"html" if model is None else "model": str(target)})
    else:
        print(target)
    return 0
