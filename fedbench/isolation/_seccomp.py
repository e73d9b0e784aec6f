"""A filter of system calls (seccomp, Linux): no network, no other process, nothing that reaches one."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _ABOVE, _SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST, _FIRST_HIGH = 0, 4, 16, 20
"""Where the filter finds the call's number, the architecture, and the first argument."""
_CLONE_THREAD = 0x00010000
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2

_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # name: numbers on x86_64 and aarch64; None where there is no such call.
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242), "io_uring_setup": (425, 425), "fork": (57, None), "vfork": (58, None),
    "execve": (59, 221), "execveat": (322, 281), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "kcmp": (312, 272), "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195),
    "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "init_module": (175, 105), "finit_module": (313, 273), "kexec_load": (246, 104),
    "reboot": (169, 142), "swapon": (167, 224), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "migrate_pages": (256, 238), "move_pages": (279, 239), "setpgid": (109, 154), "setsid": (112, 157),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None), "fchown": (93, 55),
    "fchownat": (260, 54), "utimensat": (280, 88), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "syslog": (103, 116), "acct": (163, 89),
    "setxattr": (188, 5), "fsetxattr": (190, 7), "lsetxattr": (189, 6), "removexattr": (197, 14),
}  # fmt: skip
_OF_ITSELF: dict[str, tuple[int | None, int | None]] = {
    "kill": (62, 129),
    "tgkill": (234, 131),
    "prlimit64": (302, 261),
}
"""Allowed where the first argument is this process, or 0 for ``prlimit64``."""
_CLONE, _CLONE3 = (56, 220), 435
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def filter_calls() -> bool:
    """Refuse such calls from now on, for good; False where it cannot be done."""
    known = _ARCHITECTURES.get(platform.machine())
    if known is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    column, architecture = known
    libc = ctypes.CDLL(None, use_errno=True)
    text = b"".join(_instructions(column, architecture, os.getpid()))
    program = _Program(len(text) // 8, text)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return False
    return bool(libc.prctl(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0)


def _instructions(column: int, architecture: int, pid: int) -> list[bytes]:
    refuse, unknown = _step(_RETURN, _ERRNO | _EPERM), _step(_RETURN, _ERRNO | _ENOSYS)
    lines = [
        _step(_LOAD, _ARCH),
        _step(_EQUAL, architecture, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_ABOVE, 0x40000000, 0, 1),  # calls of another ABI under numbers of their own
        refuse,
        _step(_EQUAL, _CLONE3, 0, 1),
        unknown,  # the C library uses clone instead, whose flags can be looked at
        _step(_EQUAL, _CLONE[column], 0, 4),
        _step(_LOAD, _FIRST),
        _step(_SET, _CLONE_THREAD, 0, 1),
        _step(_RETURN, _ALLOW),
        refuse,
    ]
    for name, numbers in _OF_ITSELF.items():
        body = [_step(_LOAD, _FIRST), _step(_EQUAL, pid, 1, 0)]
        body += [_step(_EQUAL, 0, 0, 1)] if name == "prlimit64" else [refuse]
        lines += [_step(_EQUAL, numbers[column] or 0, 0, len(body) + (2 if name == "prlimit64" else 1)), *body]
        lines += [_step(_RETURN, _ALLOW), refuse] if name == "prlimit64" else [_step(_RETURN, _ALLOW)]
    for numbers in _REFUSED.values():
        if numbers[column] is not None:
            lines += [_step(_EQUAL, numbers[column] or 0, 0, 1), refuse]
    return [*lines, _step(_RETURN, _ALLOW)]


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("<HBBI", code, then, otherwise, value)
