"""What a reviewer of mappings lives with: the lock, what changed since, one way to write a file, a page to read."""
