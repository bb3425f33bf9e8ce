"""The one place where a -errno becomes an exception."""

import os

from libc.stdint cimport int64_t


cdef int failed(int64_t error, str what) except -1:
    """Raises OSError for `error`, which is negative; `what` it was about stands before the kernel's words."""
    raise OSError(-error, f"{what}: {os.strerror(-error)}")


cdef int checked(int result, str what) except -1:
    """The result of a system call, where it is none of these errors."""
    return result if result >= 0 else failed(result, what)
