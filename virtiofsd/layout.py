"""Wire structs as the generated protocol modules declare them."""

import struct
from types import SimpleNamespace
from typing import Any


class Layout:
    """A fixed-size struct: `size` in bytes, `fields` in order; packs from keywords, unpacks into attributes.

    A field that is not given is zero. Arrays are one bytes field.
    """

    __slots__ = ("_struct", "_zero", "fields", "name", "size")

    def __init__(self, name: str, codes: str, fields: str) -> None:
        self.name = name
        self._struct = struct.Struct(codes)
        self.fields = tuple(fields.split())
        self.size = self._struct.size
        self._zero = dict(zip(self.fields, self._struct.unpack(bytes(self.size)), strict=True))

    def pack(self, **values: Any) -> bytes:
        """The struct's bytes. TypeError for a field that it has not, struct.error for a value that does not fit."""
        unknown = values.keys() - self._zero.keys()
        if unknown:
            raise TypeError(f"{self.name} has no field {', '.join(sorted(unknown))}")
        return self._struct.pack(*{**self._zero, **values}.values())

    def unpack(self, data: bytes | bytearray | memoryview, offset: int = 0) -> SimpleNamespace:
        """The fields at `offset` of the data. Raises struct.error where the data is too short."""
        return SimpleNamespace(**dict(zip(self.fields, self._struct.unpack_from(data, offset), strict=True)))
