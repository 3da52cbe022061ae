"""`python run.py`: the command line from a checkout, as the image starts it."""

from worker.cli import main

raise SystemExit(main())
