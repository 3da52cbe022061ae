"""Tell what a run did: conditions and Events, log lines, the table. Nothing is decided here."""
