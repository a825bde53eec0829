-- The duration of the lease, as it was requested. So a clock that was ahead makes no lease longer.
ALTER TABLE map_task_runs ADD COLUMN lease_ms INTEGER;
ALTER TABLE map_task_claims ADD COLUMN lease_ms INTEGER;
