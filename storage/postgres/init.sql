-- Run once by the postgres image, in the database that POSTGRES_DB names. Optuna makes its tables
-- itself; a lock that outlives its worker must not hold the others up.
ALTER DATABASE evomerge SET idle_in_transaction_session_timeout = '5min';
