# Where inodes were seen last.

from .inode_table cimport Inode, InodeTable


cdef void inode_seen_at(InodeTable *table, Inode *inode, Inode *parent, const char *name) noexcept nogil
cdef bint inode_is_at(InodeTable *table, const Inode *inode, int directory, const char *name) noexcept nogil
cdef bint inode_was_renamed(InodeTable *table, Inode *inode, Inode *parent) noexcept nogil
