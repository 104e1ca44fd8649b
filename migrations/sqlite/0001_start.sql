-- Ids are 16 bytes, times ms since the Unix epoch, durations seconds (contract 5).
-- What refers to people who may be gone, and must outlive them, has no foreign key.

-- A user with an e-mail is permanent, one without is a guest.
CREATE TABLE users (
    user_id             BLOB PRIMARY KEY NOT NULL CHECK (length(user_id) = 16),
    name                TEXT NOT NULL,
    gender              TEXT NOT NULL,
    email               TEXT CHECK (email IS NULL OR password_hash IS NOT NULL),
    password_hash       TEXT,
    selfie_url          TEXT,
    video_url           TEXT,
    socials             TEXT,
    timer_total_seconds INTEGER NOT NULL DEFAULT 0,
    session_count       INTEGER NOT NULL DEFAULT 0,
    last_sessions       TEXT NOT NULL DEFAULT '[]',
    introduced_to       BLOB,
    introduced_by       BLOB,
    introduced_by_name  TEXT,
    introduced_via_code TEXT,
    paid_status         TEXT NOT NULL DEFAULT 'unpaid',
    paid_at             INTEGER,
    payment_id          TEXT,
    invite_code_used    TEXT,
    my_invite_code      TEXT,
    successful_sessions INTEGER NOT NULL DEFAULT 0,
    qr_unlocked         INTEGER NOT NULL DEFAULT 0,
    qr_unlocked_at      INTEGER,
    ban_status          TEXT NOT NULL DEFAULT 'none',
    banned_at           INTEGER,
    banned_reason       TEXT,
    review_status       TEXT,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX users_by_email ON users (email) WHERE email IS NOT NULL;
CREATE UNIQUE INDEX users_by_own_code ON users (my_invite_code) WHERE my_invite_code IS NOT NULL;

-- Ended sessions stay until they expire, so that their holders can be told why.
CREATE TABLE sessions (
    token_hash     BLOB PRIMARY KEY NOT NULL CHECK (length(token_hash) = 32),
    user_id        BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    address        TEXT NOT NULL,
    device         TEXT NOT NULL,
    is_active      INTEGER NOT NULL DEFAULT 1,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    last_active_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_end ON sessions (expires_at);

-- An unordered pair, smaller id first.
CREATE TABLE cooldowns (
    lower_id   BLOB NOT NULL,
    higher_id  BLOB NOT NULL CHECK (lower_id < higher_id),
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (lower_id, higher_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX cooldowns_by_higher ON cooldowns (higher_id);
CREATE INDEX cooldowns_by_end ON cooldowns (expires_at);

-- One row for each participant of a call (D11). The partner may be gone.
CREATE TABLE chat_history (
    session_id   TEXT NOT NULL,
    user_id      BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    partner_id   BLOB NOT NULL,
    partner_name TEXT NOT NULL,
    room_id      BLOB NOT NULL,
    started_at   INTEGER NOT NULL,
    duration     INTEGER NOT NULL,
    messages     TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (session_id, user_id)
) STRICT;
CREATE INDEX chat_history_by_user ON chat_history (user_id, started_at);

CREATE TABLE session_completions (
    user_id          BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    room_id          BLOB NOT NULL,
    partner_id       BLOB NOT NULL,
    duration_seconds INTEGER NOT NULL,
    completed_at     INTEGER NOT NULL,
    PRIMARY KEY (user_id, room_id)
) STRICT, WITHOUT ROWID;

-- An unlimited code (type admin) has no counts.
CREATE TABLE invite_codes (
    code            TEXT PRIMARY KEY NOT NULL,
    type            TEXT NOT NULL CHECK (type IN ('user', 'admin')),
    max_uses        INTEGER,
    uses_remaining  INTEGER CHECK (uses_remaining BETWEEN 0 AND max_uses),
    is_active       INTEGER NOT NULL DEFAULT 1,
    created_by      BLOB,
    created_by_name TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    CHECK ((type = 'admin') = (uses_remaining IS NULL))
) STRICT;

CREATE TABLE invite_code_uses (
    code    TEXT NOT NULL REFERENCES invite_codes,
    user_id BLOB NOT NULL,
    used_at INTEGER NOT NULL,
    PRIMARY KEY (code, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE referral_codes (
    code            TEXT PRIMARY KEY NOT NULL,
    target_id       BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    target_name     TEXT NOT NULL,
    created_by      BLOB NOT NULL,
    created_by_name TEXT NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX referral_codes_by_target ON referral_codes (target_id);

-- Names and pictures as they were when it was filed: a report is evidence.
CREATE TABLE reports (
    report_id           BLOB PRIMARY KEY NOT NULL CHECK (length(report_id) = 16),
    reporter_id         BLOB NOT NULL,
    reporter_name       TEXT NOT NULL,
    reporter_address    TEXT NOT NULL,
    reported_id         BLOB NOT NULL,
    reported_name       TEXT NOT NULL,
    reported_selfie_url TEXT,
    reported_video_url  TEXT,
    reason              TEXT NOT NULL,
    room_id             BLOB,
    created_at          INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX reports_by_reporter ON reports (reporter_id, reported_id);
CREATE INDEX reports_by_reported ON reports (reported_id, reporter_id);
