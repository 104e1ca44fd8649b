"""Runs a command under a seccomp filter that answers EPERM to io_uring_setup, as container runtimes do.

Usage: python3 seccomp.py COMMAND [ARGUMENT...]
"""

import ctypes
import os
import struct
import sys

IO_URING_SETUP = 425
AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO_EPERM = 0x7FFF0000, 0x00050000 | 1
OFFSET_OF_NUMBER, OFFSET_OF_ARCHITECTURE = 0, 4


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def instruction(code, value, if_true=0, if_false=0):
    """struct sock_filter."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def forbid_io_uring():
    machine = os.uname().machine
    if machine not in AUDIT_ARCHITECTURES:
        sys.exit(f"seccomp.py does not know the system calls of {machine}")
    code = b"".join([
        instruction(LOAD_WORD, OFFSET_OF_ARCHITECTURE),
        instruction(JUMP_IF_EQUAL, AUDIT_ARCHITECTURES[machine], 0, 3),
        instruction(LOAD_WORD, OFFSET_OF_NUMBER),
        instruction(JUMP_IF_EQUAL, IO_URING_SETUP, 0, 1),
        instruction(RETURN, ERRNO_EPERM),
        instruction(RETURN, ALLOW),
    ])
    libc = ctypes.CDLL(None, use_errno=True)
    program = Program(len(code) // 8, code)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program)):
        sys.exit(f"seccomp.py: {os.strerror(ctypes.get_errno())}")


if len(sys.argv) < 2:
    sys.exit(__doc__)
forbid_io_uring()
os.execvp(sys.argv[1], sys.argv[1:])
