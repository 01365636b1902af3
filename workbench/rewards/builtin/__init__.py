"""The rewards that come with the workbench, one family a file; catalogue.py is the table over them."""
