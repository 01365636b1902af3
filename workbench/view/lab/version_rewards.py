"""A version of the reward lab as rewards of a new run: values for the form's reward rows, and the line beneath them.

In: the version's number in the URL, or the names in the rows. Out: `v<n>.py:function` names, which preflight resolves; the run saves
and runs exactly that file.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from markupsafe import Markup

from workbench.core.config import RewardSpec
from workbench.core.errors import RunError
from workbench.view.common.markup import tag
from workbench.view.lab.drafts import Drafts, Version

_PLACE = re.compile(r"(?P<path>.*/lab/v(?P<number>\d{1,6})\.py):(?P<function>\w+)")


def specs(version: Version) -> list[RewardSpec]:
    """The version's functions as rewards of a run."""
    return [
        RewardSpec(name=f"{version.path}:{part.name}", weight=part.weight, enabled=part.enabled)
        for part in version.parts
    ]


def from_url(root: Path, number: str | None) -> Version | None:
    """The version that the URL names; None where it names none that exists."""
    if not number or not number.isascii() or not number.isdigit() or len(number) > 6:
        return None
    try:
        return Drafts(root).version(int(number))
    except RunError:
        return None


def label(name: str) -> str | None:
    """`v3 · correct` for a reward of the lab; None for any other."""
    found = _PLACE.fullmatch(name)
    return f"v{found['number']} · {found['function']}" if found else None


def used(root: Path, names: Iterable[str]) -> list[Version]:
    """The versions of this lab that these rewards come from, in order."""
    drafts = Drafts(root)
    numbers = {
        int(found["number"])
        for name in names
        if (found := _PLACE.fullmatch(name)) and Path(found["path"]).parent == drafts.folder
    }
    return [version for version in drafts.versions() if version.number in numbers]


def line(versions: Iterable[Version]) -> Markup:
    """Which versions this run would save and run."""
    named = [
        tag("span", f"v{one.number} of the reward lab, source ", tag("b", one.sha[:16], class_="mono"), ": ")
        for one in versions
    ]
    return (
        tag("p", named, "exactly this code is saved with the run and runs.", class_="wb-note")
        if named
        else Markup("")
    )
