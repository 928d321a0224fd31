"""An append-only file of JSON lines for one writer, readable after a crash at any moment."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any

from attnembed._files import PathLike, lock, make_folder, sync_path
from attnembed.errors import DataFileError


class LineStore:
    """A file whose first line is a header, ``{"KIND": VERSION, ...}``, and whose other lines are records.

    Opening locks the file against other writers and reads ``header`` (None in a new file) and ``records``. A last line
    without a line end was torn by a crash; it is dropped from the file once the header has shown that the file is a
    store. A complete line that is not a JSON object raises an error that names it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for _ in range(2):
    ...         with LineStore(Path(folder, "a.jsonl"), kind="list", version=1) as store:
    ...             if store.header is None:
    ...                 store.begin(of="squares")
    ...             store.append(json.dumps({"x": len(store.records)}))
    ...     print(Path(folder, "a.jsonl").read_text(), end="")
    {"list": 1, "of": "squares"}
    {"x": 0}
    {"x": 1}
    """

    def __init__(self, path: PathLike, *, kind: str, version: int) -> None:
        self.path, self.kind, self.version = Path(path), kind, version
        self.header: dict[str, Any] | None = None
        self.records: list[dict[str, Any]] = []
        self._guard = threading.RLock()
        self._timer: threading.Timer | None = None  # for the pending sync
        self._synced = -float("inf")  # time of the last one
        self._failure: DataFileError | None = None  # of a sync in the background
        try:
            make_folder(self.path.parent)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._file = os.open(self.path, flags, 0o666)
        except (OSError, ValueError) as error:  # ValueError: a name with a null byte
            raise self._unwritable(error) from error
        _open.add(self)
        try:
            self._lock()
            self._read()
        except BaseException:
            self.close()
            raise

    def begin(self, **fields: Any) -> None:
        """Write the header of a new file."""
        self.header = {self.kind: self.version, **fields}
        self.append(json.dumps(self.header))
        self.sync()
        sync_path(self.path.parent)  # the name of the file, too

    def append(self, line: str) -> None:
        """Write one line in one system call; `sync` then makes it durable."""
        content = f"{line}\n".encode("ascii")
        size = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, content)
            if written < len(content):  # the disk filled up
                written += os.write(self._file, content[written:])
        except OSError as error:
            os.ftruncate(self._file, size)
            raise self._unwritable(error) from error

    def sync(self) -> None:
        """Return once all lines are on disk."""
        with self._guard:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._failure is not None:
                raise self._failure
            try:
                os.fsync(self._file)
            except OSError as error:
                raise self._unwritable(error) from error
            self._synced = time.monotonic()

    def sync_within(self, seconds: float) -> None:
        """Have all lines on disk within this many seconds, without waiting if other lines came just before.

        The first line after a pause is synced at once; those that follow within ``seconds`` share one sync in a thread
        at the end of that time. If it fails, the next sync raises its error.
        """
        with self._guard:
            if self._timer is not None and self._failure is None:
                return
            wait = self._synced + seconds - time.monotonic()
            if wait <= 0 or self._failure is not None:
                self.sync()
                return
            self._timer = threading.Timer(wait, self._sync_late)
            self._timer.daemon = True
            self._timer.start()

    def _sync_late(self) -> None:
        with self._guard:
            if self._timer is not threading.current_thread():
                return  # another sync came first
            try:
                self.sync()
            except DataFileError as error:
                self._failure = error

    def close(self) -> None:
        """Sync pending lines and close the file, which releases its lock."""
        try:
            with self._guard:
                if self._timer is not None or self._failure is not None:
                    self.sync()
        finally:
            self._release()

    def _release(self) -> None:
        if self in _open:
            _open.discard(self)
            os.close(self._file)

    def __enter__(self) -> LineStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> None:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise DataFileError(self.path, "is not a regular file")
        if lock(self._file) is False:
            raise DataFileError(self.path, "is in use by another run")

    def _read(self) -> None:
        whole = 0
        with open(self._file, "rb", closefd=False) as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                self._take(number, line)
            else:
                return
        start = b'{"%s": ' % self.kind.encode()
        if number == 1 and not (line.startswith(start) or start.startswith(line)):
            raise DataFileError(self.path, f"is not a file of the kind {self.kind}", line=1)
        os.ftruncate(self._file, whole)

    def _take(self, number: int, line: bytes) -> None:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataFileError(self.path, "is not valid JSON", line=number) from error
        if not isinstance(content, dict):
            raise DataFileError(self.path, f"must hold a JSON object; got {type(content).__name__}", line=number)
        if number > 1:
            self.records.append(content)
        elif self.kind not in content:
            raise DataFileError(self.path, f"is not a file of the kind {self.kind}", line=1)
        elif content[self.kind] != self.version:
            found = content[self.kind]
            older = isinstance(found, int) and found < self.version
            problem = f"belongs to {'an earlier' if older else 'another'} version of attnembed"
            detail = f"{self.kind} is {json.dumps(found)}, this version has {self.version}"
            raise DataFileError(self.path, f"{problem} ({detail}); use another file", line=1)
        else:
            self.header = content

    def _unwritable(self, error: OSError | ValueError) -> DataFileError:
        return DataFileError(self.path, f"cannot be written: {getattr(error, 'strerror', None) or error}")


_open: weakref.WeakSet[LineStore] = weakref.WeakSet()


def _release_after_fork() -> None:
    # A forked worker would keep the lock of a parent that has been killed.
    for store in list(_open):
        store._release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_after_fork)
