"""The Compare page: several runs over each other."""
