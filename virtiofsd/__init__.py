"""A host daemon that shares a directory with virtual machines: the back-end of a virtio-fs device."""

__version__ = "0.1.0"
