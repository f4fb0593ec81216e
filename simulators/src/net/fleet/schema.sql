-- The tables of the reference consumer, for PostgreSQL and SQLite alike.

-- One row for each store of each site. Everything from first_sequence to contiguous is in events.
CREATE TABLE IF NOT EXISTS streams (
    site TEXT NOT NULL,
    store_id TEXT NOT NULL,
    first_sequence BIGINT NOT NULL,
    contiguous BIGINT NOT NULL,
    highest BIGINT NOT NULL,
    -- 0: an older store of a site that has begun another one. What it lacks nobody can send again.
    live BIGINT NOT NULL,
    -- When the hole behind contiguous was first seen, ms since 1970; 0: there is none.
    hole_since_ms BIGINT NOT NULL,
    -- When a replay is asked for next; 0: not at all.
    ask_at_ms BIGINT NOT NULL,
    asked_times BIGINT NOT NULL,
    PRIMARY KEY (site, store_id)
);
CREATE INDEX IF NOT EXISTS streams_to_ask ON streams (ask_at_ms) WHERE ask_at_ms > 0;

-- Each event once, its body byte by byte as it came.
CREATE TABLE IF NOT EXISTS events (
    site TEXT NOT NULL,
    store_id TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    type TEXT NOT NULL,
    time TEXT NOT NULL,
    body BYTEA NOT NULL,
    PRIMARY KEY (site, store_id, sequence)
);

-- The fold of the events of transactions. end_sequence is the event that the end was taken from.
CREATE TABLE IF NOT EXISTS transactions (
    site TEXT NOT NULL,
    store_id TEXT NOT NULL,
    charger TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    token TEXT,
    started TEXT,
    meter_start_wh BIGINT,
    ended TEXT,
    meter_stop_wh BIGINT,
    energy_wh BIGINT,
    gross_e4 BIGINT,
    currency TEXT,
    starts BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    corrections BIGINT NOT NULL,
    end_sequence BIGINT NOT NULL,
    PRIMARY KEY (site, store_id, charger, transaction_id)
);

-- Charge detail records; credits names the one that is taken back. Amounts are in 1/10000 of the currency; one without tax has no gross_e4.
CREATE TABLE IF NOT EXISTS cdrs (
    site TEXT NOT NULL,
    cdr_id TEXT NOT NULL,
    store_id TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    charger TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    credits TEXT,
    energy_wh BIGINT NOT NULL,
    net_e4 BIGINT NOT NULL,
    gross_e4 BIGINT,
    currency TEXT NOT NULL,
    PRIMARY KEY (site, cdr_id)
);

-- Each interval of the telemetry once, its body as it came. Where numbers of a ring are missing, it was full and has dropped them.
CREATE TABLE IF NOT EXISTS telemetry (
    site TEXT NOT NULL,
    ring TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    -- A meter, or a charger and its EVSE: CP001/1.
    device TEXT NOT NULL,
    begins TEXT NOT NULL,
    ends TEXT NOT NULL,
    import_wh BIGINT,
    body BYTEA NOT NULL,
    PRIMARY KEY (site, ring, sequence)
);

-- What could not be read, or not be understood, once each, with the reason.
CREATE TABLE IF NOT EXISTS quarantine (
    topic TEXT NOT NULL,
    digest TEXT NOT NULL,
    reason TEXT NOT NULL,
    body BYTEA NOT NULL,
    received_ms BIGINT NOT NULL,
    PRIMARY KEY (topic, digest)
);
