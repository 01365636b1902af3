"""The commands of the command line, a file per purpose; cli.py names them."""
