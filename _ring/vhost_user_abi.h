/* The vhost-user protocol as of QEMU 11.1 (docs/interop/vhost-user.rst): requests, features and payloads.
   Written by tools/generate_abi.py from tools/abi/vhost_user.toml. */
#ifndef VHOST_USER_ABI_H
#define VHOST_USER_ABI_H

#include <stddef.h>
#include <stdint.h>

#define VHOST_USER_VERSION 1
#define VHOST_USER_HEADER_SIZE 12

#define VHOST_USER_GET_FEATURES 1
#define VHOST_USER_SET_FEATURES 2
#define VHOST_USER_SET_OWNER 3
#define VHOST_USER_RESET_OWNER 4
#define VHOST_USER_SET_MEM_TABLE 5
#define VHOST_USER_SET_LOG_BASE 6
#define VHOST_USER_SET_LOG_FD 7
#define VHOST_USER_SET_VRING_NUM 8
#define VHOST_USER_SET_VRING_ADDR 9
#define VHOST_USER_SET_VRING_BASE 10
#define VHOST_USER_GET_VRING_BASE 11
#define VHOST_USER_SET_VRING_KICK 12
#define VHOST_USER_SET_VRING_CALL 13
#define VHOST_USER_SET_VRING_ERR 14
#define VHOST_USER_GET_PROTOCOL_FEATURES 15
#define VHOST_USER_SET_PROTOCOL_FEATURES 16
#define VHOST_USER_GET_QUEUE_NUM 17
#define VHOST_USER_SET_VRING_ENABLE 18
#define VHOST_USER_SEND_RARP 19
#define VHOST_USER_NET_SET_MTU 20
#define VHOST_USER_SET_BACKEND_REQ_FD 21
#define VHOST_USER_IOTLB_MSG 22
#define VHOST_USER_SET_VRING_ENDIAN 23
#define VHOST_USER_GET_CONFIG 24
#define VHOST_USER_SET_CONFIG 25
#define VHOST_USER_CREATE_CRYPTO_SESSION 26
#define VHOST_USER_CLOSE_CRYPTO_SESSION 27
#define VHOST_USER_POSTCOPY_ADVISE 28
#define VHOST_USER_POSTCOPY_LISTEN 29
#define VHOST_USER_POSTCOPY_END 30
#define VHOST_USER_GET_INFLIGHT_FD 31
#define VHOST_USER_SET_INFLIGHT_FD 32
#define VHOST_USER_GPU_SET_SOCKET 33
#define VHOST_USER_RESET_DEVICE 34
#define VHOST_USER_VRING_KICK 35
#define VHOST_USER_GET_MAX_MEM_SLOTS 36
#define VHOST_USER_ADD_MEM_REG 37
#define VHOST_USER_REM_MEM_REG 38
#define VHOST_USER_SET_STATUS 39
#define VHOST_USER_GET_STATUS 40
#define VHOST_USER_GET_SHARED_OBJECT 41
#define VHOST_USER_SET_DEVICE_STATE_FD 42
#define VHOST_USER_CHECK_DEVICE_STATE 43
#define VHOST_USER_GET_SHMEM_CONFIG 44
#define VHOST_USER_GET_VRING_BASE_SKIP_DRAIN 45

#define VHOST_USER_BACKEND_IOTLB_MSG 1
#define VHOST_USER_BACKEND_CONFIG_CHANGE_MSG 2
#define VHOST_USER_BACKEND_VRING_HOST_NOTIFIER_MSG 3
#define VHOST_USER_BACKEND_VRING_CALL 4
#define VHOST_USER_BACKEND_VRING_ERR 5
#define VHOST_USER_BACKEND_SHARED_OBJECT_ADD 6
#define VHOST_USER_BACKEND_SHARED_OBJECT_REMOVE 7
#define VHOST_USER_BACKEND_SHARED_OBJECT_LOOKUP 8
#define VHOST_USER_BACKEND_SHMEM_MAP 9
#define VHOST_USER_BACKEND_SHMEM_UNMAP 10

#define VHOST_USER_VRING_INDEX_MASK 255
#define VHOST_USER_VRING_NOFD_MASK 0x100
#define VHOST_USER_VRING_ADDR_F_LOG 1

#define VHOST_USER_DEVICE_STATE_SAVE 0
#define VHOST_USER_DEVICE_STATE_LOAD 1
#define VHOST_USER_DEVICE_STATE_PHASE_STOPPED 0
#define VHOST_USER_DEVICE_STATE_NOFD 0x100

#define VHOST_USER_SHMEM_MAX_REGIONS 0x100
#define VHOST_USER_SHMEM_F_MAP_RW 1

#define FLAG_VERSION_MASK 3
#define FLAG_REPLY 4
#define FLAG_NEED_REPLY 8

#define VHOST_USER_PROTOCOL_F_MQ 1
#define VHOST_USER_PROTOCOL_F_LOG_SHMFD 2
#define VHOST_USER_PROTOCOL_F_RARP 4
#define VHOST_USER_PROTOCOL_F_REPLY_ACK 8
#define VHOST_USER_PROTOCOL_F_NET_MTU 16
#define VHOST_USER_PROTOCOL_F_BACKEND_REQ 32
#define VHOST_USER_PROTOCOL_F_CROSS_ENDIAN 64
#define VHOST_USER_PROTOCOL_F_CRYPTO_SESSION 128
#define VHOST_USER_PROTOCOL_F_PAGEFAULT 0x100
#define VHOST_USER_PROTOCOL_F_CONFIG 0x200
#define VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD 0x400
#define VHOST_USER_PROTOCOL_F_HOST_NOTIFIER 0x800
#define VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD 0x1000
#define VHOST_USER_PROTOCOL_F_RESET_DEVICE 0x2000
#define VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS 0x4000
#define VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS 0x8000
#define VHOST_USER_PROTOCOL_F_STATUS 0x10000
#define VHOST_USER_PROTOCOL_F_XEN_MMAP 0x20000
#define VHOST_USER_PROTOCOL_F_SHARED_OBJECT 0x40000
#define VHOST_USER_PROTOCOL_F_DEVICE_STATE 0x80000
#define VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT 0x100000
#define VHOST_USER_PROTOCOL_F_GPA_ADDRESSES 0x200000
#define VHOST_USER_PROTOCOL_F_SHMEM 0x400000

#define VHOST_USER_F_PROTOCOL_FEATURES 0x40000000

#define VHOST_F_LOG_ALL 0x4000000

struct vhost_user_header {
    uint32_t request;
    uint32_t flags;
    uint32_t size;
};
_Static_assert(sizeof(struct vhost_user_header) == 12, "vhost_user_header");
_Static_assert(offsetof(struct vhost_user_header, request) == 0, "vhost_user_header.request");
_Static_assert(offsetof(struct vhost_user_header, flags) == 4, "vhost_user_header.flags");
_Static_assert(offsetof(struct vhost_user_header, size) == 8, "vhost_user_header.size");

struct vhost_user_vring_state {
    uint32_t index;
    uint32_t num;
};
_Static_assert(sizeof(struct vhost_user_vring_state) == 8, "vhost_user_vring_state");
_Static_assert(offsetof(struct vhost_user_vring_state, index) == 0, "vhost_user_vring_state.index");
_Static_assert(offsetof(struct vhost_user_vring_state, num) == 4, "vhost_user_vring_state.num");

struct vhost_user_vring_addr {
    uint32_t index;
    uint32_t flags;
    uint64_t desc;
    uint64_t used;
    uint64_t avail;
    uint64_t log;
};
_Static_assert(sizeof(struct vhost_user_vring_addr) == 40, "vhost_user_vring_addr");
_Static_assert(offsetof(struct vhost_user_vring_addr, index) == 0, "vhost_user_vring_addr.index");
_Static_assert(offsetof(struct vhost_user_vring_addr, flags) == 4, "vhost_user_vring_addr.flags");
_Static_assert(offsetof(struct vhost_user_vring_addr, desc) == 8, "vhost_user_vring_addr.desc");
_Static_assert(offsetof(struct vhost_user_vring_addr, used) == 16, "vhost_user_vring_addr.used");
_Static_assert(offsetof(struct vhost_user_vring_addr, avail) == 24, "vhost_user_vring_addr.avail");
_Static_assert(offsetof(struct vhost_user_vring_addr, log) == 32, "vhost_user_vring_addr.log");

struct vhost_user_memory_region {
    uint64_t guest_addr;
    uint64_t size;
    uint64_t user_addr;
    uint64_t mmap_offset;
};
_Static_assert(sizeof(struct vhost_user_memory_region) == 32, "vhost_user_memory_region");
_Static_assert(offsetof(struct vhost_user_memory_region, guest_addr) == 0, "vhost_user_memory_region.guest_addr");
_Static_assert(offsetof(struct vhost_user_memory_region, size) == 8, "vhost_user_memory_region.size");
_Static_assert(offsetof(struct vhost_user_memory_region, user_addr) == 16, "vhost_user_memory_region.user_addr");
_Static_assert(offsetof(struct vhost_user_memory_region, mmap_offset) == 24, "vhost_user_memory_region.mmap_offset");

struct vhost_user_memory_header {
    uint32_t count;
    uint32_t padding;
};
_Static_assert(sizeof(struct vhost_user_memory_header) == 8, "vhost_user_memory_header");
_Static_assert(offsetof(struct vhost_user_memory_header, count) == 0, "vhost_user_memory_header.count");
_Static_assert(offsetof(struct vhost_user_memory_header, padding) == 4, "vhost_user_memory_header.padding");

struct vhost_user_config_header {
    uint32_t offset;
    uint32_t size;
    uint32_t flags;
};
_Static_assert(sizeof(struct vhost_user_config_header) == 12, "vhost_user_config_header");
_Static_assert(offsetof(struct vhost_user_config_header, offset) == 0, "vhost_user_config_header.offset");
_Static_assert(offsetof(struct vhost_user_config_header, size) == 4, "vhost_user_config_header.size");
_Static_assert(offsetof(struct vhost_user_config_header, flags) == 8, "vhost_user_config_header.flags");

struct vhost_user_log {
    uint64_t size;
    uint64_t offset;
};
_Static_assert(sizeof(struct vhost_user_log) == 16, "vhost_user_log");
_Static_assert(offsetof(struct vhost_user_log, size) == 0, "vhost_user_log.size");
_Static_assert(offsetof(struct vhost_user_log, offset) == 8, "vhost_user_log.offset");

struct vhost_user_single_region {
    uint64_t padding;
    struct vhost_user_memory_region region;
};
_Static_assert(sizeof(struct vhost_user_single_region) == 40, "vhost_user_single_region");
_Static_assert(offsetof(struct vhost_user_single_region, padding) == 0, "vhost_user_single_region.padding");
_Static_assert(offsetof(struct vhost_user_single_region, region) == 8, "vhost_user_single_region.region");

struct vhost_user_iotlb {
    uint64_t iova;
    uint64_t size;
    uint64_t user_addr;
    uint8_t perm;
    uint8_t type;
    uint8_t padding[6];
};
_Static_assert(sizeof(struct vhost_user_iotlb) == 32, "vhost_user_iotlb");
_Static_assert(offsetof(struct vhost_user_iotlb, iova) == 0, "vhost_user_iotlb.iova");
_Static_assert(offsetof(struct vhost_user_iotlb, size) == 8, "vhost_user_iotlb.size");
_Static_assert(offsetof(struct vhost_user_iotlb, user_addr) == 16, "vhost_user_iotlb.user_addr");
_Static_assert(offsetof(struct vhost_user_iotlb, perm) == 24, "vhost_user_iotlb.perm");
_Static_assert(offsetof(struct vhost_user_iotlb, type) == 25, "vhost_user_iotlb.type");
_Static_assert(offsetof(struct vhost_user_iotlb, padding) == 26, "vhost_user_iotlb.padding");

struct vhost_user_vring_area {
    uint64_t index;
    uint64_t size;
    uint64_t offset;
};
_Static_assert(sizeof(struct vhost_user_vring_area) == 24, "vhost_user_vring_area");
_Static_assert(offsetof(struct vhost_user_vring_area, index) == 0, "vhost_user_vring_area.index");
_Static_assert(offsetof(struct vhost_user_vring_area, size) == 8, "vhost_user_vring_area.size");
_Static_assert(offsetof(struct vhost_user_vring_area, offset) == 16, "vhost_user_vring_area.offset");

struct vhost_user_inflight {
    uint64_t mmap_size;
    uint64_t mmap_offset;
    uint16_t num_queues;
    uint16_t queue_size;
    uint32_t padding;
};
_Static_assert(sizeof(struct vhost_user_inflight) == 24, "vhost_user_inflight");
_Static_assert(offsetof(struct vhost_user_inflight, mmap_size) == 0, "vhost_user_inflight.mmap_size");
_Static_assert(offsetof(struct vhost_user_inflight, mmap_offset) == 8, "vhost_user_inflight.mmap_offset");
_Static_assert(offsetof(struct vhost_user_inflight, num_queues) == 16, "vhost_user_inflight.num_queues");
_Static_assert(offsetof(struct vhost_user_inflight, queue_size) == 18, "vhost_user_inflight.queue_size");
_Static_assert(offsetof(struct vhost_user_inflight, padding) == 20, "vhost_user_inflight.padding");

struct vhost_user_device_state {
    uint32_t direction;
    uint32_t phase;
};
_Static_assert(sizeof(struct vhost_user_device_state) == 8, "vhost_user_device_state");
_Static_assert(offsetof(struct vhost_user_device_state, direction) == 0, "vhost_user_device_state.direction");
_Static_assert(offsetof(struct vhost_user_device_state, phase) == 4, "vhost_user_device_state.phase");

struct vhost_user_mmap {
    uint8_t shmid;
    uint8_t padding[7];
    uint64_t fd_offset;
    uint64_t shm_offset;
    uint64_t len;
    uint64_t flags;
};
_Static_assert(sizeof(struct vhost_user_mmap) == 40, "vhost_user_mmap");
_Static_assert(offsetof(struct vhost_user_mmap, shmid) == 0, "vhost_user_mmap.shmid");
_Static_assert(offsetof(struct vhost_user_mmap, padding) == 1, "vhost_user_mmap.padding");
_Static_assert(offsetof(struct vhost_user_mmap, fd_offset) == 8, "vhost_user_mmap.fd_offset");
_Static_assert(offsetof(struct vhost_user_mmap, shm_offset) == 16, "vhost_user_mmap.shm_offset");
_Static_assert(offsetof(struct vhost_user_mmap, len) == 24, "vhost_user_mmap.len");
_Static_assert(offsetof(struct vhost_user_mmap, flags) == 32, "vhost_user_mmap.flags");

struct vhost_user_shmem_config {
    uint32_t count;
    uint32_t padding;
    uint64_t sizes[256];
};
_Static_assert(sizeof(struct vhost_user_shmem_config) == 2056, "vhost_user_shmem_config");
_Static_assert(offsetof(struct vhost_user_shmem_config, count) == 0, "vhost_user_shmem_config.count");
_Static_assert(offsetof(struct vhost_user_shmem_config, padding) == 4, "vhost_user_shmem_config.padding");
_Static_assert(offsetof(struct vhost_user_shmem_config, sizes) == 8, "vhost_user_shmem_config.sizes");

#endif
