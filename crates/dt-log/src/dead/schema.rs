//! The tables of `dead.db`.

use rusqlite::{Connection, params};

use super::super::sqlite::DatabaseFormat;

pub const FORMAT: DatabaseFormat =
    DatabaseFormat { application_id: 0x4454_6464 /* "DTdd" */, version: 1 };

/// The names of the tables of dead letters. Copies of requests have tables of their own, so that removing the oldest copies does
/// not touch other dead letters.
pub const DEAD_LETTER_TABLES: [&str; 3] = ["dead", EXPIRED, REFUSED];
pub const EXPIRED: &str = "expired";
pub const REFUSED: &str = "refused";

/// The approximate size of a row in bytes, without its texts and body.
const ROW_BYTES: usize = 200;

const STORE: &str = "
    CREATE TABLE store (
        one        INTEGER PRIMARY KEY CHECK (one = 1),
        store_id   BLOB NOT NULL,       -- zeros: of no store yet
        highest_id INTEGER NOT NULL     -- the highest id that a letter ever got
    ) STRICT;

    CREATE TABLE counts (
        reason  TEXT PRIMARY KEY,
        letters INTEGER NOT NULL,
        bytes   INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO counts VALUES
        ('rejected', 0, 0), ('unreadable', 0, 0), ('expired', 0, 0), ('refused', 0, 0), ('damaged', 0, 0);
";

/// The definition of one table of dead letters; all three have the same columns and triggers. The triggers also count changes
/// that a person makes in the database.
const DEAD_LETTERS: &str = "
    CREATE TABLE NAME (
        id           INTEGER PRIMARY KEY,
        reason       TEXT NOT NULL,     -- rejected, unreadable, expired, refused, damaged
        connector    TEXT NOT NULL,
        sink         TEXT,              -- who rejected it
        seq          INTEGER,           -- the record that was rejected or damaged
        error        TEXT NOT NULL,
        attempts     INTEGER NOT NULL,
        replays      INTEGER NOT NULL,  -- how many replays failed
        received_at  INTEGER NOT NULL,  -- Unix milliseconds
        dead_at      INTEGER NOT NULL,  -- Unix milliseconds
        verified_by  TEXT,              -- of a record: secret:LABEL, asymmetric:KID, api:backfill or api:stream
        event_id     TEXT,
        event_type   TEXT,              -- of a record
        project      TEXT,
        device       TEXT,
        request_id   TEXT,
        signatures   TEXT NOT NULL,     -- JSON: [[header, value], ...]
        header_names TEXT NOT NULL,     -- JSON: [name, ...]
        crc          INTEGER NOT NULL,  -- CRC-32 of all that a record is made of again
        body_hash    BLOB,              -- SHA-256, where one copy is kept; of refused ones with the signatures
        body         BLOB NOT NULL      -- as received
    ) STRICT;
    CREATE UNIQUE INDEX NAME_once ON NAME (reason, connector, coalesce(sink, ''), body_hash)
        WHERE body_hash IS NOT NULL;
    CREATE TRIGGER NAME_added AFTER INSERT ON NAME BEGIN
        UPDATE counts SET letters = letters + 1,
            bytes = bytes + ROW_BYTES + length(NEW.body) + length(NEW.signatures) + length(NEW.header_names)
        WHERE reason = NEW.reason;
    END;
    CREATE TRIGGER NAME_deleted AFTER DELETE ON NAME BEGIN
        UPDATE counts SET letters = letters - 1,
            bytes = bytes - ROW_BYTES - length(OLD.body) - length(OLD.signatures) - length(OLD.header_names)
        WHERE reason = OLD.reason;
    END;
";

const REST: &str = "
    -- One dead letter for each record and sink, and one for each damaged record.
    CREATE UNIQUE INDEX dead_of_record ON dead (sink, seq) WHERE seq IS NOT NULL AND sink IS NOT NULL;
    CREATE UNIQUE INDEX dead_damaged ON dead (seq) WHERE reason = 'damaged';
    CREATE INDEX dead_by_reason ON dead (reason);

    CREATE VIEW letters AS
        SELECT * FROM dead UNION ALL SELECT * FROM expired UNION ALL SELECT * FROM refused;
";

/// Creates the tables in an empty database, either all or none.
pub fn create(connection: &mut Connection, store_id: [u8; 16]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(STORE)?;
    for table in DEAD_LETTER_TABLES {
        let dead_letters = DEAD_LETTERS.replace("NAME", table).replace("ROW_BYTES", &ROW_BYTES.to_string());
        transaction.execute_batch(&dead_letters)?;
    }
    transaction.execute_batch(REST)?;
    transaction.execute("INSERT INTO store VALUES (1, ?1, 0)", params![store_id.as_slice()])?;
    FORMAT.mark(&transaction)?;
    transaction.commit()
}
