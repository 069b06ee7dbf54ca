-- The beginning of a message of several statements. It is one transaction, which must not
-- wait for other people's, as that of a role would whose defaults are serializable, read
-- only and deferrable (PostgreSQL manual, SET TRANSACTION, "DEFERRABLE"); nor be ended
-- by the role's statement_timeout. Both end with the message. No statement here needs a
-- snapshot, which is what the first one that does would wait for.
SET LOCAL statement_timeout TO 0;
SET LOCAL TRANSACTION ISOLATION LEVEL READ COMMITTED, NOT DEFERRABLE;
