"""Delete previous and unpublished accounts, by the ledger alone. Nothing is minted here."""
