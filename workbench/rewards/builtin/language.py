"""Whether the reasoning is in the target language: counted by script; lingua distinguishes languages of one script."""

import functools
import unicodedata
from importlib import import_module
from typing import Any

from workbench.rewards.api.decorator import Example, reward
from workbench.rewards.builtin import formulas
from workbench.rewards.builtin.text import thoughts

SCRIPTS: dict[str, frozenset[str]] = {
    "ar": frozenset({"ARABIC"}),
    "bg": frozenset({"CYRILLIC"}),
    "de": frozenset({"LATIN"}),
    "el": frozenset({"GREEK"}),
    "en": frozenset({"LATIN"}),
    "es": frozenset({"LATIN"}),
    "fr": frozenset({"LATIN"}),
    "he": frozenset({"HEBREW"}),
    "hi": frozenset({"DEVANAGARI"}),
    "it": frozenset({"LATIN"}),
    "ja": frozenset({"HIRAGANA", "KATAKANA", "CJK"}),
    "ko": frozenset({"HANGUL"}),
    "nl": frozenset({"LATIN"}),
    "pl": frozenset({"LATIN"}),
    "pt": frozenset({"LATIN"}),
    "ru": frozenset({"CYRILLIC"}),
    "th": frozenset({"THAI"}),
    "tr": frozenset({"LATIN"}),
    "uk": frozenset({"CYRILLIC"}),
    "vi": frozenset({"LATIN"}),
    "zh": frozenset({"CJK"}),
}
"""Language codes and the scripts they are written in."""
_NAMES = {
    "arabic": "ar",
    "chinese": "zh",
    "english": "en",
    "french": "fr",
    "german": "de",
    "italian": "it",
    "japanese": "ja",
    "korean": "ko",
    "portuguese": "pt",
    "russian": "ru",
    "spanish": "es",
}
_UNSPACED = frozenset({"CJK", "HIRAGANA", "KATAKANA", "THAI"})


def prepare(detector: str = "script") -> None:
    """Load lingua's models, where they are wanted, before the clock of the first call runs."""
    if detector == "lingua":
        _detector()


@reward(
    title="Keeps to the language",
    range=(0.0, 1.0),
    weakness=(
        "By script alone German counts as English; code and names count as Latin. A short text is cheap."
    ),
    example=Example({"completion": "<think>we 计算 it</think>", "language": "en"}, 0.5),
)
def language(completion: str, *, language: str = "en", detector: str = "script") -> float | None:
    """Share of the words of the reasoning that are in the target language. (DeepSeek-R1 2501.12948 eq 7)

    detector `script` counts by Unicode script, each character of unspaced scripts as a word; `lingua` also distinguishes
    languages of one script (pip install lingua-language-detector). None where there are no words.
    """
    text, code = thoughts(completion), _NAMES.get(language.casefold(), language.casefold())
    if code not in SCRIPTS:
        raise ValueError(f"language is {language!r}. Known are {', '.join(SCRIPTS)}.")
    if detector == "lingua":
        return formulas.language_consistency(*_by_lingua(text, code))
    scripts = [script for script, count in script_runs(text) for _ in range(count)]
    return formulas.language_consistency(sum(item in SCRIPTS[code] for item in scripts), len(scripts))


def script_runs(text: str) -> list[tuple[str, int]]:
    """Runs of letters of one script, in order, and how many words each counts for."""
    runs: list[tuple[str, int]] = []
    last = ""
    for character in text:
        script = _script(character)
        if script and script == last:
            if script in _UNSPACED:
                runs[-1] = (script, runs[-1][1] + 1)
        elif script:
            runs.append((script, 1))
        last = script
    return runs


@functools.lru_cache(maxsize=1 << 14)
def _script(character: str) -> str:
    """The script of a letter by its Unicode name; '' for what is no letter."""
    if not unicodedata.category(character).startswith("L"):
        return ""
    return unicodedata.name(character, "").partition(" ")[0]


def _by_lingua(text: str, code: str) -> tuple[int, int]:
    """Words in the language, and all words."""
    detector, wanted = _detector(), code.upper()
    target = total = 0
    for part in detector.detect_multiple_languages_of(text):
        total += part.word_count
        target += part.word_count if part.language.iso_code_639_1.name == wanted else 0
    return target, total


@functools.lru_cache(maxsize=1)
def _detector() -> Any:
    try:
        lingua = import_module("lingua")
    except ModuleNotFoundError:
        raise ValueError("detector 'lingua' is not installed: pip install lingua-language-detector") from None
    codes = [getattr(lingua.IsoCode639_1, code.upper()) for code in SCRIPTS]
    builder = lingua.LanguageDetectorBuilder.from_iso_codes_639_1(*codes)
    return builder.with_low_accuracy_mode().with_preloaded_language_models().build()
