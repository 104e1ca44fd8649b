-- The tables of both application peers, made at their start if missing. Times are ms since the epoch, durations seconds.
CREATE TABLE IF NOT EXISTS users (
    user_id uuid PRIMARY KEY,
    name text NOT NULL,
    gender text NOT NULL,
    account_type text NOT NULL DEFAULT 'guest',
    email text UNIQUE,
    selfie_url text,
    video_url text,
    socials jsonb NOT NULL DEFAULT '{}',
    timer_total_seconds bigint NOT NULL DEFAULT 0,
    session_count bigint NOT NULL DEFAULT 0,
    last_sessions jsonb NOT NULL DEFAULT '[]',
    paid_status text NOT NULL DEFAULT 'paid',
    created_at bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS sessions (
    session_token uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    is_active boolean NOT NULL DEFAULT true,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL
);
-- An unordered pair, smaller id first.
CREATE TABLE IF NOT EXISTS cooldowns (
    lower_id uuid NOT NULL,
    higher_id uuid NOT NULL,
    expires_at bigint NOT NULL,
    PRIMARY KEY (lower_id, higher_id)
);
CREATE TABLE IF NOT EXISTS chat_history (
    session_id uuid NOT NULL,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    partner_id uuid NOT NULL,
    partner_name text NOT NULL,
    room_id uuid NOT NULL,
    started_at bigint NOT NULL,
    duration bigint NOT NULL,
    messages jsonb NOT NULL,
    PRIMARY KEY (session_id, user_id)
);
CREATE INDEX IF NOT EXISTS chat_history_by_user ON chat_history (user_id, started_at);
