-- A schema with a trap for nearly everything in pg_catalog. A call of a trap is
-- counted, and fails. With shadow before pg_catalog in search_path, a statement
-- that depends on search_path reaches a trap.
CREATE SCHEMA shadow;
CREATE SEQUENCE shadow.calls;

CREATE FUNCTION shadow.trap(what pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.nextval('shadow.calls'); -- not undone by a rollback
    RAISE 'a trap was called: %', what;
END $$;

DO $$
DECLARE
    x record;
BEGIN
    -- Types are domains with a trap as their check.
    FOR x IN
        SELECT t.typname AS name
        FROM pg_type AS t
        WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r') AND t.typcategory <> 'A'
    LOOP
        EXECUTE format('CREATE DOMAIN shadow.%I AS pg_catalog.%1$I CHECK (shadow.trap(%L))', x.name, 'type ' || x.name);
    END LOOP;
    FOR x IN
        SELECT c.relname AS name
        FROM pg_class AS c
        WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v')
    LOOP
        EXECUTE format('CREATE VIEW shadow.%I AS SELECT shadow.trap(%L) AS trap', x.name, 'relation ' || x.name);
    END LOOP;
    -- A plpgsql function cannot take "any"; anyelement is the nearest.
    FOR x IN
        SELECT DISTINCT p.proname AS name, a.types
        FROM pg_proc AS p
            CROSS JOIN LATERAL (
                SELECT coalesce(string_agg(CASE t.typname WHEN 'any' THEN 'anyelement' ELSE format_type(t.oid, NULL) END, ', ' ORDER BY n), '') AS types,
                    bool_or(t.typname = 'internal' OR t.typname = 'cstring') AS impossible
                FROM unnest(p.proargtypes) WITH ORDINALITY AS u (oid, n) JOIN pg_type AS t ON t.oid = u.oid
            ) AS a
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind <> 'p' AND a.impossible IS NOT TRUE
    LOOP
        BEGIN
            EXECUTE format('CREATE FUNCTION shadow.%I(%s) RETURNS pg_catalog.bool LANGUAGE plpgsql AS %L',
                x.name, x.types, format('BEGIN RETURN shadow.trap(%L); END', format('function %s(%s)', x.name, x.types)));
        EXCEPTION WHEN feature_not_supported THEN NULL; -- an argument type that plpgsql does not support
        END;
    END LOOP;
    -- Operators: those of Postgres, and those for pairs of types for which Postgres
    -- finds one only by a cast, so that ours is the better match.
    FOR x IN
        SELECT row_number() OVER () AS n, o.*
        FROM (
            SELECT o.oprname AS name,
                CASE WHEN o.oprleft <> 0 THEN format_type(o.oprleft, NULL) END AS a,
                CASE WHEN o.oprright <> 0 THEN format_type(o.oprright, NULL) END AS b
            FROM pg_operator AS o
            WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprright <> 0
            UNION
            SELECT name, format_type(a::regtype, NULL), format_type(b::regtype, NULL)
            FROM unnest('{=,<>,<,<=,>,>=,+,-,||,~}'::text[]) AS name,
                unnest('{int2,int4,int8,oid,xid,text,name,varchar,bool,"\"char\"",regclass}'::text[]) AS a,
                unnest('{int2,int4,int8,oid,xid,text,name,varchar,bool,"\"char\"",regclass}'::text[]) AS b
        ) AS o
    LOOP
        EXECUTE format('CREATE FUNCTION shadow.operator_%s(%s) RETURNS pg_catalog.bool LANGUAGE plpgsql AS %L',
            x.n, concat_ws(', ', x.a, x.b), format('BEGIN RETURN shadow.trap(%L); END', format('operator %s %s %s', x.a, x.name, x.b)));
        EXECUTE format('CREATE OPERATOR shadow.%s (%s)',
            x.name, concat_ws(', ', 'FUNCTION = shadow.operator_' || x.n, 'LEFTARG = ' || x.a, 'RIGHTARG = ' || x.b));
    END LOOP;
END $$;
