-- Calls that have begun and not ended: what a new process goes on with. A call goes with either of its people.
CREATE TABLE running_calls (
    call_id        uuid PRIMARY KEY,
    caller_id      uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    callee_id      uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    agreed_seconds bigint NOT NULL,
    started_at     bigint NOT NULL,
    caller_joined  boolean NOT NULL DEFAULT false,
    callee_joined  boolean NOT NULL DEFAULT false
);
CREATE INDEX running_calls_by_caller ON running_calls (caller_id);
CREATE INDEX running_calls_by_callee ON running_calls (callee_id);

-- Their chat so far, one line of the later history in each row, counted from 0 in each call.
CREATE TABLE running_call_lines (
    call_id uuid NOT NULL REFERENCES running_calls ON DELETE CASCADE,
    number  bigint NOT NULL,
    line    json NOT NULL,
    PRIMARY KEY (call_id, number)
);

-- When a process with running calls was last known to be alive, give or take its few seconds between two marks.
CREATE TABLE last_alive (
    only_row integer PRIMARY KEY CHECK (only_row = 1),
    alive_at bigint NOT NULL
);
INSERT INTO last_alive VALUES (1, 0);
