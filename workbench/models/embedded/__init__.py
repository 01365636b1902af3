"""The base model of the package: 336,480 parameters, pretrained by `recipe.py` for the chain task."""

from pathlib import Path


def folder() -> Path:
    """The model's folder; `AutoModelForCausalLM.from_pretrained(folder())` loads it."""
    return Path(__file__).parent / "chain"
