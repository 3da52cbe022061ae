"""One module or folder per command, named like it; a command knows no other. It decides nothing."""
