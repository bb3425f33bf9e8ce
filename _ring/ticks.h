/* A clock for measuring microseconds: the processor's own counter, read without a system call and without a page of the
   kernel's. It serves heuristics alone: where it is wrong, polling and batching are worse, and nothing else. */
#ifndef VIRTIOFSD_TICKS_H
#define VIRTIOFSD_TICKS_H

#include <stdint.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

static inline uint64_t ticks_now(void) {
#if defined(__x86_64__)
    return __rdtsc();
#elif defined(__aarch64__)
    uint64_t value;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
    return value;
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
#endif
}

/* How many of them a microsecond has, measured over 200 of those. */
static inline uint64_t ticks_per_us(void) {
    struct timespec start, now;
    int64_t passed;
    clock_gettime(CLOCK_MONOTONIC, &start);
    uint64_t begin = ticks_now();
    do {
        clock_gettime(CLOCK_MONOTONIC, &now);
        passed = (now.tv_sec - start.tv_sec) * 1000000000 + now.tv_nsec - start.tv_nsec;
    } while (passed < 200000);
    uint64_t per_us = (ticks_now() - begin) * 1000 / (uint64_t)passed;
    return per_us ? per_us : 1;
}

#endif
