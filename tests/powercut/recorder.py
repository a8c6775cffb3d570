"""A disk that records its writes: one file served over /dev/fuse, for a loop device. Every write and every flush gets a
number in the order in which the disk completed them, so that the disk's content at any moment can be rebuilt. It speaks
Linux's own protocol (include/uapi/linux/fuse.h), because a library for it is rarely installed."""

import ctypes
import errno
import mmap
import os
import pickle
import stat
import struct
import traceback

GETATTR, SETATTR, OPEN, READ, WRITE, RELEASE, FSYNC, FLUSH, INIT, DESTROY = 3, 4, 14, 15, 16, 18, 20, 25, 26, 38
NO_ANSWER = (2, 36, 42)  # FORGET, INTERRUPT, BATCH_FORGET
LARGEST = 128 * 1024
DIRECT_IO = 1


class Recorder:
    """A child process that serves the file `disk`, which shows the content of `base`, until it is unmounted."""

    def __init__(self, base, disk, log):
        self.base, self.disk, self.log = base, disk, log
        self.shared = mmap.mmap(-1, 8)
        open(disk, "wb").close()
        self.fuse = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.fuse},rootmode=100000,user_id=0,group_id=0,allow_other,max_read={LARGEST}"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"powercut", os.fsencode(disk), b"fuse.powercut", 0, options.encode()) != 0:
            raise OSError(ctypes.get_errno(), "mount of a FUSE file")
        self.child = os.fork()
        if self.child == 0:
            status = 1
            try:
                self.serve()
                status = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(self.fuse)

    def count(self):
        """How many writes and flushes the disk has completed."""
        return struct.unpack("Q", self.shared[:8])[0]

    def end(self):
        """Unmounts and returns the log: (offset, octets) for a write, None for a flush."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(self.disk), 0) != 0:
            raise OSError(ctypes.get_errno(), "umount of the FUSE file")
        _, status = os.waitpid(self.child, 0)
        if status != 0:
            raise RuntimeError("the recorder failed")
        with open(self.log, "rb") as file:
            return pickle.load(file)

    def serve(self):
        image = bytearray(open(self.base, "rb").read())
        log = []
        while True:
            try:
                request = os.read(self.fuse, LARGEST + 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                break  # ENODEV: unmounted
            _, opcode, unique = struct.unpack_from("IIQ", request)
            if opcode in NO_ANSWER:
                continue
            answer = self.answer(opcode, request[40:], image, log)
            self.shared[:8] = struct.pack("Q", len(log))
            status, data = (0, answer) if answer is not None else (-errno.ENOSYS, b"")
            try:
                os.write(self.fuse, struct.pack("IiQ", 16 + len(data), status, unique) + data)
            except OSError as error:
                # Nobody waits for it any more: the file is being unmounted.
                if error.errno not in (errno.ENOENT, errno.ENODEV):
                    raise
            if opcode == DESTROY:
                break
        with open(self.log, "wb") as file:
            pickle.dump(log, file)

    def answer(self, opcode, body, image, log):
        if opcode == INIT:
            return struct.pack("IIIIHHIIHHI28x", 7, 31, LARGEST, 0, 16, 12, LARGEST, 1, 0, 0, 0)
        if opcode in (GETATTR, SETATTR):
            times = (0,) * 6
            attributes = struct.pack("6Q10I", 1, len(image), len(image) // 512, *times[:3], *times[:3], stat.S_IFREG | 0o600, 1, 0, 0, 0, 4096, 0)
            return struct.pack("QII", 3600, 0, 0) + attributes
        if opcode == OPEN:
            return struct.pack("QII", 1, DIRECT_IO, 0)
        if opcode == READ:
            _, offset, size = struct.unpack_from("QQI", body)
            return bytes(image[offset : offset + size])
        if opcode == WRITE:
            _, offset, size = struct.unpack_from("QQI", body)
            data = body[40 : 40 + size]
            image[offset : offset + size] = data
            log.append((offset, data))
            return struct.pack("II", size, 0)
        if opcode == FSYNC:
            log.append(None)
            return b""
        if opcode in (RELEASE, FLUSH, DESTROY):
            return b""
        return None
