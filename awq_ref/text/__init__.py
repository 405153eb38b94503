"""Text becomes token ids, logits become text, a conversation becomes one text.

Tokenizer, StreamDecoder        text <-> ids
Sampling, GenerationDefaults    how the next token is chosen, and what a model's folder recommends
processed_logits, probabilities, pick, sampler    logits -> the next id
ChatTemplate, load_chat_templates    messages -> text (rendered by jinja2, which is imported only then)
stdlib_texts, stdlib_files      the text that is on every machine
"""

from awq_ref.text.chat_template import ChatTemplate, load_chat_templates
from awq_ref.text.corpus import split_of, stdlib_files, stdlib_root, stdlib_texts
from awq_ref.text.generation_config import GenerationDefaults
from awq_ref.text.sampling import GREEDY, Sampling, pick, probabilities, processed_logits, sampler
from awq_ref.text.streaming import StreamDecoder
from awq_ref.text.tokenizer import Tokenizer

__all__ = [
    "GREEDY",
    "ChatTemplate",
    "GenerationDefaults",
    "Sampling",
    "StreamDecoder",
    "Tokenizer",
    "load_chat_templates",
    "pick",
    "probabilities",
    "processed_logits",
    "sampler",
    "split_of",
    "stdlib_files",
    "stdlib_root",
    "stdlib_texts",
]
