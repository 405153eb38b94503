"""A reader of GGUF files, field by field from the format's description: no awq_ref.

read_gguf   path -> (metadata, name -> (shape, type number, bytes))
"""

import struct
from math import prod

SCALARS = {4: "<I", 5: "<i", 6: "<f", 7: "<?"}
BLOCKS = {0: (4, 1), 1: (2, 1), 2: (18, 32), 3: (20, 32), 8: (34, 32)}  # bytes and weights of a block


class Cursor:
    """Bytes, and how far they have been read."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def text(self):
        length = self.take("<Q")
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, length = self.take("<I"), self.take("<Q")
            return [self.value(inner) for _ in range(length)]
        return self.take(SCALARS[kind])


def read_gguf(path):
    """Return metadata and tensors; shapes as they are stored, the last axis first."""
    cursor = Cursor(path.read_bytes())
    assert cursor.data[:4] == b"GGUF"
    cursor.at = 4
    assert cursor.take("<I") == 3
    n_tensors, n_keys = cursor.take("<Q"), cursor.take("<Q")
    metadata = {}
    for _ in range(n_keys):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.take("<I"))
    table = []
    for _ in range(n_tensors):
        name, n_axes = cursor.text(), cursor.take("<I")
        shape = tuple(cursor.take("<Q") for _ in range(n_axes))
        table.append((name, shape, cursor.take("<I"), cursor.take("<Q")))
    start = -(-cursor.at // 32) * 32
    tensors, end = {}, start
    for name, shape, kind, offset in table:
        assert offset % 32 == 0
        size, weights = BLOCKS[kind]
        begin = start + offset
        end = begin + prod(shape) // weights * size
        tensors[name] = shape, kind, cursor.data[begin:end]
    assert len(cursor.data) == -(-end // 32) * 32
    return metadata, tensors
