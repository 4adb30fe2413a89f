"""`python -m mailgw` is the command mailgw."""

from mailgw.cli import main

if __name__ == "__main__":
    main(prog_name="mailgw")
