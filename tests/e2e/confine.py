"""Runs a command as confined as a container or a careful administrator would run it.

Usage: python3 confine.py docker COMMAND [ARGUMENT...]
       python3 confine.py nobody UID MEMLOCK_KIB COMMAND [ARGUMENT...]

`docker` puts Docker's default seccomp profile in force, as it is for a container with the capabilities that Docker gives
by default: what it does not allow is answered EPERM, io_uring among it, and clone3 ENOSYS. The profile is that of
moby/profiles at 02e898b1 (seccomp/default.json), as far as this machine's libseccomp knows its names and this architecture has them.

`nobody` becomes a user and a group of that number, without capabilities or a way to new ones, who may lock so much
memory. The command is opened before, so that it may lie where only root can go. Who is not root stays who he is.
"""

import ctypes
import os
import resource
import sys

PR_SET_NO_NEW_PRIVS = 38
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38
EQUAL, MASKED_EQUAL = 4, 7
UNKNOWN = -1

ALLOWED = """
    accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64 arm_sync_file_range bind breakpoint brk cacheflush
    cachestat capget capset chdir chmod chown chroot clock_adjtime clock_getres clock_gettime clock_nanosleep close
    close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat
    faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync
    fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait
    futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid
    getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid
    getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr getxattrat inotify_add_watch
    inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl
    ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link
    linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt
    mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv
    msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64
    process_mrelease process_vm_readv process_vm_writev pselect6 ptrace pwrite64 pwritev pwritev2 read readahead
    readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat
    renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto
    set_robust_list set_thread_area set_tid_address set_tls setfsgid setfsuid setgid setgroups setitimer setpgid
    setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr setxattrat shmat
    shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat statfs statmount statx symlink
    symlinkat sync sync_file_range sync_file_range2 syncfs sysinfo tee tgkill time timer_create timer_delete
    timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate
    umask uname unlink unlinkat uretprobe utime utimensat utimes vfork vmsplice wait4 waitid write writev
""".split()
# Allowed for some values of their first argument: address families, execution domains, no new namespace.
FAMILIES = [*range(12), *range(13, 19), 21, 22, 24, *range(26, 34), 35, 36, 39, *range(41, 46)]
DOMAINS = [0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF]
NEW_NAMESPACES = 0x7E020000


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [("argument", ctypes.c_uint), ("operator", ctypes.c_int), ("one", ctypes.c_uint64), ("two", ctypes.c_uint64)]


def must(status):
    if status < 0:
        sys.exit(f"confine.py: {os.strerror(-status)}")


def docker():
    try:
        seccomp = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        sys.exit("confine.py: libseccomp is missing: apt-get install libseccomp2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    seccomp.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
    seccomp.seccomp_load.argtypes = [ctypes.c_void_p]
    rules = seccomp.seccomp_init(EPERM)

    def rule(action, name, *comparison):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        # Below are those that only other architectures have.
        if number <= UNKNOWN:
            return
        count, compared = (1, ctypes.byref(Comparison(0, *comparison))) if comparison else (0, None)
        must(seccomp.seccomp_rule_add_array(rules, action, number, count, compared))

    for name in ALLOWED:
        rule(ALLOW, name)
    for family in FAMILIES:
        rule(ALLOW, "socket", EQUAL, family)
    for domain in DOMAINS:
        rule(ALLOW, "personality", EQUAL, domain)
    rule(ALLOW, "clone", MASKED_EQUAL, NEW_NAMESPACES, 0)
    rule(ENOSYS, "clone3")
    must(seccomp.seccomp_load(rules))


def nobody(uid, memlock_kib):
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, [memlock_kib * 1024] * 2)
    except ValueError:
        sys.exit(f"confine.py: less than {memlock_kib} KiB may be locked here: raise it (ulimit -Hl)")
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    must(ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


match sys.argv[1:]:
    case ["docker", command, *words]:
        docker()
        os.execvp(command, [command, *words])
    case ["nobody", uid, memlock_kib, command, *words]:
        opened = os.open(command, os.O_PATH | os.O_CLOEXEC)
        nobody(int(uid), int(memlock_kib))
        os.execve(opened, [command, *words], os.environ)
    case _:
        sys.exit(__doc__)
