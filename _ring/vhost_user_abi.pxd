# The vhost-user protocol as of QEMU 11.1 (docs/interop/vhost-user.rst): requests, features and payloads.
# Written by tools/generate_abi.py from tools/abi/vhost_user.toml.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "vhost_user_abi.h" nogil:
    enum:
        VHOST_USER_VERSION
        VHOST_USER_HEADER_SIZE
    enum:
        VHOST_USER_GET_FEATURES
        VHOST_USER_SET_FEATURES
        VHOST_USER_SET_OWNER
        VHOST_USER_RESET_OWNER
        VHOST_USER_SET_MEM_TABLE
        VHOST_USER_SET_LOG_BASE
        VHOST_USER_SET_LOG_FD
        VHOST_USER_SET_VRING_NUM
        VHOST_USER_SET_VRING_ADDR
        VHOST_USER_SET_VRING_BASE
        VHOST_USER_GET_VRING_BASE
        VHOST_USER_SET_VRING_KICK
        VHOST_USER_SET_VRING_CALL
        VHOST_USER_SET_VRING_ERR
        VHOST_USER_GET_PROTOCOL_FEATURES
        VHOST_USER_SET_PROTOCOL_FEATURES
        VHOST_USER_GET_QUEUE_NUM
        VHOST_USER_SET_VRING_ENABLE
        VHOST_USER_SEND_RARP
        VHOST_USER_NET_SET_MTU
        VHOST_USER_SET_BACKEND_REQ_FD
        VHOST_USER_IOTLB_MSG
        VHOST_USER_SET_VRING_ENDIAN
        VHOST_USER_GET_CONFIG
        VHOST_USER_SET_CONFIG
        VHOST_USER_CREATE_CRYPTO_SESSION
        VHOST_USER_CLOSE_CRYPTO_SESSION
        VHOST_USER_POSTCOPY_ADVISE
        VHOST_USER_POSTCOPY_LISTEN
        VHOST_USER_POSTCOPY_END
        VHOST_USER_GET_INFLIGHT_FD
        VHOST_USER_SET_INFLIGHT_FD
        VHOST_USER_GPU_SET_SOCKET
        VHOST_USER_RESET_DEVICE
        VHOST_USER_VRING_KICK
        VHOST_USER_GET_MAX_MEM_SLOTS
        VHOST_USER_ADD_MEM_REG
        VHOST_USER_REM_MEM_REG
        VHOST_USER_SET_STATUS
        VHOST_USER_GET_STATUS
        VHOST_USER_GET_SHARED_OBJECT
        VHOST_USER_SET_DEVICE_STATE_FD
        VHOST_USER_CHECK_DEVICE_STATE
        VHOST_USER_GET_SHMEM_CONFIG
        VHOST_USER_GET_VRING_BASE_SKIP_DRAIN
    enum:
        VHOST_USER_BACKEND_IOTLB_MSG
        VHOST_USER_BACKEND_CONFIG_CHANGE_MSG
        VHOST_USER_BACKEND_VRING_HOST_NOTIFIER_MSG
        VHOST_USER_BACKEND_VRING_CALL
        VHOST_USER_BACKEND_VRING_ERR
        VHOST_USER_BACKEND_SHARED_OBJECT_ADD
        VHOST_USER_BACKEND_SHARED_OBJECT_REMOVE
        VHOST_USER_BACKEND_SHARED_OBJECT_LOOKUP
        VHOST_USER_BACKEND_SHMEM_MAP
        VHOST_USER_BACKEND_SHMEM_UNMAP
    enum:
        VHOST_USER_VRING_INDEX_MASK
        VHOST_USER_VRING_NOFD_MASK
        VHOST_USER_VRING_ADDR_F_LOG
    enum:
        VHOST_USER_DEVICE_STATE_SAVE
        VHOST_USER_DEVICE_STATE_LOAD
        VHOST_USER_DEVICE_STATE_PHASE_STOPPED
        VHOST_USER_DEVICE_STATE_NOFD
    enum:
        VHOST_USER_SHMEM_MAX_REGIONS
        VHOST_USER_SHMEM_F_MAP_RW
    enum:
        FLAG_VERSION_MASK
        FLAG_REPLY
        FLAG_NEED_REPLY
    enum:
        VHOST_USER_PROTOCOL_F_MQ
        VHOST_USER_PROTOCOL_F_LOG_SHMFD
        VHOST_USER_PROTOCOL_F_RARP
        VHOST_USER_PROTOCOL_F_REPLY_ACK
        VHOST_USER_PROTOCOL_F_NET_MTU
        VHOST_USER_PROTOCOL_F_BACKEND_REQ
        VHOST_USER_PROTOCOL_F_CROSS_ENDIAN
        VHOST_USER_PROTOCOL_F_CRYPTO_SESSION
        VHOST_USER_PROTOCOL_F_PAGEFAULT
        VHOST_USER_PROTOCOL_F_CONFIG
        VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD
        VHOST_USER_PROTOCOL_F_HOST_NOTIFIER
        VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD
        VHOST_USER_PROTOCOL_F_RESET_DEVICE
        VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS
        VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS
        VHOST_USER_PROTOCOL_F_STATUS
        VHOST_USER_PROTOCOL_F_XEN_MMAP
        VHOST_USER_PROTOCOL_F_SHARED_OBJECT
        VHOST_USER_PROTOCOL_F_DEVICE_STATE
        VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT
        VHOST_USER_PROTOCOL_F_GPA_ADDRESSES
        VHOST_USER_PROTOCOL_F_SHMEM
    enum:
        VHOST_USER_F_PROTOCOL_FEATURES
    enum:
        VHOST_F_LOG_ALL

    struct vhost_user_header:
        uint32_t request
        uint32_t flags
        uint32_t size

    struct vhost_user_vring_state:
        uint32_t index
        uint32_t num

    struct vhost_user_vring_addr:
        uint32_t index
        uint32_t flags
        uint64_t desc
        uint64_t used
        uint64_t avail
        uint64_t log

    struct vhost_user_memory_region:
        uint64_t guest_addr
        uint64_t size
        uint64_t user_addr
        uint64_t mmap_offset

    struct vhost_user_memory_header:
        uint32_t count
        uint32_t padding

    struct vhost_user_config_header:
        uint32_t offset
        uint32_t size
        uint32_t flags

    struct vhost_user_log:
        uint64_t size
        uint64_t offset

    struct vhost_user_single_region:
        uint64_t padding
        vhost_user_memory_region region

    struct vhost_user_iotlb:
        uint64_t iova
        uint64_t size
        uint64_t user_addr
        uint8_t perm
        uint8_t type
        uint8_t padding[6]

    struct vhost_user_vring_area:
        uint64_t index
        uint64_t size
        uint64_t offset

    struct vhost_user_inflight:
        uint64_t mmap_size
        uint64_t mmap_offset
        uint16_t num_queues
        uint16_t queue_size
        uint32_t padding

    struct vhost_user_device_state:
        uint32_t direction
        uint32_t phase

    struct vhost_user_mmap:
        uint8_t shmid
        uint8_t padding[7]
        uint64_t fd_offset
        uint64_t shm_offset
        uint64_t len
        uint64_t flags

    struct vhost_user_shmem_config:
        uint32_t count
        uint32_t padding
        uint64_t sizes[256]
