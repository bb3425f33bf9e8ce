/* SIGBUS of guest memory that is gone: a front-end can truncate the file behind a region at any time.

   A fault inside a region puts zero pages in the place of all of it, and the region's flag is set, by which the device
   is declared broken; any other SIGBUS ends the process as it would without a handler. The table is the one piece of
   state that belongs to the process, since a signal handler does. Slots are never freed, so that the handler of one
   thread may walk the table while another changes a slot that it has no fault in. */
#ifndef VIRTIOFSD_FAULTS_H
#define VIRTIOFSD_FAULTS_H

#include "linux.h"

struct fault_slot {
    uintptr_t start;
    uintptr_t end; /* 0: free */
    uint32_t *flag;
    struct fault_slot *next;
};

static struct fault_slot *fault_slots;
static uint32_t fault_handler_installed;

static void fault_handler(int number, siginfo_t *info, void *context) {
    uintptr_t address = (uintptr_t)info->si_addr;
    (void)context;
    for (struct fault_slot *slot = __atomic_load_n(&fault_slots, __ATOMIC_ACQUIRE); slot; slot = slot->next) {
        uintptr_t end = __atomic_load_n(&slot->end, __ATOMIC_ACQUIRE);
        uintptr_t start = __atomic_load_n(&slot->start, __ATOMIC_ACQUIRE);
        if (end != __atomic_load_n(&slot->end, __ATOMIC_RELAXED))
            continue; /* it is another region's by now, so that this fault is not in it */
        if (address >= start && address < end) {
            int error = errno;
            /* Not a page of it: each would be a mapping of its own, and a process may have only so many. */
            void *zero = mmap((void *)start, end - start, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
            __atomic_store_n(slot->flag, 1, __ATOMIC_RELEASE);
            errno = error;
            if (zero != MAP_FAILED)
                return;
        }
    }
    signal(number, SIG_DFL); /* the instruction faults again, for good */
}

/* Called by one thread at a time: the control plane's. */
static int faults_install(void) {
    if (fault_handler_installed)
        return 0;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = fault_handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    int result = sys_result(sigaction(SIGBUS, &action, NULL));
    fault_handler_installed = result == 0;
    return result;
}

/* Called by one thread at a time: the control plane's. */
static struct fault_slot *faults_watch(void *start, size_t size, uint32_t *flag) {
    struct fault_slot *slot = fault_slots;
    while (slot && slot->end)
        slot = slot->next;
    if (!slot) {
        slot = calloc(1, sizeof *slot);
        if (!slot)
            return NULL;
        slot->next = fault_slots;
        __atomic_store_n(&fault_slots, slot, __ATOMIC_RELEASE);
    }
    slot->flag = flag;
    __atomic_store_n(&slot->start, (uintptr_t)start, __ATOMIC_RELEASE);
    __atomic_store_n(&slot->end, (uintptr_t)start + size, __ATOMIC_RELEASE);
    return slot;
}

static void faults_forget(struct fault_slot *slot) { __atomic_store_n(&slot->end, 0, __ATOMIC_RELEASE); }

#endif
