-- How long the lease was asked for, so that a clock that was ahead makes none longer.
ALTER TABLE map_task_runs ADD COLUMN lease_ms INTEGER;
ALTER TABLE map_task_claims ADD COLUMN lease_ms INTEGER;
