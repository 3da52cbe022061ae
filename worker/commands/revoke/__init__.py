"""`revoke`: replace a compromised key and delete its accounts at once. Nothing is scheduled here."""
