-- Calls that ended long ago, moved here from chat_history: for the operator, and for exports. They go with their owner.
CREATE TABLE chat_history_archive (
    session_id   TEXT NOT NULL,
    user_id      BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    partner_id   BLOB NOT NULL,
    partner_name TEXT NOT NULL,
    room_id      BLOB NOT NULL,
    started_at   INTEGER NOT NULL,
    duration     INTEGER NOT NULL,
    messages     TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (user_id, session_id)
) STRICT;
-- A row is made when its call ends.
CREATE INDEX chat_history_by_end ON chat_history (created_at);
