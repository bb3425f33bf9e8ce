"""The data plane: guest memory, virtqueues, FUSE and the pass-through file system, without the GIL."""
