"""`python -m search.cli` is `roletune`."""

from search.cli import main

main()
