"""The blocks that may follow the arguments of a creation (linux/fuse.h: FUSE_CREATE_SUPP_GROUP, FUSE_SECURITY_CTX).

Blocks begin at any alignment: {size of the whole block, type}, where a type of 32 is groups and a smaller one is a
number of security contexts.
"""

from libc.stdint cimport uint8_t, uint32_t

from .fuse_abi cimport FUSE_EXT_GROUPS, FUSE_MAX_NR_SECCTX, fuse_ext_header, fuse_secctx
from .linux cimport EINVAL, memchr, memcpy
from .request cimport Request

cdef enum:
    HEADER = sizeof(fuse_ext_header)
    SECCTX = sizeof(fuse_secctx)


cdef int next_block(const Request *request, uint32_t *at, fuse_ext_header *block) noexcept nogil:
    """Steps over one block, whose header is copied. 1: there is one, and it ends at `at`; 0: the end; -EINVAL."""
    cdef uint32_t end = request.args_size + <uint32_t> request.header.total_extlen * 8
    if at[0] == end:
        return 0
    if end - at[0] < HEADER:
        return -EINVAL
    memcpy(block, request.args + at[0], HEADER)
    if block.size < HEADER or block.size > end - at[0]:
        return -EINVAL
    if block.type > FUSE_MAX_NR_SECCTX and block.type != FUSE_EXT_GROUPS:
        return -EINVAL
    at[0] += block.size
    return 1


cdef int groups_of(const Request *request, uint32_t *groups) noexcept nogil:
    """The supplementary groups, into GROUPS_MAX words. How many, or -EINVAL for blocks that make no sense."""
    cdef fuse_ext_header block
    cdef uint32_t at = request.args_size
    cdef uint32_t count = 0
    cdef const uint8_t *body
    cdef int more = next_block(request, &at, &block)
    while more > 0:
        if block.type == FUSE_EXT_GROUPS:
            body = request.args + at - block.size + HEADER
            if block.size < HEADER + 4:
                return -EINVAL
            memcpy(&count, body, 4)
            if count > GROUPS_MAX or count > (block.size - HEADER - 4) / 4:
                return -EINVAL
            memcpy(groups, body + 4, count * 4)
        more = next_block(request, &at, &block)
    return more if more < 0 else <int> count


cdef int contexts_of(const Request *request, SecurityContext *contexts, uint32_t most) noexcept nogil:
    """The security contexts; those beyond `most` are left out. How many, or -EINVAL."""
    cdef fuse_ext_header block
    cdef fuse_secctx record
    cdef uint32_t at = request.args_size
    cdef uint32_t found = 0
    cdef const uint8_t *body
    cdef const uint8_t *end
    cdef const uint8_t *name_end
    cdef int more = next_block(request, &at, &block)
    while more > 0:
        body = request.args + at - block.size + HEADER
        end = request.args + at
        for _ in range(block.type if block.type != FUSE_EXT_GROUPS else 0):
            if end - body < SECCTX:
                return -EINVAL
            memcpy(&record, body, SECCTX)
            body += SECCTX
            name_end = <const uint8_t *> memchr(body, 0, end - body)
            if name_end == NULL or <uint32_t> (end - name_end - 1) < record.size:
                return -EINVAL
            if found < most:
                contexts[found].name = <const char *> body
                contexts[found].label = name_end + 1
                contexts[found].size = record.size
                found += 1
            # Each record is padded to 8 bytes from its own start.
            body += (name_end + 1 - body + record.size + 7) & ~<size_t> 7
            if body > end:
                body = end
        more = next_block(request, &at, &block)
    return more if more < 0 else <int> found
