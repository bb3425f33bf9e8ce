# Settings of the control plane, put into a share before any thread uses it.

from .share cimport Share


cdef int share_configure(Share *share, object settings) except -1
cdef void share_free_settings(Share *share) noexcept
