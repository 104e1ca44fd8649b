"""Exits 0 if this machine lets us set up an io_uring, else says why not."""

import ctypes
import os
import sys

IO_URING_SETUP = 425
parameters = ctypes.create_string_buffer(120)
descriptor = ctypes.CDLL(None, use_errno=True).syscall(IO_URING_SETUP, 4, parameters)
if descriptor < 0:
    sys.exit(f"io_uring_setup: {os.strerror(ctypes.get_errno())}")
os.close(descriptor)
