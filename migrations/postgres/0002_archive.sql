-- Calls that ended long ago, moved here from chat_history: for the operator, and for exports. They go with their owner.
CREATE TABLE chat_history_archive (
    session_id   text NOT NULL,
    user_id      uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    partner_id   uuid NOT NULL,
    partner_name text NOT NULL,
    room_id      uuid NOT NULL,
    started_at   bigint NOT NULL,
    duration     bigint NOT NULL,
    messages     json NOT NULL,
    created_at   bigint NOT NULL,
    PRIMARY KEY (user_id, session_id)
);
-- A row is made when its call ends.
CREATE INDEX chat_history_by_end ON chat_history (created_at);
