"""From unrendered prompts to what the model reads: template, token ids, id.

In: prompts and a tokenizer. Out: the same prompts with `text`, `token_ids` and `id` filled. Control tokens
that a user typed are encoded as plain text, so that data cannot close a turn or play the assistant.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from jinja2 import TemplateError
from transformers.convert_slow_tokenizer import bytes_to_unicode

from workbench.core.errors import DataError, ModelError
from workbench.core.types import Prompt, prompt_id
from workbench.prompts.data import MESSAGES, ROW

Template = Literal["chat", "r1-zero", "plain"]
Message = dict[str, str]

_R1_ZERO = (
    "Below, a User asks and an Assistant replies. Before replying, the Assistant works the problem out "
    "privately. It writes this reasoning between <think> and </think> and then its result between <answer> "
    "and </answer>, like this: <think> the reasoning </think> <answer> the result </answer>"
)
_SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}
_SHOWN = 5
_LEFT_OUT = "was taught no system messages, so they are left out"
"""A template that leaves system messages out on purpose says so in these words."""
TEMPLATE_ERRORS = (
    TemplateError,
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RecursionError,
)
"""What a template, which is code of strangers, may raise."""


def render(
    prompts: Sequence[Prompt],
    tokenizer: Any,
    template: Template = "chat",
    system_prompt: str = "",
    max_prompt_length: int | None = None,
    notes: list[str] | None = None,
) -> list[Prompt]:
    """Fill `text`, `token_ids` and `id`.

    chat: the tokenizer's own template. r1-zero: a dialogue between user and assistant that fixes the form of
    the completion and nothing of its content, after DeepSeek-R1 (arXiv 2501.12948), in words of our own. plain:
    the bare text. A system message inside a chat-style prompt replaces `system_prompt`. Raises ModelError
    without a usable chat template, or where it leaves out a question; DataError for prompts above `max_prompt_length` tokens.
    What had to be changed for the model to read everything is appended to `notes`, once each.
    """
    notes = [] if notes is None else notes
    if template == "chat" and not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            "This model has no chat template, so template = chat cannot be used. Set template to plain (the "
            "bare text) or r1-zero (a dialogue), or choose an instruction-tuned model."
        )
    rendered = []
    for prompt in prompts:
        text, token_ids = _encode(messages(prompt, system_prompt), tokenizer, template, notes)
        while token_ids[1:2] == token_ids[:1] == [getattr(tokenizer, "bos_token_id", None)]:
            token_ids = token_ids[1:]  # the template and the tokenizer each put one
        rendered.append(
            dataclasses.replace(
                prompt, text=text, token_ids=tuple(token_ids), id=prompt_id(text, prompt.answer)
            )
        )
    if rendered:
        _check_ids(rendered[0], tokenizer, notes)
    _check_lengths(rendered, max_prompt_length)
    return rendered


def turn_end(tokenizer: Any) -> int | None:
    """The special token with which the chat template ends an assistant's turn; None without a template or such a token."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    reply = "0 1 0 1"
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "1"}, {"role": "assistant", "content": reply}], tokenize=False
        )
    except TEMPLATE_ERRORS:
        return None
    rest = str(text).rpartition(reply)[2].lstrip()
    special = [
        (len(token.content), i)
        for i, token in tokenizer.added_tokens_decoder.items()
        if token.special and rest.startswith(token.content)
    ]
    return max(special)[1] if special and reply in text else None


def messages(prompt: Prompt, system_prompt: str = "") -> list[Message]:
    """The prompt as a chat."""
    chat = [dict(message) for message in prompt.columns.get(MESSAGES, ())]
    chat = chat or [{"role": "user", "content": prompt.question}]
    if system_prompt and chat[0]["role"] != "system":
        chat.insert(0, {"role": "system", "content": system_prompt})
    return chat


def token_text(tokenizer: Any) -> Callable[[int], str | bytes]:
    """What each token id stands for, exactly: bytes where a token may hold only part of a character.

    Decoding single ids would lose leading spaces and replace such parts by question marks.
    """
    added: dict[int, str] = {
        token_id: token.content for token_id, token in tokenizer.added_tokens_decoder.items()
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)  # tokenizers written in Python have none
    decoder = "" if backend is None else json.dumps(json.loads(backend.to_str())["decoder"])
    byte_of = {sign: byte for byte, sign in bytes_to_unicode().items()} if '"ByteLevel"' in decoder else {}

    def text(token_id: int) -> str | bytes:
        if token_id in added:
            return added[token_id]
        token = tokenizer.convert_ids_to_tokens(token_id)
        if token is None:  # models often have more rows than their tokenizer has tokens
            return f"<{token_id}>"
        if byte_of and all(sign in byte_of for sign in token):
            return bytes(byte_of[sign] for sign in token)
        if single := re.fullmatch(r"<0x([0-9A-F]{2})>", token):
            return bytes([int(single[1], 16)])
        return str(token).replace("▁", " ")

    return text


def _encode(
    chat: list[Message], tokenizer: Any, template: Template, notes: list[str]
) -> tuple[str, list[int]]:
    match template:
        case "chat":
            return _chat(chat, tokenizer, notes)
        case "r1-zero":
            return _text(_dialogue(chat), tokenizer)
        case "plain":
            return _text("\n\n".join(message["content"] for message in chat), tokenizer)


def _chat(chat: list[Message], tokenizer: Any, notes: list[str]) -> tuple[str, list[int]]:
    """The chat in the first form of which the template writes out every system and user message."""
    left_out = _LEFT_OUT in str(tokenizer.chat_template)
    wanted = [m for m in chat if m["role"] == "user" or (m["role"] == "system" and not left_out)]
    refusal: Exception | None = None
    missing: list[Message] = []
    for form, note in _forms(chat):
        try:
            text, token_ids = _apply(form, tokenizer)
        except TEMPLATE_ERRORS as error:
            refusal = error
            continue
        missing = [message for message in wanted if _squashed(message["content"]) not in _squashed(text)]
        printed = (
            isinstance(form[0]["content"], list) and str(form[0]["content"])[:8] in text
        )  # a list as Python writes it
        if not missing and not printed:
            if note and note not in notes:
                notes.append(note)
            return text, token_ids
    if refusal is not None:
        raise ModelError(
            f"The model's chat template refuses a prompt: {refusal}. Try template plain or r1-zero."
        ) from None
    left = (missing or wanted)[0]
    raise ModelError(
        f"The model's chat template leaves out the {left['role']} message {left['content'][:80]!r}: the model would read "
        f"{text[:200]!r}. Try template plain or r1-zero, or mend chat_template in the model's folder."
    )


def _forms(chat: list[Message]) -> Iterator[tuple[list[Any], str]]:
    """The chat as it is, with its texts as lists of parts, and with the system message in front of the first user message; and what to
    say of each."""

    def parts(messages: list[Message]) -> list[Any]:
        return [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]

    as_parts = "the chat template reads lists of content parts: each message is given as one text part"
    yield chat, ""
    yield parts(chat), as_parts
    if chat[0]["role"] == "system" and len(chat) > 1:
        system, first, *rest = chat
        merged = [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
        folded = "the chat template writes no system message: the system prompt opens the first user message instead"
        yield merged, folded
        yield parts(merged), f"{folded}; {as_parts}"


def _squashed(text: str) -> str:
    return "".join(text.split())


def _check_ids(prompt: Prompt, tokenizer: Any, notes: list[str]) -> None:
    """Whether the token ids say what the text says, as far as the tokenizer can write it."""
    decoded = tokenizer.decode(prompt.token_ids)
    if _squashed(prompt.question) not in _squashed(decoded) and _squashed(prompt.question) in _squashed(
        prompt.text
    ):
        notes.append(
            f"the tokenizer cannot write every character of the prompts: the model reads {decoded[:200]!r} for {prompt.text[:200]!r}"
        )
    if prompt.token_ids and prompt.token_ids[-1] == getattr(tokenizer, "eos_token_id", None):
        notes.append(
            f"prompts end with the end token {tokenizer.decode(prompt.token_ids[-1:])!r}, which the chat template puts there"
        )


def _apply(chat: list[Any], tokenizer: Any) -> tuple[str, list[int]]:
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    token_ids = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=False, sanitize_control_tokens=True
    )
    return text, list(token_ids)


def _dialogue(chat: list[Message]) -> str:
    system = [message["content"] for message in chat if message["role"] == "system"]
    turns = [
        f"{_SPEAKERS[message['role']]}: {message['content']}"
        for message in chat
        if message["role"] != "system"
    ]
    return "\n".join([*system, _R1_ZERO, *turns, "Assistant:"])


def _text(text: str, tokenizer: Any) -> tuple[str, list[int]]:
    """Encode text that holds no control token on purpose; the tokenizer adds its own first token, if any."""
    encoded = tokenizer(text, split_special_tokens=True, return_special_tokens_mask=True)
    token_ids, added = list(encoded["input_ids"]), list(encoded["special_tokens_mask"])
    while len(token_ids) > 1 and added.pop():
        token_ids.pop()  # an end token here would end the completion before it begins
    opening = tokenizer.decode(token_ids[:1]) if token_ids[:1] == [tokenizer.bos_token_id] else ""
    return opening + text, token_ids


def _check_lengths(prompts: Sequence[Prompt], limit: int | None) -> None:
    empty = [_place(prompt, i) for i, prompt in enumerate(prompts) if not prompt.token_ids]
    if empty:
        raise DataError(
            f"{_listed(empty)}: no tokens are left of the prompt after templating. Fill or remove it."
        )
    if limit is None:
        return
    long = [
        f"{_place(prompt, i)} ({len(prompt.token_ids)} tokens)"
        for i, prompt in enumerate(prompts)
        if len(prompt.token_ids) > limit
    ]
    if long:
        raise DataError(
            f"{len(long)} of {len(prompts)} prompts are longer than the {limit} tokens that fit "
            f"(max_prompt_length, or the model's context): {_listed(long)}. Shorten or remove them, raise "
            "max_prompt_length, or choose a model with a longer context."
        )


def _place(prompt: Prompt, index: int) -> str:
    """Where a user finds the prompt: its row in their file, else its place in the task."""
    return f"row {prompt.columns[ROW]}" if ROW in prompt.columns else f"prompt {index + 1}"


def _listed(places: Sequence[str]) -> str:
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return ", ".join(places[:_SHOWN]) + more
