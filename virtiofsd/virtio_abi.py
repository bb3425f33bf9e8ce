"""Virtqueues and the virtio-fs device (virtio 1.3, sections 2.7, 2.8, 5.11, 6): bits, limits and wire structs.

Written by tools/generate_abi.py from tools/abi/virtio.toml.
"""

from virtiofsd.layout import Layout


VIRTIO_ID_FS = 26
VIRTIO_FS_TAG_SIZE = 36

VIRTIO_QUEUE_SIZE_MAX = 0x8000

VRING_DESC_F_NEXT = 1
VRING_DESC_F_WRITE = 2
VRING_DESC_F_INDIRECT = 4
VRING_AVAIL_F_NO_INTERRUPT = 1
VRING_USED_F_NO_NOTIFY = 1

VRING_PACKED_DESC_F_AVAIL = 128
VRING_PACKED_DESC_F_USED = 0x8000
VRING_PACKED_EVENT_F_ENABLE = 0
VRING_PACKED_EVENT_F_DISABLE = 1
VRING_PACKED_EVENT_F_DESC = 2

VIRTIO_F_NOTIFY_ON_EMPTY = 0x1000000
VIRTIO_F_INDIRECT_DESC = 0x10000000
VIRTIO_F_EVENT_IDX = 0x20000000
VIRTIO_F_VERSION_1 = 0x100000000
VIRTIO_F_ACCESS_PLATFORM = 0x200000000
VIRTIO_F_RING_PACKED = 0x400000000
VIRTIO_F_IN_ORDER = 0x800000000
VIRTIO_F_ORDER_PLATFORM = 0x1000000000
VIRTIO_F_NOTIFICATION_DATA = 0x4000000000
VIRTIO_F_RING_RESET = 0x10000000000

VIRTIO_FS_F_NOTIFICATION = 1

DESC = Layout("desc", "=QIHH", "addr len flags next")
USED_ELEM = Layout("used_elem", "=II", "id len")
PACKED_DESC = Layout("packed_desc", "=QIHH", "addr len id flags")
PACKED_EVENT = Layout("packed_event", "=HH", "off_wrap flags")
FS_CONFIG = Layout("fs_config", "=36sII", "tag num_request_queues notify_buf_size")
