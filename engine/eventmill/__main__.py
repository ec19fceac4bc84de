"""``python -m eventmill``."""

from eventmill.cli.main import main

if __name__ == "__main__":
    main()
