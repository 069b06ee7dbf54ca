-- The tables of leases. This file may be run again: it changes nothing that is there. It
-- needs the right to create a schema. Give the roles of your programs what they need:
--
--     GRANT USAGE ON SCHEMA pglock TO app;
--     GRANT SELECT, INSERT, UPDATE, DELETE ON pglock.session, pglock.lease TO app;

CREATE SCHEMA IF NOT EXISTS pglock;

-- A session stands for a Locker. It renews one row, however many leases it holds.
CREATE TABLE IF NOT EXISTS pglock.session (
    id     pg_catalog.text PRIMARY KEY,          -- random, and never used again
    until  pg_catalog.timestamptz NOT NULL,      -- others may end it then; -infinity: it has ended
    since  pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    app    pg_catalog.text NOT NULL DEFAULT '',  -- its program
    host   pg_catalog.text NOT NULL DEFAULT '',  -- its machine
    pid    pg_catalog.int4 NOT NULL DEFAULT 0,   -- its process on that machine
    broken pg_catalog.int4 NOT NULL DEFAULT 0    -- how many of its leases were broken
) WITH (
    -- Renewals stay on the row's page, also while an old transaction keeps the row's
    -- earlier versions from being removed. Truncating the table would cancel queries on
    -- standbys.
    fillfactor = 10,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200,
    vacuum_truncate = off
);

-- A lease. Its row stays when it is released, because it has the last token. No index has
-- a column that taking or releasing changes.
CREATE TABLE IF NOT EXISTS pglock.lease (
    name    pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    slot    pg_catalog.int4 NOT NULL DEFAULT 0,  -- of several holders; -1: the first who waits for one; 0 otherwise
    token   pg_catalog.int8 NOT NULL,            -- grows with each holder
    owner   pg_catalog.text,                     -- a session; NULL: free
    since   pg_catalog.timestamptz,              -- when it was last taken
    free_at pg_catalog.timestamptz NOT NULL DEFAULT '-infinity',  -- not to be taken before
    wanted  pg_catalog.timestamptz NOT NULL DEFAULT '-infinity',  -- until then somebody listens for its release
    note    pg_catalog.text NOT NULL DEFAULT '', -- what the holder says about itself
    PRIMARY KEY (name, slot)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
    vacuum_truncate = off
);

-- The version of these tables. No lease of a program has a name that begins with a single #.
INSERT INTO pglock.lease (name, token) VALUES ('#version', 1)
ON CONFLICT (name, slot) DO UPDATE SET token = EXCLUDED.token
WHERE pglock.lease.token OPERATOR(pg_catalog.<) EXCLUDED.token;

-- For programs in other languages: SELECT pglock.fence('name', token), as the first
-- statement of a transaction. True: nobody can take the lease over before COMMIT.
CREATE OR REPLACE FUNCTION pglock.fence(name pg_catalog.text, token pg_catalog.int8, slot pg_catalog.int4 DEFAULT 0)
RETURNS pg_catalog.bool LANGUAGE sql AS $$
    SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 FROM (
        SELECT FROM pglock.lease AS l
        WHERE l.name OPERATOR(pg_catalog.=) $1 AND l.slot OPERATOR(pg_catalog.=) $3
            AND l.token OPERATOR(pg_catalog.=) $2 AND l.owner IS NOT NULL
        FOR KEY SHARE
    ) AS held
$$;
