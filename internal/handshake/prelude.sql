-- The beginning of a message of several statements, which is one transaction. It must not
-- wait for other transactions, as it would if a role's default is serializable, read only
-- and deferrable (PostgreSQL manual, SET TRANSACTION, "DEFERRABLE"), and the role's
-- statement_timeout must not end it. Both settings end with the message. No statement here
-- needs a snapshot, since the first that does would wait.
SET LOCAL statement_timeout TO 0;
SET LOCAL TRANSACTION ISOLATION LEVEL READ COMMITTED, NOT DEFERRABLE;
