"""The dashboard as an application: the table of pages, the guard, the JSON routes, the address."""
