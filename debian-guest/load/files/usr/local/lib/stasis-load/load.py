"""
Writers that a guest is saved under. Each makes one numbered step after the other durable, and says so in memory: before a
step that it is begun, and when it is on the disk that it is done. So, at every instant,

    done <= the last step that the disk holds <= begun <= done + 1

and memory and disk can be held against each other from outside, in an image too. What a writer says is a page of its own:

    0  16 bytes "stasis-load page"   16  16 bytes name   32  u64 begun   40  u64 done   48  u64 errors   56  the first error
"""

import fcntl
import mmap
import os
import random
import sqlite3
import struct
import time
import traceback
import zlib

DATA = "/var/lib/stasis-load"
PAGES = "/dev/shm/stasis-load"
PAGE_BYTES = 4096
MAGIC = b"stasis-load page"
TEXT_OFFSET = 56

# Entries of a ledger, and segments of records, that are kept: the disk is not to fill up.
ENTRIES = 500
RECORDS_PER_SEGMENT = 64
SEGMENTS = 20


class Claim:
    """What a writer says of itself, in shared memory: others may read it."""

    def __init__(self, name):
        os.makedirs(PAGES, exist_ok=True)
        with open(f"{PAGES}/{name}", "wb") as file:
            file.write((MAGIC + name.encode().ljust(16, b"\0")).ljust(PAGE_BYTES, b"\0"))
        with open(f"{PAGES}/{name}", "r+b") as file:
            self.page = mmap.mmap(file.fileno(), PAGE_BYTES)
        # Words are written at once: half a number is never seen.
        self.words = memoryview(self.page).cast("Q")

    def begin(self, step):
        self.words[4] = step

    def finish(self, step):
        self.words[5] = step

    def complain(self, text):
        if self.words[6] == 0:
            self.page[TEXT_OFFSET:] = text.encode()[:1000].ljust(PAGE_BYTES - TEXT_OFFSET, b"\0")
        self.words[6] += 1


def read_claims():
    """What all writers say at present."""
    claims = {}
    for name in WRITERS:
        with open(f"{PAGES}/{name}", "rb") as file:
            page = file.read()
        begun, done, errors = struct.unpack_from("<QQQ", page, 32)
        first = page[TEXT_OFFSET:].rstrip(b"\0").decode(errors="replace")
        claims[name] = {"begun": begun, "done": done, "errors": errors, "firstError": first}
    return claims


class Counter:
    """One block that holds the number of its step. It is read from the disk itself each time, past the page cache."""

    def __init__(self):
        self.block = mmap.mmap(-1, PAGE_BYTES)
        self.file = os.open(f"{DATA}/counter", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
        if os.fstat(self.file).st_size == 0:
            os.pwritev(self.file, [self.block], 0)

    def held(self):
        os.preadv(self.file, [self.block], 0)
        return struct.unpack_from("<Q", self.block)[0]

    def step(self, number):
        held = self.held()
        if held != number - 1:
            raise ValueError(f"the disk holds {held}, not {number - 1}")
        struct.pack_into("<Q", self.block, 0, number)
        os.pwritev(self.file, [self.block], 0)
        os.fsync(self.file)


class Ledger:
    """A database in which each transaction moves an amount between two tables: invariants.sql says what holds then."""

    def __init__(self, name, journal):
        self.name = name
        self.database = sqlite3.connect(f"{DATA}/{name}.db", isolation_level=None, timeout=60)
        self.database.execute(f"PRAGMA journal_mode = {journal}")
        # With less, a rollback journal could come back after a crash that its transaction was done before.
        self.database.execute("PRAGMA synchronous = EXTRA")
        self.database.executescript(
            """
            BEGIN IMMEDIATE;
            CREATE TABLE IF NOT EXISTS credit (id INTEGER PRIMARY KEY, total INTEGER NOT NULL);
            CREATE TABLE IF NOT EXISTS debit (id INTEGER PRIMARY KEY, total INTEGER NOT NULL);
            CREATE TABLE IF NOT EXISTS entry (n INTEGER PRIMARY KEY, amount INTEGER, link INTEGER, note TEXT);
            CREATE TABLE IF NOT EXISTS state (n INTEGER, moved INTEGER, link INTEGER);
            INSERT INTO state SELECT 0, 0, 0 WHERE NOT EXISTS (SELECT * FROM state);
            COMMIT;
            """
        )

    def held(self):
        return self.database.execute("SELECT n FROM state").fetchone()[0]

    def step(self, number):
        amount, row = random.randint(1, 1000), random.randint(1, 200)
        run = self.database.execute
        run("BEGIN IMMEDIATE")
        run("INSERT INTO credit VALUES (?1, ?2) ON CONFLICT DO UPDATE SET total = total + ?2", (row, amount))
        run("INSERT INTO debit VALUES (?1, -?2) ON CONFLICT DO UPDATE SET total = total - ?2", (201 - row, amount))
        run(
            "UPDATE state SET n = ?1, moved = moved + ?2, link = (link * 31 + ?1 * 7 + ?2) % 2147483647",
            (number, amount),
        )
        run("INSERT INTO entry SELECT n, ?1, link, ?2 FROM state", (amount, os.urandom(300).hex()))
        run("DELETE FROM entry WHERE n <= ?", (number - ENTRIES,))
        run("COMMIT")


class Records:
    """Lines that are appended to a file, which is renamed when it is full: number, checksum, contents."""

    def __init__(self):
        self.path = f"{DATA}/records"
        os.makedirs(self.path, exist_ok=True)
        self.directory = os.open(self.path, os.O_RDONLY)
        self.current = f"{self.path}/current"

    def held(self):
        """Reads and checks all records; what was torn off by a crash is cut away."""
        numbers = []
        with self.locked():
            for name in sorted(os.listdir(self.path), key=lambda name: (name == "current", name)):
                numbers += self.read(f"{self.path}/{name}")
        if numbers and numbers != list(range(numbers[0], numbers[-1] + 1)):
            raise ValueError("records are missing")
        return numbers[-1] if numbers else 0

    def step(self, number):
        with self.locked():
            is_new = not os.path.exists(self.current)
            with open(self.current, "ab") as file:
                file.write(self.line(number))
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                os.fsync(self.directory)
            if number % RECORDS_PER_SEGMENT == 0:
                self.seal(number // RECORDS_PER_SEGMENT)

    def seal(self, segment):
        if len(self.read(self.current)) > RECORDS_PER_SEGMENT:
            raise ValueError("more records than fit")
        os.rename(self.current, f"{self.path}/segment-{segment:08}")
        old = f"{self.path}/segment-{segment - SEGMENTS:08}"
        if os.path.exists(old):
            os.unlink(old)
        os.fsync(self.directory)

    def read(self, path):
        """The numbers of the records in a file, as the disk has them."""
        with open(path, "r+b") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            text = file.read()
            whole = text.rfind(b"\n") + 1
            if whole < len(text):
                file.truncate(whole)
        numbers = []
        for line in text[:whole].splitlines():
            number, checksum, contents = line.split(b" ")
            if int(checksum, 16) != zlib.crc32(contents, int(number)):
                raise ValueError(f"record {int(number)} is damaged")
            numbers.append(int(number))
        return numbers

    def line(self, number):
        contents = os.urandom(random.randint(50, 1500)).hex().encode()
        return b"%d %08x %s\n" % (number, zlib.crc32(contents, number), contents)

    def locked(self):
        return DirectoryLock(self.directory)


class DirectoryLock:
    """Whoever looks at the records sees no half of a step."""

    def __init__(self, directory):
        self.directory = directory

    def __enter__(self):
        fcntl.flock(self.directory, fcntl.LOCK_EX)

    def __exit__(self, *_):
        fcntl.flock(self.directory, fcntl.LOCK_UN)


WRITERS = {
    "counter": Counter,
    "wal": lambda: Ledger("wal", "WAL"),
    "rollback": lambda: Ledger("rollback", "DELETE"),
    "records": Records,
}


def write(name, claim):
    """Makes one step after the other, for ever. A writer that finds something wrong says so and stops."""
    try:
        writer = WRITERS[name]()
        number = writer.held()
        while True:
            number += 1
            claim.begin(number)
            writer.step(number)
            claim.finish(number)
    except BaseException:
        claim.complain(traceback.format_exc(limit=-1))
        raise


def main():
    os.makedirs(DATA, exist_ok=True)
    for name in WRITERS:
        claim = Claim(name)
        if os.fork() == 0:
            write(name, claim)
    while any(claim["done"] == 0 for claim in read_claims().values()):
        time.sleep(0.05)
    print("stasis-load: ready", flush=True)
    os.wait()
    print(f"stasis-load: a writer ended: {read_claims()}", flush=True)


if __name__ == "__main__":
    main()
