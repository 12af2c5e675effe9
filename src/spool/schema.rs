//! The tables, and the version of the format. A change of either is a new version, a migration, and a committed
//! database of the old one that a test opens.

use rusqlite::Connection;

/// The newest format that is known here.
pub(super) const VERSION: i64 = 1;

/// "DTsp": tells our databases from others.
pub(super) const APPLICATION_ID: i64 = 0x4454_7370;

const TABLES: &str = "
    CREATE TABLE records (
        seq          INTEGER PRIMARY KEY,
        connector    TEXT NOT NULL,
        received_at  INTEGER NOT NULL,  -- Unix milliseconds
        verified_by  TEXT NOT NULL,     -- secret:LABEL or asymmetric:KID
        event_id     TEXT NOT NULL,
        event_type   TEXT NOT NULL,
        project      TEXT,
        device       TEXT,
        request_id   TEXT,
        signatures   TEXT NOT NULL,     -- JSON: [[header, value], ...]
        header_names TEXT NOT NULL,     -- JSON: [name, ...]
        crc          INTEGER NOT NULL,  -- CRC-32 of all but the number, the signatures and the names
        body         BLOB NOT NULL      -- as received
    ) STRICT;

    -- DT's ids grow with time: by id, new ones of all connectors are behind the others, and go to the same few pages.
    CREATE TABLE seen (
        connector TEXT NOT NULL,
        event_id  TEXT NOT NULL,
        at        INTEGER NOT NULL,     -- Unix milliseconds
        PRIMARY KEY (event_id, connector)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX seen_by_age ON seen (at);

    CREATE TABLE sinks (
        name       TEXT PRIMARY KEY,
        cursor     INTEGER NOT NULL,    -- the last seq it is done with
        checkpoint BLOB,
        skips      TEXT NOT NULL        -- JSON: {connector: the last seq before it was skipped}
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE dead (
        id           INTEGER PRIMARY KEY AUTOINCREMENT,
        reason       TEXT NOT NULL,     -- rejected, unreadable, expired, refused, damaged
        connector    TEXT NOT NULL,
        sink         TEXT,              -- who rejected it
        seq          INTEGER,           -- the record that was rejected or damaged
        error        TEXT NOT NULL,
        attempts     INTEGER NOT NULL,
        received_at  INTEGER NOT NULL,  -- Unix milliseconds
        buried_at    INTEGER NOT NULL,  -- Unix milliseconds
        verified_by  TEXT,
        event_id     TEXT,
        event_type   TEXT,
        project      TEXT,
        device       TEXT,
        request_id   TEXT,
        signatures   TEXT NOT NULL,
        header_names TEXT NOT NULL,
        replays      INTEGER NOT NULL DEFAULT 0,  -- how many replays failed
        replay_at    INTEGER,           -- since when it waits for its sink again, Unix milliseconds
        crc          INTEGER,           -- of the record that was rejected
        body_hash    BLOB,              -- SHA-256, where one copy is kept; of refused ones with the signatures
        body         BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX dead_once ON dead (reason, connector, body_hash) WHERE body_hash IS NOT NULL;
    CREATE UNIQUE INDEX dead_of_record ON dead (sink, seq) WHERE seq IS NOT NULL;
    CREATE UNIQUE INDEX dead_damaged ON dead (seq) WHERE reason = 'damaged';
    CREATE INDEX dead_by_reason ON dead (reason);
    CREATE INDEX dead_to_replay ON dead (sink) WHERE replay_at IS NOT NULL;

    CREATE TABLE counts (
        name  TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO counts VALUES ('seen', 0), ('last_seq', 0),
        ('dead_rejected', 0), ('dead_unreadable', 0), ('dead_expired', 0), ('dead_refused', 0), ('dead_damaged', 0),
        ('dead_bytes_expired', 0), ('dead_bytes_refused', 0);

    -- Whoever adds or deletes letters, even by hand, the counts hold. 200: what a row takes beside its texts, about.
    CREATE TRIGGER dead_added AFTER INSERT ON dead BEGIN
        UPDATE counts SET value = value + 1 WHERE name = 'dead_' || NEW.reason;
        UPDATE counts
        SET value = value + 200 + length(NEW.body) + length(NEW.signatures) + length(NEW.header_names)
        WHERE name = 'dead_bytes_' || NEW.reason;
    END;
    CREATE TRIGGER dead_deleted AFTER DELETE ON dead BEGIN
        UPDATE counts SET value = value - 1 WHERE name = 'dead_' || OLD.reason;
        UPDATE counts
        SET value = value - 200 - length(OLD.body) - length(OLD.signatures) - length(OLD.header_names)
        WHERE name = 'dead_bytes_' || OLD.reason;
    END;
";

/// Makes the tables of an empty database, all or none.
pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}
