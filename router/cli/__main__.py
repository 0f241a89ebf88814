"""``python -m router.cli``, the same as `dcmrouter`."""

from router.cli import main

main()
