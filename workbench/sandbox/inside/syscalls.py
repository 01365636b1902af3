"""The system calls that a job may make, and their numbers on the two processors we know.

Everything that is not named here fails with EPERM. A name that an architecture does not have (aarch64 never
had `open`) is simply absent from its table. Numbers: the kernel's asm/unistd_64.h and asm-generic/unistd.h.
"""

# fmt: off
ALLOWED: tuple[str, ...] = (
    # reading and writing what is already open
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2",
    "lseek", "close", "dup", "dup2", "dup3", "pipe", "pipe2", "sendfile", "copy_file_range", "ftruncate",
    "fallocate", "fsync", "fdatasync", "flock", "fadvise64", "close_range",
    # waiting
    "select", "pselect6", "poll", "ppoll", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait",
    "epoll_pwait", "eventfd2", "nanosleep", "clock_nanosleep", "pause",
    # files and folders, where Landlock allows the path
    "open", "openat", "creat", "stat", "fstat", "lstat", "newfstatat", "statx", "access", "faccessat",
    "faccessat2", "readlink", "readlinkat", "getdents64", "getcwd", "chdir", "fchdir", "mkdir", "mkdirat",
    "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "statfs", "fstatfs", "umask",
    # memory, under RLIMIT_AS
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise",
    # threads of this process
    "futex", "set_robust_list", "rseq", "gettid", "sched_yield", "sched_getaffinity",
    "sched_getparam", "sched_getscheduler", "sched_get_priority_max", "sched_get_priority_min",
    "membarrier", "getcpu", "exit", "exit_group", "restart_syscall", "set_tid_address",
    # its own signals and timers
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigsuspend", "rt_sigtimedwait",
    "sigaltstack", "alarm", "setitimer", "getitimer",
    # looking at itself and at the clock
    "getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups",
    "getpgid", "getpgrp", "getsid", "getrlimit", "getrusage", "times", "uname", "sysinfo", "getpriority",
    "clock_gettime", "clock_getres", "gettimeofday", "time", "getrandom", "wait4", "waitid",
    # a connected pair of its own (asyncio wakes itself through one)
    "sendto", "recvfrom", "shutdown", "getsockname", "getpeername", "getsockopt",
)
"""Allowed whatever the arguments are."""

X86_64: dict[str, int] = {
    "read": 0, "write": 1, "readv": 19, "writev": 20, "pread64": 17, "pwrite64": 18, "preadv": 295,
    "pwritev": 296, "preadv2": 327, "pwritev2": 328, "lseek": 8, "close": 3, "dup": 32, "dup2": 33,
    "dup3": 292, "pipe": 22, "pipe2": 293, "sendfile": 40, "copy_file_range": 326, "ftruncate": 77,
    "fallocate": 285, "fsync": 74, "fdatasync": 75, "flock": 73, "fadvise64": 221, "close_range": 436,
    "select": 23, "pselect6": 270, "poll": 7, "ppoll": 271, "epoll_create": 213, "epoll_create1": 291,
    "epoll_ctl": 233, "epoll_wait": 232, "epoll_pwait": 281, "eventfd2": 290, "nanosleep": 35,
    "clock_nanosleep": 230, "pause": 34, "open": 2, "openat": 257, "creat": 85, "stat": 4, "fstat": 5,
    "lstat": 6, "newfstatat": 262, "statx": 332, "access": 21, "faccessat": 269, "faccessat2": 439,
    "readlink": 89, "readlinkat": 267, "getdents64": 217, "getcwd": 79, "chdir": 80, "fchdir": 81,
    "mkdir": 83, "mkdirat": 258, "rmdir": 84, "unlink": 87, "unlinkat": 263, "rename": 82, "renameat": 264,
    "renameat2": 316, "statfs": 137, "fstatfs": 138, "umask": 95, "brk": 12, "mmap": 9, "munmap": 11,
    "mremap": 25, "mprotect": 10, "madvise": 28, "futex": 202, "set_robust_list": 273,
    "rseq": 334, "gettid": 186, "sched_yield": 24, "sched_getaffinity": 204,
    "sched_getparam": 143, "sched_getscheduler": 145, "sched_get_priority_max": 146,
    "sched_get_priority_min": 147, "membarrier": 324, "getcpu": 309, "exit": 60, "exit_group": 231,
    "restart_syscall": 219, "set_tid_address": 218, "rt_sigaction": 13, "rt_sigprocmask": 14,
    "rt_sigreturn": 15, "rt_sigpending": 127, "rt_sigsuspend": 130, "rt_sigtimedwait": 128,
    "sigaltstack": 131, "alarm": 37, "setitimer": 38, "getitimer": 36, "getpid": 39, "getppid": 110,
    "getuid": 102, "geteuid": 107, "getgid": 104, "getegid": 108, "getresuid": 118, "getresgid": 120,
    "getgroups": 115, "getpgid": 121, "getpgrp": 111, "getsid": 124, "getrlimit": 97, "getrusage": 98,
    "times": 100, "uname": 63, "sysinfo": 99, "getpriority": 140, "clock_gettime": 228, "clock_getres": 229,
    "gettimeofday": 96, "time": 201, "getrandom": 318, "wait4": 61, "waitid": 247, "sendto": 44,
    "recvfrom": 45, "shutdown": 48, "getsockname": 51, "getpeername": 52, "getsockopt": 55, "clone": 56,
    "kill": 62, "tgkill": 234, "ioctl": 16, "fcntl": 72, "prlimit64": 302, "socketpair": 53, "clone3": 435,
}

AARCH64: dict[str, int] = {
    "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67, "pwrite64": 68, "preadv": 69,
    "pwritev": 70, "preadv2": 286, "pwritev2": 287, "lseek": 62, "close": 57, "dup": 23, "dup3": 24,
    "pipe2": 59, "sendfile": 71, "copy_file_range": 285, "ftruncate": 46, "fallocate": 47, "fsync": 82,
    "fdatasync": 83, "flock": 32, "fadvise64": 223, "close_range": 436, "pselect6": 72, "ppoll": 73,
    "epoll_create1": 20, "epoll_ctl": 21, "epoll_pwait": 22, "eventfd2": 19, "nanosleep": 101,
    "clock_nanosleep": 115, "openat": 56, "fstat": 80, "newfstatat": 79, "statx": 291, "faccessat": 48,
    "faccessat2": 439, "readlinkat": 78, "getdents64": 61, "getcwd": 17, "chdir": 49, "fchdir": 50,
    "mkdirat": 34, "unlinkat": 35, "renameat": 38, "renameat2": 276, "statfs": 43, "fstatfs": 44,
    "umask": 166, "brk": 214, "mmap": 222, "munmap": 215, "mremap": 216, "mprotect": 226, "madvise": 233,
    "futex": 98, "set_robust_list": 99, "rseq": 293, "gettid": 178,
    "sched_yield": 124, "sched_getaffinity": 123, "sched_getparam": 121, "sched_getscheduler": 120,
    "sched_get_priority_max": 125, "sched_get_priority_min": 126, "membarrier": 283, "getcpu": 168,
    "exit": 93, "exit_group": 94, "restart_syscall": 128, "set_tid_address": 96, "rt_sigaction": 134,
    "rt_sigprocmask": 135, "rt_sigreturn": 139, "rt_sigpending": 136, "rt_sigsuspend": 133,
    "rt_sigtimedwait": 137, "sigaltstack": 132, "setitimer": 103, "getitimer": 102, "getpid": 172,
    "getppid": 173, "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "getresuid": 148,
    "getresgid": 150, "getgroups": 158, "getpgid": 155, "getsid": 156, "getrlimit": 163, "getrusage": 165,
    "times": 153, "uname": 160, "sysinfo": 179, "getpriority": 141, "clock_gettime": 113,
    "clock_getres": 114, "gettimeofday": 169, "getrandom": 278, "wait4": 260, "waitid": 95, "sendto": 206,
    "recvfrom": 207, "shutdown": 210, "getsockname": 204, "getpeername": 205, "getsockopt": 209,
    "clone": 220, "kill": 129, "tgkill": 131, "ioctl": 29, "fcntl": 25, "prlimit64": 261, "socketpair": 199,
    "clone3": 435,
}
# fmt: on
