"""`python -m tunekit` is the same as `tunekit`."""

from tunekit.cli import run

if __name__ == "__main__":
    run()
