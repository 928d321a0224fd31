"""What is used to work on the package and is no part of it."""
