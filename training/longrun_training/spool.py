"""The spool: a folder of journals, each of them one run that is being recorded or waits for a server.

`<spool>/<uuid>/journal.sqlite3` has one row a record, `files/<number>/` what belongs to it, and `lock` is held by whoever writes or sends it:
the system takes the lock back when that process ends, however it ends.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Self

from longrun_training.errors import ProblemError

DATABASE, FILES, LOCK = "journal.sqlite3", "files", "lock"
# A journal that was sent is renamed before it is deleted, so that a deletion that breaks off leaves no half of a run.
DONE = ".sent"
FORMAT = "1"
SCHEMA = """
PRAGMA journal_mode = TRUNCATE;
PRAGMA synchronous = NORMAL;
CREATE TABLE record (number INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, content TEXT NOT NULL);
CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
CHUNK_BYTES = 1 << 20


class Kind(StrEnum):
    """What a record is."""

    BEGIN = "begin"
    PARAMETERS = "parameters"
    METRICS = "metrics"
    TAGS = "tags"
    DATASET = "dataset"
    ARTIFACT = "artifact"
    MODEL = "model"
    REGISTER = "register"
    END = "end"


class SpoolError(Exception):
    """The spool can't be written: a full disk, a folder of somebody else. Who catches it knows whether that matters."""


class BusyError(Exception):
    """Another process writes or sends this journal."""


@dataclass(frozen=True)
class StoredFile:
    """A file of a record.

    Attributes:
        path: Where it belongs, with slashes.
        local: Where it lies: relative to the journal's folder, absolute where the spool could not take it.
        size: In bytes.
        sha256: Of its content.
    """

    path: str
    local: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One record of a journal.

    Attributes:
        number: Their order, from 1.
        at: When it was recorded, milliseconds since 1970.
        kind: What it is.
        content: Values fit for JSON, by the kind.
        files: What belongs to it.
    """

    number: int
    at: int
    kind: Kind
    content: Mapping[str, Any]
    files: tuple[StoredFile, ...] = ()

    def dump(self) -> str:
        """Return content and files as JSON; NaN and infinities are written as JavaScript has them."""
        return json.dumps({"content": dict(self.content), "files": [vars(file) for file in self.files]})

    @classmethod
    def parse(cls, number: int, at: int, kind: str, text: str) -> Self:
        """Read what `dump` wrote."""
        stored = json.loads(text)
        return cls(number, at, Kind(kind), stored["content"], tuple(StoredFile(**file) for file in stored["files"]))


def now() -> int:
    """Return the time as MLflow counts it: milliseconds since 1970."""
    return int(time.time() * 1000)


def measure(path: Path) -> tuple[int, str]:
    """Return a file's size in bytes and the SHA-256 of its content."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


class Journal:
    """One run on disk, locked for as long as this object is open. Safe to use from several threads.

    Attributes:
        folder: Where it is.
    """

    def __init__(self, folder: Path, lock: int, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._lock: int | None = lock
        self._connection = connection
        self._guard = threading.Lock()

    @classmethod
    def create(cls, spool: Path, uuid: str) -> "Journal":
        """Begin a journal.

        Raises:
            SpoolError: The folder can't be written.
        """
        folder = spool / uuid
        try:
            (folder / FILES).mkdir(parents=True)
            lock = _locked(folder)
            connection = sqlite3.connect(folder / DATABASE, check_same_thread=False)
            connection.executescript(SCHEMA)
            with connection:
                connection.execute("INSERT INTO note VALUES ('format', ?)", (FORMAT,))
        except (OSError, sqlite3.Error) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise SpoolError(_reason(error)) from error
        return cls(folder, lock, connection)

    @classmethod
    def open(cls, folder: Path) -> "Journal | None":
        """Open a journal that somebody left; None where it has gone meanwhile.

        Raises:
            BusyError: It is being written or sent.
            ProblemError: It can't be read.
        """
        try:
            lock = _locked(folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            message = f"{folder} can't be opened ({_reason(error)})"
            raise ProblemError(message) from error
        if not (folder / DATABASE).is_file():
            os.close(lock)
            return None
        try:
            connection = sqlite3.connect(folder / DATABASE, check_same_thread=False)
            found = dict(connection.execute("SELECT name, value FROM note"))
        except sqlite3.Error as error:
            os.close(lock)
            message = f"{folder / DATABASE} can't be read ({_reason(error)}): the run in it can't be sent; remove the folder to give it up"
            raise ProblemError(message) from error
        if found.get("format") != FORMAT:
            connection.close()
            os.close(lock)
            message = f"{folder / DATABASE} has format {found.get('format')}, and this longrun reads format {FORMAT}: send it with the version that wrote it"
            raise ProblemError(message)
        return cls(folder, lock, connection)

    def append(self, *entries: Entry) -> None:
        """Write records, all or none.

        Raises:
            SpoolError: The disk is full, or the like.
        """
        rows = [(entry.number, entry.at, entry.kind.value, entry.dump()) for entry in entries]
        try:
            with self._guard, self._connection:
                self._connection.executemany("INSERT INTO record VALUES (?, ?, ?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            raise SpoolError(_reason(error)) from error

    def entries(self) -> list[Entry]:
        """Read all records, in order.

        Raises:
            ProblemError: The file is damaged.
        """
        try:
            with self._guard:
                rows = self._connection.execute("SELECT number, at, kind, content FROM record ORDER BY number").fetchall()
            return [Entry.parse(*row) for row in rows]
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            message = f"{self.folder / DATABASE} is damaged ({_reason(error)}): the run in it can't be sent; remove the folder to give it up"
            raise ProblemError(message) from error

    def take(self, number: int, sources: Mapping[str, Path | bytes], *, copy: bool = True) -> tuple[StoredFile, ...]:
        """Keep files as they are now.

        Args:
            number: Of the record that they belong to.
            sources: Path of the artifact → the file, or its content.
            copy: False: a second name of the same file will do, because nobody changes it in place.

        Raises:
            SpoolError: The disk is full, or the like. Nothing of the record stays.
        """
        kept = []
        home = self.folder / FILES / str(number)
        try:
            for path, source in sources.items():
                target = home / PurePosixPath(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                _keep(source, target, copy=copy)
                kept.append(StoredFile(path, str(target.relative_to(self.folder)), *measure(target)))
        except OSError as error:
            shutil.rmtree(home, ignore_errors=True)
            raise SpoolError(_reason(error)) from error
        return tuple(kept)

    def close(self) -> None:
        """Let go of the journal and leave it where it is; a second time does nothing."""
        self._connection.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def remove(self) -> None:
        """Delete the journal: all of it is on the server."""
        gone = self.folder.with_name(self.folder.name + DONE)
        with suppress(OSError):
            self.folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        self.close()


def waiting(spool: Path) -> list[Path]:
    """Return the folders of the journals in a spool, by name, after removing what a broken-off deletion left.

    Raises:
        ProblemError: The folder can't be read.
    """
    try:
        if not spool.is_dir():
            return []
        found = list(spool.iterdir())
        for left in found:
            if left.name.endswith(DONE):
                shutil.rmtree(left, ignore_errors=True)
        return sorted(folder for folder in found if (folder / DATABASE).is_file())
    except OSError as error:
        message = f"the spool {spool} can't be read ({_reason(error)})"
        raise ProblemError(message) from error


def _locked(folder: Path) -> int:
    """Take the lock of a journal's folder and return its descriptor."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise BusyError(folder.name) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _keep(source: Path | bytes, target: Path, *, copy: bool) -> None:
    if isinstance(source, bytes):
        target.write_bytes(source)
        return
    if not copy:
        try:
            os.link(source, target)
        except OSError:
            pass  # another file system, or one without links
        else:
            return
    shutil.copyfile(source, target)


def _reason(error: BaseException) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
