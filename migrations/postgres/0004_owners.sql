-- The process that has a running call: the number of the advisory lock that it holds while it lives. NULL: nobody has it.
ALTER TABLE running_calls ADD COLUMN owner integer;
-- In which of its rounds that process took the call over from another; 0: it began there.
ALTER TABLE running_calls ADD COLUMN taken_in integer NOT NULL DEFAULT 0;
