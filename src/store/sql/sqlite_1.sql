CREATE TABLE map_task_runs (
    run_id        TEXT NOT NULL PRIMARY KEY,
    task          TEXT NOT NULL,
    status        TEXT NOT NULL CHECK (status IN ('running', 'succeeded', 'failed')),
    reason        TEXT,
    holder        TEXT,
    held_since_ms INTEGER,
    held_until_ms INTEGER,
    started_ms    INTEGER NOT NULL,
    updated_ms    INTEGER NOT NULL
) STRICT;

CREATE TABLE map_task_items (
    run_id     TEXT NOT NULL REFERENCES map_task_runs ON DELETE CASCADE,
    item_index INTEGER NOT NULL,
    item_hash  TEXT NOT NULL,
    attempts   INTEGER NOT NULL,
    elapsed_ns INTEGER NOT NULL,
    output     TEXT,
    checksum   TEXT,
    error      TEXT,
    PRIMARY KEY (run_id, item_index),
    CHECK ((output IS NULL) = (checksum IS NULL) AND (output IS NULL) <> (error IS NULL))
) STRICT;

CREATE INDEX map_task_items_failed ON map_task_items (run_id, item_index) WHERE error IS NOT NULL;

CREATE TABLE map_task_checkpoints (
    run_id     TEXT NOT NULL REFERENCES map_task_runs ON DELETE CASCADE,
    item_index INTEGER NOT NULL,
    item_hash  TEXT NOT NULL,
    state      TEXT NOT NULL,
    checksum   TEXT NOT NULL,
    saved_ms   INTEGER NOT NULL,
    PRIMARY KEY (run_id, item_index)
) STRICT;

CREATE TABLE map_task_cache (
    task       TEXT NOT NULL,
    version    TEXT NOT NULL,
    item_hash  TEXT NOT NULL,
    output     TEXT NOT NULL,
    checksum   TEXT NOT NULL,
    written_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    PRIMARY KEY (task, version, item_hash)
) STRICT;

CREATE INDEX map_task_cache_expiring ON map_task_cache (expires_ms) WHERE expires_ms IS NOT NULL;

CREATE TABLE map_task_claims (
    task          TEXT NOT NULL,
    version       TEXT NOT NULL,
    item_hash     TEXT NOT NULL,
    holder        TEXT NOT NULL,
    held_until_ms INTEGER NOT NULL,
    PRIMARY KEY (task, version, item_hash)
) STRICT;
