"""The report: one HTML file and one Markdown page, from an Analysis."""
