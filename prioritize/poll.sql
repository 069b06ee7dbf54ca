-- Return which of the chosen sessions exist, and their blockers.
--
-- Until one of them waits, this reads only what backends report about themselves and
-- no lock table. pg_blocking_pids is called only for a session that waits for a lock,
-- and for one whose state is hidden from our role. (A leader whose parallel workers
-- wait for a lock shows IPC as its wait.)
--
-- $1: the chosen, as JSON: pids, applications, users, and only, the PID if it is a
-- single one
--
-- $2: the application_name of watchers, $3: the class of the locks that mark a run.
-- Watchers are never among the chosen. The name alone proves nothing: a session with
-- that name and without such a lock is not a watcher.
WITH
asked AS MATERIALIZED (
    SELECT $1::text::json AS who
),
chosen AS MATERIALIZED (
    SELECT
        a.pid,
        a.backend_start AS start,
        a.application_name AS application,
        u.rolname AS "user",
        a.wait_event_type,
        a.query = '<insufficient privilege>' AS hidden
    FROM asked AS q
    CROSS JOIN LATERAL pg_catalog.pg_stat_get_activity((q.who ->> 'only')::int4) AS a
    LEFT JOIN pg_catalog.pg_roles AS u ON u.oid = a.usesysid
    WHERE a.pid <> pg_catalog.pg_backend_pid()
      AND CASE WHEN a.application_name = $2::text THEN
          NOT EXISTS (
              SELECT FROM pg_catalog.pg_locks AS l
              WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
                AND l.classid::text = $3::text
          )
          ELSE true END
      AND (
          a.pid::text IN (SELECT pg_catalog.json_array_elements_text(q.who -> 'pids'))
          OR coalesce(a.backend_type, 'client backend') = 'client backend'
          AND (
              a.application_name IN (SELECT pg_catalog.json_array_elements_text(q.who -> 'applications'))
              OR u.rolname::text IN (SELECT pg_catalog.json_array_elements_text(q.who -> 'users'))
          )
      )
),
waiting AS MATERIALIZED (
    SELECT c.pid, pg_catalog.pg_blocking_pids(c.pid) AS blockers
    FROM chosen AS c
    WHERE c.hidden OR c.wait_event_type IN ('Lock', 'IPC')
)
SELECT pg_catalog.json_build_object(
    'chosen', (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
            'pid', c.pid, 'start', c.start, 'application', c.application, 'user', c."user"))
        FROM chosen AS c
    ),
    'waiting', (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object('pid', w.pid, 'blockers', w.blockers))
        FROM waiting AS w
        WHERE pg_catalog.cardinality(w.blockers) > 0
    )
)::text
