"""`adopt`: record accounts that only annotations or a former operator name. Nothing is deleted here."""
