"""Per-token arrays of one step in one safetensors file: all samples concatenated, (N,), with (B + 1,) offsets.

Log-probabilities and entropy in float16, d(loss)/d(log-prob) (`weight`) in float32, token ids in int32.
"""

import os
import secrets
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from workbench.core.errors import RunError
from workbench.core.types import EvalMode, GroupKind, TokenArrays

NAMES = ("sampler_logp", "policy_logp", "reference_logp", "after_logp", "entropy", "weight")


class SampleTokens(NamedTuple):
    """The token arrays of one sample, each (T,); None where the step did not compute it."""

    token_ids: NDArray[np.int32]
    arrays: dict[str, NDArray[np.float32] | None]


def file_name(step: int, kind: GroupKind, mode: EvalMode | None) -> str:
    """`step-000012.safetensors` or `eval-000010-sampled.safetensors`."""
    return (
        f"step-{step:06d}.safetensors"
        if kind == "train"
        else f"eval-{step:06d}-{mode or 'sampled'}.safetensors"
    )


def size(tokens: TokenArrays) -> int:
    """Bytes the arrays hold in memory."""
    lists = [tokens.token_ids, *(getattr(tokens, name) for name in NAMES)]
    return sum(array.nbytes for arrays in lists if arrays is not None for array in arrays)


def save(path: Path, tokens: TokenArrays) -> None:
    """Writes the file atomically (temporary name, then rename). Raises OSError."""
    lengths = np.array([len(ids) for ids in tokens.token_ids], dtype=np.int64)
    arrays: dict[str, NDArray[np.generic]] = {
        "offsets": np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        "token_ids": _joined(tokens.token_ids, np.int32),
    }
    for name in NAMES:
        if (values := getattr(tokens, name)) is not None:
            # d(loss)/d(log-prob) shrinks with the batch (A / tokens): float16 would underflow.
            arrays[name] = _joined(values, np.float32 if name == "weight" else np.float16)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        save_file(arrays, temporary)
        temporary.chmod(0o600)
        os.replace(temporary, path)
    except SafetensorError as error:  # the library wraps the system's error
        raise OSError(str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> list[SampleTokens]:
    """The arrays of every sample. Raises FileNotFoundError where retention removed the file, RunError where it is
    damaged."""
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        arrays = load_file(path)
        offsets = arrays["offsets"]
        cuts = list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
        return [
            SampleTokens(
                arrays["token_ids"][start:end],
                {
                    name: arrays[name][start:end].astype(np.float32) if name in arrays else None
                    for name in NAMES
                },
            )
            for start, end in cuts
        ]
    except (SafetensorError, KeyError, OSError) as error:
        raise RunError(
            f"{path} is damaged ({error}). The step's samples are in run.db; only its token view is lost."
        ) from error


def retire(folder: Path, newest: int, keep: int) -> list[Path]:
    """Removes the token files of training steps up to `newest` - `keep`, except every tenth step. Returns them."""
    gone = []
    for path in folder.glob("step-*.safetensors"):
        number = path.name[5:-12]
        if number.isdigit() and int(number) <= newest - keep and int(number) % 10:
            path.unlink(missing_ok=True)
            gone.append(path)
    return gone


def _joined(
    values: list[NDArray[np.int32]] | list[NDArray[np.float32]], dtype: type[np.generic]
) -> NDArray[np.generic]:
    if not values:
        return np.zeros(0, dtype)
    return np.concatenate(values).astype(dtype)
