"""The study's database: its address, its locks, what fails in it, and few statements to read and write it by."""
