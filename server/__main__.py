"""`python -m server` and the `genie` program: the command line, and nothing else."""

from server.cli import program


def main() -> None:
    """Run the command line of this process and exit with its code."""
    program(prog_name="genie")


if __name__ == "__main__":
    main()
