-- Times are ms since the Unix epoch, durations seconds (contract 5). JSON keeps the text it was given.
-- What refers to people who may be gone, and must outlive them, has no foreign key.

-- A user with an e-mail is permanent, one without is a guest.
CREATE TABLE users (
    user_id             uuid PRIMARY KEY,
    name                text NOT NULL,
    gender              text NOT NULL,
    email               text CHECK (email IS NULL OR password_hash IS NOT NULL),
    password_hash       text,
    selfie_url          text,
    video_url           text,
    socials             json,
    timer_total_seconds bigint NOT NULL DEFAULT 0,
    session_count       bigint NOT NULL DEFAULT 0,
    last_sessions       json NOT NULL DEFAULT '[]',
    introduced_to       uuid,
    introduced_by       uuid,
    introduced_by_name  text,
    introduced_via_code text,
    paid_status         text NOT NULL DEFAULT 'unpaid',
    paid_at             bigint,
    payment_id          text,
    invite_code_used    text,
    my_invite_code      text,
    successful_sessions bigint NOT NULL DEFAULT 0,
    qr_unlocked         boolean NOT NULL DEFAULT false,
    qr_unlocked_at      bigint,
    ban_status          text NOT NULL DEFAULT 'none',
    banned_at           bigint,
    banned_reason       text,
    review_status       text,
    created_at          bigint NOT NULL,
    updated_at          bigint NOT NULL
);
CREATE UNIQUE INDEX users_by_email ON users (email) WHERE email IS NOT NULL;
CREATE UNIQUE INDEX users_by_own_code ON users (my_invite_code) WHERE my_invite_code IS NOT NULL;

-- Ended sessions stay until they expire, so that their holders can be told why.
CREATE TABLE sessions (
    token_hash     bytea PRIMARY KEY CHECK (length(token_hash) = 32),
    user_id        uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    address        text NOT NULL,
    device         text NOT NULL,
    is_active      boolean NOT NULL DEFAULT true,
    created_at     bigint NOT NULL,
    expires_at     bigint NOT NULL,
    last_active_at bigint NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_end ON sessions (expires_at);
-- At most one active session per user.
CREATE UNIQUE INDEX sessions_active ON sessions (user_id) WHERE is_active;

-- An unordered pair, smaller id first.
CREATE TABLE cooldowns (
    lower_id   uuid NOT NULL,
    higher_id  uuid NOT NULL CHECK (lower_id < higher_id),
    expires_at bigint NOT NULL,
    PRIMARY KEY (lower_id, higher_id)
);
CREATE INDEX cooldowns_by_higher ON cooldowns (higher_id);
CREATE INDEX cooldowns_by_end ON cooldowns (expires_at);

-- One row for each participant of a call (D11). The partner may be gone.
CREATE TABLE chat_history (
    session_id   text NOT NULL,
    user_id      uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    partner_id   uuid NOT NULL,
    partner_name text NOT NULL,
    room_id      uuid NOT NULL,
    started_at   bigint NOT NULL,
    duration     bigint NOT NULL,
    messages     json NOT NULL,
    created_at   bigint NOT NULL,
    stored       bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (session_id, user_id)
);
CREATE INDEX chat_history_by_user ON chat_history (user_id, started_at, stored);

CREATE TABLE session_completions (
    user_id          uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    room_id          uuid NOT NULL,
    partner_id       uuid NOT NULL,
    duration_seconds bigint NOT NULL,
    completed_at     bigint NOT NULL,
    PRIMARY KEY (user_id, room_id)
);

-- An unlimited code (type admin) has no counts.
CREATE TABLE invite_codes (
    code            text PRIMARY KEY,
    type            text NOT NULL CHECK (type IN ('user', 'admin')),
    max_uses        integer,
    uses_remaining  integer CHECK (uses_remaining BETWEEN 0 AND max_uses),
    is_active       boolean NOT NULL DEFAULT true,
    created_by      uuid,
    created_by_name text NOT NULL,
    created_at      bigint NOT NULL,
    CHECK ((type = 'admin') = (uses_remaining IS NULL))
);

CREATE TABLE invite_code_uses (
    code    text NOT NULL REFERENCES invite_codes,
    user_id uuid NOT NULL,
    used_at bigint NOT NULL,
    PRIMARY KEY (code, user_id)
);

CREATE TABLE referral_codes (
    code            text PRIMARY KEY,
    target_id       uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    target_name     text NOT NULL,
    created_by      uuid NOT NULL,
    created_by_name text NOT NULL,
    created_at      bigint NOT NULL
);
CREATE INDEX referral_codes_by_target ON referral_codes (target_id);

-- Names and pictures as they were when it was filed: a report is evidence.
CREATE TABLE reports (
    report_id           uuid PRIMARY KEY,
    reporter_id         uuid NOT NULL,
    reporter_name       text NOT NULL,
    reporter_address    text NOT NULL,
    reported_id         uuid NOT NULL,
    reported_name       text NOT NULL,
    reported_selfie_url text,
    reported_video_url  text,
    reason              text NOT NULL,
    room_id             uuid,
    created_at          bigint NOT NULL
);
CREATE UNIQUE INDEX reports_by_reporter ON reports (reporter_id, reported_id);
CREATE INDEX reports_by_reported ON reports (reported_id, reporter_id);
