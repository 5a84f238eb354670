"""How fast tunekit is, beside what a user would write by hand and beside the limit of the machine."""
