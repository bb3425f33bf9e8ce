# Virtqueues and the virtio-fs device (virtio 1.3, sections 2.7, 2.8, 5.11, 6): bits, limits and wire structs.
# Written by tools/generate_abi.py from tools/abi/virtio.toml.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "virtio_abi.h" nogil:
    enum:
        VIRTIO_ID_FS
        VIRTIO_FS_TAG_SIZE
    enum:
        VIRTIO_STATUS_ACKNOWLEDGE
        VIRTIO_STATUS_DRIVER
        VIRTIO_STATUS_DRIVER_OK
        VIRTIO_STATUS_FEATURES_OK
    enum:
        VIRTIO_QUEUE_SIZE_MAX
    enum:
        VRING_DESC_F_NEXT
        VRING_DESC_F_WRITE
        VRING_DESC_F_INDIRECT
        VRING_AVAIL_F_NO_INTERRUPT
        VRING_USED_F_NO_NOTIFY
    enum:
        VRING_PACKED_DESC_F_AVAIL
        VRING_PACKED_DESC_F_USED
        VRING_PACKED_EVENT_F_ENABLE
        VRING_PACKED_EVENT_F_DISABLE
        VRING_PACKED_EVENT_F_DESC
    enum:
        VIRTIO_F_NOTIFY_ON_EMPTY
        VIRTIO_F_INDIRECT_DESC
        VIRTIO_F_EVENT_IDX
    # wider than an enum's member
    const uint64_t VIRTIO_F_VERSION_1
    const uint64_t VIRTIO_F_ACCESS_PLATFORM
    const uint64_t VIRTIO_F_RING_PACKED
    const uint64_t VIRTIO_F_IN_ORDER
    const uint64_t VIRTIO_F_ORDER_PLATFORM
    const uint64_t VIRTIO_F_NOTIFICATION_DATA
    const uint64_t VIRTIO_F_RING_RESET
    enum:
        VIRTIO_FS_F_NOTIFICATION

    struct virtio_desc:
        uint64_t addr
        uint32_t len
        uint16_t flags
        uint16_t next

    struct virtio_used_elem:
        uint32_t id
        uint32_t len

    struct virtio_packed_desc:
        uint64_t addr
        uint32_t len
        uint16_t id
        uint16_t flags

    struct virtio_packed_event:
        uint16_t off_wrap
        uint16_t flags

    struct virtio_fs_config:
        uint8_t tag[36]
        uint32_t num_request_queues
        uint32_t notify_buf_size
