-- Calls that have begun and not ended: what a new process goes on with. A call goes with either of its people.
CREATE TABLE running_calls (
    call_id        BLOB PRIMARY KEY NOT NULL CHECK (length(call_id) = 16),
    caller_id      BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    callee_id      BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    agreed_seconds INTEGER NOT NULL,
    started_at     INTEGER NOT NULL,
    caller_joined  INTEGER NOT NULL DEFAULT 0,
    callee_joined  INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX running_calls_by_caller ON running_calls (caller_id);
CREATE INDEX running_calls_by_callee ON running_calls (callee_id);

-- Their chat so far, one line of the later history in each row, counted from 0 in each call.
CREATE TABLE running_call_lines (
    call_id BLOB NOT NULL REFERENCES running_calls ON DELETE CASCADE,
    number  INTEGER NOT NULL,
    line    TEXT NOT NULL,
    PRIMARY KEY (call_id, number)
) STRICT, WITHOUT ROWID;

-- When a process with running calls was last known to be alive, give or take its few seconds between two marks.
CREATE TABLE last_alive (
    only_row INTEGER PRIMARY KEY NOT NULL CHECK (only_row = 1),
    alive_at INTEGER NOT NULL
) STRICT;
INSERT INTO last_alive VALUES (1, 0);
