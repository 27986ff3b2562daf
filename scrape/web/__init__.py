"""Downloads candidates from the web: polite, safe against hostile hosts, and with a row for every candidate."""
