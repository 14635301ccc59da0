"""What a study came to: records, tables, the page, and the view while it runs."""
