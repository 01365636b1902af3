"""The embedded model's tokenizer: byte-level BPE of 426 entries, so any text in any language round-trips."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from workbench.models.embedded import corpus

PAD, END = "<|pad|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
"""The first is reserved: pretraining holds no system messages."""
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
"""Ordinary added tokens, not special ones: decoding with `skip_special_tokens=True` keeps them."""
VOCABULARY = 426
CONTEXT = 1024

CHAT_TEMPLATE = """\
{#- This model was taught no system messages, so they are left out. -#}
{%- for message in messages if message['role'] != 'system' -%}
{%- if message['role'] not in ['user', 'assistant'] -%}
{{- raise_exception('Roles are system, user and assistant; got ' + message['role']) -}}
{%- endif -%}
{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""

_PROSE = (
    "Think first, then give the answer. Work out each step and check the result.\n",
    "Make 24 from 3, 5, 7. What is 12 plus 34? The question and the answer are numbers.\n",
)
_PRE_SPLIT = Regex(r"\d{1,2}| ?[A-Za-z]+\n?|\s|[^\sA-Za-z\d]")


def build(seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer on a sample of the corpus, all two-digit numbers and a little prose."""
    specials = [PAD, END, *ROLES]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_PRE_SPLIT, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(TAGS),
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(_sample(seed), trainer)
    core.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        padding_side="left",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _sample(seed: int) -> list[str]:
    """Texts whose pair counts decide the merges: chains, numbers and prose.

    Every number has a count of its own, which leaves no ties to an unspecified order.
    """
    chains = [f"{text.problem.question}\n{text.completion}" for text in corpus.texts(seed, 0, 1)]
    numbers = [" ".join([str(number)] * (400 - number)) for number in range(10, 100)]
    return [*chains, *numbers, *_PROSE]
