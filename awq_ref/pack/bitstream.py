"""Codes of a few bits as a dense little-endian bit stream in 32-bit words.

    words_for          number of words that hold so many codes
    pack_bitstream     codes (rows, n) -> int32 words (rows, ceil(n * bits / 32))
    unpack_bitstream   the exact inverse

Code i of a row occupies the stream's bits i * bits to i * bits + bits - 1, its lowest bit first; bit p of the
stream is bit p % 32 of word p // 32. A 3-bit code may so straddle two words. The last word is filled up with
zeros.

Eight codes of b bits are b bytes: they are put into one 64-bit number, whose first b bytes are the stream.
Byte orders are named ("<u8", "<i4"), so the words are the same on every machine.
Sources: compressed-tensors, format "pack-quantized"; the codes of GPTQ and AutoAWQ are the 4-bit case.
"""

import numpy as np

from awq_ref.checks import require_between, require_dtype, require_shape
from awq_ref.dtypes import I32, U8
from awq_ref.errors import RangeError

WORD_BITS = 32
LANES = 8  # codes in one 64-bit number: the fewest that fill whole bytes at any width
BLOCK = 32  # codes that fill whole words at any width: 32 codes of b bits are b words


def words_for(n_codes: int, bits: int) -> int:
    """Return the number of 32-bit words that hold n_codes codes of these many bits."""
    return -(-n_codes * bits // WORD_BITS)


def pack_bitstream(codes: U8, *, bits: int) -> I32:
    """Return each row of codes as a bit stream.

    word[c] = sum over the stream's bits p in [32 c, 32 c + 31] of bit_p * 2**(p - 32 c)

    Parameters
    ----------
    codes : uint8 array, shape (rows, n_codes), values in [0, 2**bits - 1]
    bits : int
        1 to 8.

    Returns
    -------
    words : int32 array, shape (rows, ceil(n_codes * bits / 32))
        The words' bits; bit 31 makes a word negative.

    Raises
    ------
    ShapeError, DtypeError
        If codes is not 2-D uint8.
    RangeError
        If bits is not 1 to 8, or a code does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> hex(pack_bitstream(np.arange(8, dtype=np.uint8)[None, :], bits=4)[0, 0])
    '0x76543210'
    """
    who = "pack_bitstream"
    require_between(who, "bits", bits, 1, 8)
    require_shape(who, "codes", codes, (None, None))
    require_dtype(who, "codes", codes, np.uint8)
    if codes.size and codes.max() >= 2**bits:
        raise RangeError(f"{who}: codes must be at most {2**bits - 1}, for {bits} bits; got {codes.max()}.")
    rows, n_codes = codes.shape
    numbers_per_row = -(-n_codes // BLOCK) * BLOCK // LANES
    padded = np.zeros((rows, numbers_per_row * LANES), dtype=np.uint8)
    padded[:, :n_codes] = codes
    lanes = padded.reshape(rows, numbers_per_row, LANES)
    numbers = np.zeros((rows, numbers_per_row), dtype="<u8")
    for lane in range(LANES):
        numbers |= lanes[:, :, lane].astype(np.uint64) << np.uint64(lane * bits)
    as_bytes = numbers.view(np.uint8).reshape(rows, numbers_per_row, 8)
    stream = np.ascontiguousarray(as_bytes[:, :, :bits]).reshape(rows, numbers_per_row * bits)
    return stream.view("<i4")[:, : words_for(n_codes, bits)].astype(np.int32)  # (rows, n_words)


def unpack_bitstream(words: I32, *, bits: int, n_codes: int) -> U8:
    """Return the first n_codes codes of each row's bit stream: the inverse of `pack_bitstream`.

    Parameters
    ----------
    words : int32 array, shape (rows, ceil(n_codes * bits / 32))
    bits : int
        1 to 8.
    n_codes : int
        Codes in a row; the bits behind them are not looked at.

    Returns
    -------
    codes : uint8 array, shape (rows, n_codes), values in [0, 2**bits - 1]

    Raises
    ------
    ShapeError, DtypeError
        If words is not 2-D int32 with that many words in a row.
    RangeError
        If bits is not 1 to 8.
    """
    who = "unpack_bitstream"
    require_between(who, "bits", bits, 1, 8)
    require_dtype(who, "words", words, np.int32)
    require_shape(who, "words", words, (None, words_for(n_codes, bits)))
    rows = words.shape[0]
    numbers_per_row = -(-n_codes // BLOCK) * BLOCK // LANES
    padded = np.zeros((rows, numbers_per_row * bits // 4), dtype="<i4")
    padded[:, : words.shape[1]] = words
    as_bytes = np.zeros((rows, numbers_per_row, 8), dtype=np.uint8)
    as_bytes[:, :, :bits] = padded.view(np.uint8).reshape(rows, numbers_per_row, bits)
    numbers = as_bytes.view("<u8")[:, :, 0]  # (rows, numbers_per_row)
    codes = np.empty((rows, numbers_per_row, LANES), dtype=np.uint8)
    for lane in range(LANES):
        codes[:, :, lane] = (numbers >> np.uint64(lane * bits)) & np.uint64(2**bits - 1)
    flat = codes.reshape(rows, numbers_per_row * LANES)
    return np.ascontiguousarray(flat[:, :n_codes])
