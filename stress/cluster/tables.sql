-- The rows that holders of leases write, each in one way, and a log of the writes.
CREATE TABLE guarded (
    key    text,
    way    text,
    token  bigint NOT NULL DEFAULT 0,
    writes bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (key, way)
);
CREATE TABLE written (
    seq    bigserial PRIMARY KEY,
    key    text NOT NULL,
    way    text NOT NULL,
    token  bigint NOT NULL,
    worker text NOT NULL,
    number bigint NOT NULL,
    UNIQUE (worker, number)
);
-- What the program itself writes to learn whether there is a primary.
CREATE TABLE beat (at timestamptz);
INSERT INTO beat VALUES (now());
