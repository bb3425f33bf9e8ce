/* Virtqueues and the virtio-fs device (virtio 1.3, sections 2.7, 2.8, 5.11, 6): bits, limits and wire structs.
   Written by tools/generate_abi.py from tools/abi/virtio.toml. */
#ifndef VIRTIO_ABI_H
#define VIRTIO_ABI_H

#include <stddef.h>
#include <stdint.h>

#define VIRTIO_ID_FS 26
#define VIRTIO_FS_TAG_SIZE 36

#define VIRTIO_STATUS_ACKNOWLEDGE 1
#define VIRTIO_STATUS_DRIVER 2
#define VIRTIO_STATUS_DRIVER_OK 4
#define VIRTIO_STATUS_FEATURES_OK 8

#define VIRTIO_QUEUE_SIZE_MAX 0x8000

#define VRING_DESC_F_NEXT 1
#define VRING_DESC_F_WRITE 2
#define VRING_DESC_F_INDIRECT 4
#define VRING_AVAIL_F_NO_INTERRUPT 1
#define VRING_USED_F_NO_NOTIFY 1

#define VRING_PACKED_DESC_F_AVAIL 128
#define VRING_PACKED_DESC_F_USED 0x8000
#define VRING_PACKED_EVENT_F_ENABLE 0
#define VRING_PACKED_EVENT_F_DISABLE 1
#define VRING_PACKED_EVENT_F_DESC 2

#define VIRTIO_F_NOTIFY_ON_EMPTY 0x1000000
#define VIRTIO_F_INDIRECT_DESC 0x10000000
#define VIRTIO_F_EVENT_IDX 0x20000000
#define VIRTIO_F_VERSION_1 0x100000000ULL
#define VIRTIO_F_ACCESS_PLATFORM 0x200000000ULL
#define VIRTIO_F_RING_PACKED 0x400000000ULL
#define VIRTIO_F_IN_ORDER 0x800000000ULL
#define VIRTIO_F_ORDER_PLATFORM 0x1000000000ULL
#define VIRTIO_F_NOTIFICATION_DATA 0x4000000000ULL
#define VIRTIO_F_RING_RESET 0x10000000000ULL

#define VIRTIO_FS_F_NOTIFICATION 1

struct virtio_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};
_Static_assert(sizeof(struct virtio_desc) == 16, "virtio_desc");
_Static_assert(offsetof(struct virtio_desc, addr) == 0, "virtio_desc.addr");
_Static_assert(offsetof(struct virtio_desc, len) == 8, "virtio_desc.len");
_Static_assert(offsetof(struct virtio_desc, flags) == 12, "virtio_desc.flags");
_Static_assert(offsetof(struct virtio_desc, next) == 14, "virtio_desc.next");

struct virtio_used_elem {
    uint32_t id;
    uint32_t len;
};
_Static_assert(sizeof(struct virtio_used_elem) == 8, "virtio_used_elem");
_Static_assert(offsetof(struct virtio_used_elem, id) == 0, "virtio_used_elem.id");
_Static_assert(offsetof(struct virtio_used_elem, len) == 4, "virtio_used_elem.len");

struct virtio_packed_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t id;
    uint16_t flags;
};
_Static_assert(sizeof(struct virtio_packed_desc) == 16, "virtio_packed_desc");
_Static_assert(offsetof(struct virtio_packed_desc, addr) == 0, "virtio_packed_desc.addr");
_Static_assert(offsetof(struct virtio_packed_desc, len) == 8, "virtio_packed_desc.len");
_Static_assert(offsetof(struct virtio_packed_desc, id) == 12, "virtio_packed_desc.id");
_Static_assert(offsetof(struct virtio_packed_desc, flags) == 14, "virtio_packed_desc.flags");

struct virtio_packed_event {
    uint16_t off_wrap;
    uint16_t flags;
};
_Static_assert(sizeof(struct virtio_packed_event) == 4, "virtio_packed_event");
_Static_assert(offsetof(struct virtio_packed_event, off_wrap) == 0, "virtio_packed_event.off_wrap");
_Static_assert(offsetof(struct virtio_packed_event, flags) == 2, "virtio_packed_event.flags");

struct virtio_fs_config {
    uint8_t tag[36];
    uint32_t num_request_queues;
    uint32_t notify_buf_size;
};
_Static_assert(sizeof(struct virtio_fs_config) == 44, "virtio_fs_config");
_Static_assert(offsetof(struct virtio_fs_config, tag) == 0, "virtio_fs_config.tag");
_Static_assert(offsetof(struct virtio_fs_config, num_request_queues) == 36, "virtio_fs_config.num_request_queues");
_Static_assert(offsetof(struct virtio_fs_config, notify_buf_size) == 40, "virtio_fs_config.notify_buf_size");

#endif
