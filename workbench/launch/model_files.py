"""What is wrong with a model folder, seen from its files alone: weights, tokenizer, special tokens, chat template.

In: a folder that `save_pretrained` wrote, or should have. Out: a sentence per problem. Loads no weights and no torch.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.core.estimate import ModelFacts

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "sentencepiece.bpe.model")


def problem_of(facts: ModelFacts) -> str:
    """Why this model cannot be trained, in a sentence; '' where nothing stands in the way."""
    return _weights_problem(facts.folder) or _tokenizer_problem(facts)


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer can render a chat."""
    return (
        (folder / "chat_template.jinja").is_file()
        or (folder / "chat_template.json").is_file()
        or bool(_read_json(folder / "tokenizer_config.json").get("chat_template"))
        or (folder / "additional_chat_templates").is_dir()
    )


def has_pad_token(folder: Path) -> bool:
    """Whether any of the model's files names a pad token."""
    return _special_token(folder, "pad_token") is not None


def unknown_modules(folder: Path, targets: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of these names of modules, those that no stored matrix belongs to; and the names there are. Nothing is unknown where the
    files cannot be read."""
    modules: set[str] = set()
    for path in folder.glob("*.safetensors"):
        try:
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        except (OSError, ValueError, OverflowError, MemoryError):
            return [], []
        modules |= {
            name.removesuffix(".weight")
            for name, entry in header.items()
            if name.endswith(".weight") and isinstance(entry, dict) and len(entry.get("shape", ())) == 2
        }
    unknown = [t for t in targets if not any(name == t or name.endswith(f".{t}") for name in modules)]
    return unknown if modules else [], sorted({name.rpartition(".")[2] for name in modules})


def _weights_problem(folder: Path) -> str:
    if any(folder.glob("*.safetensors")):
        return ""
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        return (
            f"its weights are pickle files ({', '.join(pickles[:3])}), which can run any code when they are "
            "opened. Convert them to safetensors (save_pretrained does), or choose another copy."
        )
    return "the folder holds no *.safetensors weights. Choose the folder that save_pretrained wrote."


def _tokenizer_problem(facts: ModelFacts) -> str:
    if not any((facts.folder / name).is_file() for name in _TOKENIZERS):
        return (
            "the folder holds no tokenizer (tokenizer.json). Save the model's tokenizer into the same folder."
        )
    if _special_token(facts.folder, "eos_token") is None:
        return (
            "it names no end-of-sequence token, so answers could not end. Set eos_token in its "
            "tokenizer_config.json or eos_token_id in its generation_config.json."
        )
    highest = _highest_token_id(facts.folder / "tokenizer.json")
    if highest is not None and highest >= facts.vocab:
        return (
            f"its tokenizer has token {highest}, but the network knows only {facts.vocab}. They do not "
            "belong together: save the right tokenizer into the folder."
        )
    return ""


def _special_token(folder: Path, name: str) -> Any:
    """`eos_token` or `pad_token` as any of the model's files gives it, as text or as id; None where none does."""
    for file, key in (
        ("tokenizer_config.json", name),
        ("special_tokens_map.json", name),
        ("generation_config.json", f"{name}_id"),
        ("config.json", f"{name}_id"),
    ):
        if (value := _read_json(folder / file).get(key)) is not None:
            return value
    return None


def _highest_token_id(tokenizer: Path) -> int | None:
    """The highest id in a tokenizer.json; None where its vocabulary is of no known form."""
    content = _read_json(tokenizer)
    vocab = content.get("model", {}).get("vocab") if isinstance(content.get("model"), dict) else None
    added = [
        int(token["id"])
        for token in content.get("added_tokens", [])
        if isinstance(token, dict) and isinstance(token.get("id"), int)
    ]
    if isinstance(vocab, dict) and vocab:
        return max([*added, *(int(value) for value in vocab.values())])
    if isinstance(vocab, list) and vocab:  # unigram: a list of [piece, score]
        return max([*added, len(vocab) - 1])
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
