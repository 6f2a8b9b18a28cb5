"""`python -m conviction` is `conviction`."""

from conviction.cli.main import main

main()
