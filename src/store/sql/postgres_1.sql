CREATE TABLE map_task_runs (
    run_id     text COLLATE "C" NOT NULL PRIMARY KEY,
    task       text NOT NULL,
    status     text NOT NULL CHECK (status IN ('running', 'succeeded', 'failed')),
    reason     text,
    holder     text,
    held_since timestamptz,
    held_until timestamptz,
    started    timestamptz NOT NULL,
    updated    timestamptz NOT NULL
);

CREATE TABLE map_task_items (
    run_id     text COLLATE "C" NOT NULL REFERENCES map_task_runs ON DELETE CASCADE,
    item_index bigint NOT NULL,
    item_hash  text NOT NULL,
    attempts   bigint NOT NULL,
    elapsed_ns bigint NOT NULL,
    output     text,
    checksum   text,
    error      text,
    PRIMARY KEY (run_id, item_index),
    CHECK ((output IS NULL) = (checksum IS NULL) AND (output IS NULL) <> (error IS NULL))
);

CREATE INDEX map_task_items_failed ON map_task_items (run_id, item_index) WHERE error IS NOT NULL;

CREATE TABLE map_task_checkpoints (
    run_id     text COLLATE "C" NOT NULL REFERENCES map_task_runs ON DELETE CASCADE,
    item_index bigint NOT NULL,
    item_hash  text NOT NULL,
    state      text NOT NULL,
    checksum   text NOT NULL,
    saved      timestamptz NOT NULL,
    PRIMARY KEY (run_id, item_index)
);

CREATE TABLE map_task_cache (
    task      text COLLATE "C" NOT NULL,
    version   text COLLATE "C" NOT NULL,
    item_hash text COLLATE "C" NOT NULL,
    output    text NOT NULL,
    checksum  text NOT NULL,
    written   timestamptz NOT NULL,
    expires   timestamptz,
    PRIMARY KEY (task, version, item_hash)
);

CREATE INDEX map_task_cache_expiring ON map_task_cache (expires) WHERE expires IS NOT NULL;

CREATE TABLE map_task_claims (
    task       text COLLATE "C" NOT NULL,
    version    text COLLATE "C" NOT NULL,
    item_hash  text COLLATE "C" NOT NULL,
    holder     text NOT NULL,
    held_until timestamptz NOT NULL,
    PRIMARY KEY (task, version, item_hash)
);
