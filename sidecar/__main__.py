"""`python -m sidecar` is the command `prosody-sidecar`."""

from sidecar.cli.main import main

if __name__ == "__main__":
    main()
