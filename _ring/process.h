/* System calls that concern the process as a whole: namespaces, mounts, capabilities, seccomp. Results are >= 0 or
   -errno. */
#ifndef VIRTIOFSD_PROCESS_H
#define VIRTIOFSD_PROCESS_H

#include "linux.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sys/mount.h>

#ifndef SYS_open_tree
#define SYS_open_tree 428
#endif
#ifndef SYS_move_mount
#define SYS_move_mount 429
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif
#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 0x00000004
#endif

static inline int sys_mount(const char *source, const char *target, const char *type, unsigned long flags,
                            const char *data) {
    return sys_result(mount(source, target, type, flags, data));
}
static inline int sys_umount(const char *target, int flags) { return sys_result(umount2(target, flags)); }
static inline int sys_pivot_root(const char *new_root, const char *put_old) {
    return sys_result(syscall(SYS_pivot_root, new_root, put_old));
}
/* A detached copy of the mount that the directory is on, from there down, with all that is mounted below. */
static inline int sys_clone_mounts(int fd) {
    return sys_result(syscall(SYS_open_tree, fd, "", OPEN_TREE_CLONE | O_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH));
}
static inline int sys_attach_mounts(int fd, const char *target) {
    return sys_result(syscall(SYS_move_mount, fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH));
}
/* No device nodes and no set-id programs on a detached copy, whatever is mounted below: Linux 5.12. */
static inline int sys_disarm_mounts(int fd) {
    struct { uint64_t set, clear, propagation, user_namespace; } attributes = {2 | 4, 0, 0, 0}; /* NOSUID, NODEV */
    return sys_result(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes));
}
static inline int sys_no_new_privileges(void) { return sys_result(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); }
static inline int sys_not_dumpable(void) { return sys_result(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)); }
static inline int sys_parent_death_signal(int number) { return sys_result(prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)); }
static inline int sys_bound_capabilities(uint64_t kept) {
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        if (!(kept >> capability & 1) && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
            return -errno;
    return 0;
}
static inline int sys_seccomp_available(uint32_t action) {
    return sys_result(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action));
}

#endif
