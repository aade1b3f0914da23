"""
Looks at what the writers have on the disk while they write, and prints it as JSON: what they said before, the last step
that each has on the disk, and what is wrong with it; what they said afterwards.
"""

import json
import os
import sqlite3

import load


def drop_caches():
    """What is read next comes from the disk, not from memory that was restored with the guest."""
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("1")


def look_at_ledger(name, violations):
    database = sqlite3.connect(f"{load.DATA}/{name}.db", isolation_level=None, timeout=60)
    with open(f"{os.path.dirname(__file__)}/invariants.sql") as file:
        invariants = file.read()
    database.execute("BEGIN")
    held = database.execute("SELECT n FROM state").fetchone()[0]
    violations += [f"{name}: {row[0]}" for row in database.execute(invariants)]
    violations += [f"{name}: {row[0]}" for row in database.execute("PRAGMA integrity_check") if row[0] != "ok"]
    database.execute("COMMIT")
    return held


def main():
    violations = []
    before = load.read_claims()
    drop_caches()
    held = {
        "counter": load.Counter().held(),
        "wal": look_at_ledger("wal", violations),
        "rollback": look_at_ledger("rollback", violations),
        "records": load.Records().held(),
    }
    print(json.dumps({"before": before, "held": held, "violations": violations, "after": load.read_claims()}))


if __name__ == "__main__":
    main()
