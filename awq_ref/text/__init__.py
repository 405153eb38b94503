"""Text becomes token ids, logits become text.

Tokenizer, StreamDecoder        text <-> ids
pick, probabilities, sampler    logits -> the next id
stdlib_texts, stdlib_files      the text that is on every machine
"""

from awq_ref.text.corpus import split_of, stdlib_files, stdlib_root, stdlib_texts
from awq_ref.text.sampling import pick, probabilities, sampler
from awq_ref.text.tokenizer import StreamDecoder, Tokenizer

__all__ = [
    "StreamDecoder",
    "Tokenizer",
    "pick",
    "probabilities",
    "sampler",
    "split_of",
    "stdlib_files",
    "stdlib_root",
    "stdlib_texts",
]
