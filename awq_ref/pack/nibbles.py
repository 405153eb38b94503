"""4-bit codes, eight to an int32 word, in the order that a format prescribes.

    pack_nibbles     codes (rows, n) -> words (rows, n / 8)
    unpack_nibbles   the exact inverse

An order is eight positions: nibble j (bits 4 j to 4 j + 3) of a word holds the code at position order[j] of
the word's eight codes.
Sources: AutoAWQ's gemm packing for AWQ_ORDER.
"""

import numpy as np

from awq_ref.checks import require_dtype, require_shape
from awq_ref.dtypes import I32, U8
from awq_ref.errors import RangeError, ShapeError
from awq_ref.pack.bitstream import pack_bitstream, unpack_bitstream

PER_WORD = 8

SEQUENTIAL_ORDER = (0, 1, 2, 3, 4, 5, 6, 7)
# Even positions fill the low half of a word, odd ones the high half: one mask then gives a GPU two
# neighbouring codes in the two halves of a register.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def _check_order(who: str, order: tuple[int, ...]) -> None:
    if sorted(order) != list(range(PER_WORD)):
        raise RangeError(f"{who}: order must hold each of 0 to 7 once; got {order}.")


def pack_nibbles(codes: U8, *, order: tuple[int, ...] = SEQUENTIAL_ORDER) -> I32:
    """Return each row of codes, eight to a word.

    word[c] = sum_j codes[8 c + order[j]] * 16**j

    Parameters
    ----------
    codes : uint8 array, shape (rows, n_codes), values 0 to 15, n_codes a multiple of 8
    order : tuple of int
        Nibble j holds the code at position order[j].

    Returns
    -------
    words : int32 array, shape (rows, n_codes / 8)

    Raises
    ------
    ShapeError, DtypeError
        If codes is not 2-D uint8, or n_codes is no multiple of 8.
    RangeError
        If order is no permutation of 0 to 7, or a code exceeds 15.

    Examples
    --------
    >>> import numpy as np
    >>> hex(pack_nibbles(np.arange(8, dtype=np.uint8)[None, :], order=AWQ_ORDER)[0, 0])
    '0x75316420'
    """
    who = "pack_nibbles"
    _check_order(who, order)
    require_shape(who, "codes", codes, (None, None))
    require_dtype(who, "codes", codes, np.uint8)
    if codes.shape[1] % PER_WORD:
        raise ShapeError(
            f"{who}: the number of codes in a row must be a multiple of 8; got {codes.shape[1]}."
        )
    eights = codes.reshape(codes.shape[0], codes.shape[1] // PER_WORD, PER_WORD)
    in_order = eights[:, :, list(order)].reshape(codes.shape)
    return pack_bitstream(in_order, bits=4)


def unpack_nibbles(words: I32, *, order: tuple[int, ...] = SEQUENTIAL_ORDER) -> U8:
    """Return the eight codes of every word: the inverse of `pack_nibbles`.

    Parameters
    ----------
    words : int32 array, shape (rows, n_words)
    order : tuple of int
        Nibble j holds the code at position order[j].

    Returns
    -------
    codes : uint8 array, shape (rows, 8 * n_words), values 0 to 15

    Raises
    ------
    ShapeError, DtypeError
        If words is not 2-D int32.
    RangeError
        If order is no permutation of 0 to 7.
    """
    who = "unpack_nibbles"
    _check_order(who, order)
    require_shape(who, "words", words, (None, None))
    rows, n_words = words.shape
    in_order = unpack_bitstream(words, bits=4, n_codes=n_words * PER_WORD)
    codes = np.empty((rows, n_words, PER_WORD), dtype=np.uint8)
    codes[:, :, list(order)] = in_order.reshape(rows, n_words, PER_WORD)
    return codes.reshape(rows, n_words * PER_WORD)
