/* Atomics of the compiler under names that say the memory order. A full fence is seq_cst. */
#ifndef VIRTIOFSD_ATOMICS_H
#define VIRTIOFSD_ATOMICS_H

#include <stdint.h>

#define ATOMICS(bits) \
    static inline uint##bits##_t load_relaxed##bits(const uint##bits##_t *p) { \
        return __atomic_load_n(p, __ATOMIC_RELAXED); } \
    static inline uint##bits##_t load_acquire##bits(const uint##bits##_t *p) { \
        return __atomic_load_n(p, __ATOMIC_ACQUIRE); } \
    static inline void store_relaxed##bits(uint##bits##_t *p, uint##bits##_t value) { \
        __atomic_store_n(p, value, __ATOMIC_RELAXED); } \
    static inline void store_release##bits(uint##bits##_t *p, uint##bits##_t value) { \
        __atomic_store_n(p, value, __ATOMIC_RELEASE); } \
    static inline uint##bits##_t exchange##bits(uint##bits##_t *p, uint##bits##_t value) { \
        return __atomic_exchange_n(p, value, __ATOMIC_ACQ_REL); } \
    static inline uint##bits##_t fetch_add##bits(uint##bits##_t *p, uint##bits##_t value) { \
        return __atomic_fetch_add(p, value, __ATOMIC_ACQ_REL); } \
    static inline uint##bits##_t fetch_sub##bits(uint##bits##_t *p, uint##bits##_t value) { \
        return __atomic_fetch_sub(p, value, __ATOMIC_ACQ_REL); } \
    static inline int compare_exchange##bits(uint##bits##_t *p, uint##bits##_t *expected, uint##bits##_t value) { \
        return __atomic_compare_exchange_n(p, expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE); }

ATOMICS(8)
ATOMICS(16)
ATOMICS(32)
ATOMICS(64)

static inline void *load_pointer(void *const *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void store_pointer(void **p, void *value) { __atomic_store_n(p, value, __ATOMIC_RELEASE); }

static inline void fence_full(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* A hint to have the line that `p` lies in when it is read soon; never a fault. */
static inline void prefetch(const void *p) { __builtin_prefetch(p); }

/* The same of a line that is written soon: no other CPU has it any more. */
static inline void prefetch_to_write(const void *p) {
#if defined(__x86_64__)
    /* The compiler's own is for reading, unless it is told of a newer CPU; an older one takes this for nothing. */
    __asm__ volatile("prefetchw %0" ::"m"(*(const char *)p));
#else
    __builtin_prefetch(p, 1);
#endif
}

static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

static inline uint32_t leading_zeros32(uint32_t value) { return (uint32_t)__builtin_clz(value); }

/* The guest's rings are little endian, whatever the host is. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define le16(x) ((uint16_t)(x))
#define le32(x) ((uint32_t)(x))
#define le64(x) ((uint64_t)(x))
#else
#define le16(x) __builtin_bswap16(x)
#define le32(x) __builtin_bswap32(x)
#define le64(x) __builtin_bswap64(x)
#endif

#endif
