"""`python -m guidedattn`, the same as `guidedattn`."""

from guidedattn.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
